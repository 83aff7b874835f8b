"""
Connections to PostgreSQL that stay checked out of SQLAlchemy's pool between statements.

To check a connection out and in takes a tenth of a step's CPU time.  So after a statement that commits by itself, its
connection is kept, and the next such statement takes it.  It is of no thread, and in no transaction.

A kept connection is idle, and so must not be missing elsewhere: one goes back to the pool before a transaction takes
its connection there, and none is kept while the pool has opened more connections than its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# The function itself: the guards of workflow code put a slower one into the module.
from time import monotonic
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Pool, QueuePool

from . import statements
from .statements import IdleConnections

#: So long after its checkout, a connection goes back to the pool, which checks whether it can still be used.
_KEPT_SECS = 1.0


class _Kept(NamedTuple):
    connection: Connection
    pool: Pool
    checked_out_at: float
    used_at: float


class KeptConnections:
    """The kept connections of one engine, in one process."""

    def __init__(self) -> None:
        # Lists append and pop atomically, so this needs no lock.
        self._kept: list[_Kept] = []

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def connect(self, engine: Engine) -> Iterator[Connection]:
        """
        A connection for statements that commit by themselves.

        It is kept afterwards, unless the block raises or leaves something behind.  The block must not change the
        connection's options.
        """
        kept = self._take(engine)
        if kept is None:
            pool, checked_out_at = engine.pool, monotonic()
            connection = engine.connect()
        else:
            connection, pool, checked_out_at, _ = kept
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        # SQLAlchemy begins a transaction of its own around what it executes.
        if connection.invalidated or connection.closed or connection.get_transaction() is not None:
            connection.close()
            return
        self._kept.append(_Kept(connection, pool, checked_out_at, monotonic()))
        # Look at the pool only now: a thread that needs a connection has found this one, or is seen here.
        if pool is not engine.pool:
            self.close()
        elif not isinstance(pool, QueuePool) or pool.overflow() > 0:
            self.give_back()

    def give_back(self) -> None:
        """Give a connection back to the pool, if one is kept."""
        try:
            kept = self._kept.pop()
        except IndexError:
            return
        _give_back(kept)

    def close(self) -> None:
        """Close the kept connections; to be called when the engine has a new pool."""
        while self._kept:
            kept = self._kept.pop()
            kept.connection.invalidate()
            kept.connection.close()

    def _take(self, engine: Engine) -> _Kept | None:
        try:
            kept = self._kept.pop()
        except IndexError:
            return None
        idle: IdleConnections | None = engine.get_execution_options().get(statements.OPTION)
        if monotonic() - kept.checked_out_at < _KEPT_SECS and idle is not None and idle.is_trusted(kept.used_at):
            return kept
        _give_back(kept)
        return None


def _give_back(kept: _Kept) -> None:
    kept.connection.info[statements.KEPT] = kept.used_at
    kept.connection.close()
