"""A store whose clock is a number, and which a crash closes for good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Dialect, Engine, event, literal_column
from sqlalchemy.util import LRUCache

from ..sandbox import ProcessEnd
from ..store import Store

#: Statements as text, for all environments of the process: making them takes longer than running them.
_STATEMENTS: LRUCache[Any, Any] = LRUCache(1000)
#: They are found again by the dialect object that they were made for: the first one serves all.
_DIALECTS: list[Dialect] = []


class Crashed(ProcessEnd):
    """Raised where a process dies, and from then on by all that it would still do to its surroundings."""


@dataclass
class Clock:
    """The time of an environment, in microseconds since 1970 UTC.  It moves when it is told to."""

    now: int


class ClockedStore(Store):
    """A SQLite store in which it is as late as *clock* says.  It is not careful with the disk."""

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
        """Raise Crashed in a process that has died."""
        if self.crashed:
            raise Crashed

    def die(self) -> None:
        """The process has died: its connections are cut, and what they had not committed is undone."""
        self.crashed = True
        while self._connections:
            self._connections.pop().close()

    def _opened(self, connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        self._connections.append(connection)

    def _measure(self, tx: Connection) -> None:
        """Its time needs no measuring."""

    def _open(self) -> Engine:
        engine = super()._open()
        event.listen(engine, "connect", self._opened)
        _DIALECTS.append(engine.dialect)
        engine.dialect = _DIALECTS[0]
        del _DIALECTS[1:]
        return engine.execution_options(compiled_cache=_STATEMENTS)
