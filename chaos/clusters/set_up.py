"""What a set-up of several servers is: how it is started, and what is done to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..servers import PostgreSQL, Server, find_program


@dataclass(frozen=True)
class Hurt:
    """Something that is done to a set-up."""

    name: str
    #: Does it.  How long it takes until work goes on is measured from its return.
    do: Callable[[], Any]
    #: Makes the set-up whole again.
    mend: Callable[[], Any] = lambda: None
    #: Done in the short form too.
    short: bool = True
    #: The database loses commits by it: what is lost of earlier runs is counted, and no fault.
    loses: bool = False


class SetUp:
    """
    Servers of our own, and the URLs that an application configures for them.

    Attributes:
        name: By which it is chosen on the command line.
        programs: What has to be installed for it.
        rate: How many runs are started a second, unless the command line says.
    """

    name = ""
    programs: Sequence[str] = ()
    rate = 3.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()

    @classmethod
    def missing(cls) -> list[str]:
        """What it needs and is not installed here."""
        return [program for program in cls.programs if find_program(program) is None]

    def start(self) -> None:
        """Start all servers; returns once they answer as one."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all servers."""
        self._stack.close()

    @property
    def celery(self) -> Mapping[str, Any]:
        """Settings of Celery that the application needs."""
        return {}

    @property
    def database_url(self) -> str:
        raise NotImplementedError

    @property
    def broker_url(self) -> str:
        raise NotImplementedError

    def hurts(self) -> Sequence[Hurt]:
        """What is done, in this order."""
        raise NotImplementedError

    def run(self, server: Server) -> None:
        """Start a server, which ends with the set-up."""
        self._stack.callback(server.kill)
        server.start()


class BrokerSetUp(SetUp):
    """A set-up of the broker, with one PostgreSQL beside it."""

    def start(self) -> None:
        self._database = PostgreSQL(self.folder)
        self.run(self._database)
        self.start_broker()

    def start_broker(self) -> None:
        """Start the broker's servers."""
        raise NotImplementedError

    @property
    def database_url(self) -> str:
        return self._database.url
