"""A store whose clock is a number, and which can crash."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Dialect, Engine, event, literal_column
from sqlalchemy.util import LRUCache

from ..sandbox import ProcessEnd
from ..store import Store

#: Compiled statements, shared by all environments of the process: compiling takes longer than running them.
_STATEMENTS: LRUCache[Any, Any] = LRUCache(1000)
#: The cache's keys contain the dialect object, so all environments use the first one.
_DIALECTS: list[Dialect] = []


class Crashed(ProcessEnd):
    """Raised where a process crashes, and by everything that the process then tries to read, write or send."""


@dataclass
class Clock:
    """The time of an environment, in microseconds since 1970 UTC."""

    now: int


class ClockedStore(Store):
    """A SQLite store that takes the time from *clock*, and does not wait for the disk."""

    def __init__(self, url: str, clock: Clock) -> None:
        super().__init__(url, pool_size=5)
        self._time = clock
        self.crashed = False
        self._connections: list[Any] = []

    def now(self) -> int:
        return self._time.now

    @property
    def sql_now(self) -> ColumnElement[int]:
        return literal_column(str(self._time.now), BigInteger)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        self.check_alive()
        with super().begin() as tx:
            yield tx
            self.check_alive()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self.check_alive()
        with super().read() as tx:
            yield tx

    def check_alive(self) -> None:
        """Raise Crashed if the process has crashed."""
        if self.crashed:
            raise Crashed

    def die(self) -> None:
        """Crash: close all connections, so that the database rolls back what they have not committed."""
        self.crashed = True
        while self._connections:
            self._connections.pop().close()

    def _measure(self, tx: Connection) -> None:
        """The clock is exact, so there is no difference to a server's clock to measure."""

    def _open(self) -> Engine:
        def on_connect(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA synchronous = OFF")
            self._connections.append(connection)

        engine = super()._open()
        event.listen(engine, "connect", on_connect)
        _DIALECTS.append(engine.dialect)
        engine.dialect = _DIALECTS[0]
        del _DIALECTS[1:]
        return engine.execution_options(compiled_cache=_STATEMENTS)
