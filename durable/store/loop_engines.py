"""
The connections of event loops: each loop has an engine of its own, whose connections wait in that loop.

A loop's connections are closed when the loop ends.  ``asyncio.run``, which every server uses, closes the asynchronous
generators of its loop at the end, so each engine has one.  A loop that ends without that is noticed when another one
opens an engine.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Callable
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, event

from .. import forks, greenlets


class LoopEngines:
    """The engines of the loops of one process.  A loop's thread alone uses its engine."""

    def __init__(self) -> None:
        self._of_loops: WeakKeyDictionary[AbstractEventLoop, _LoopEngine] = WeakKeyDictionary()
        self._of_parents: list[_LoopEngine] = []
        forks.call_in_child(self._begin_in_child)

    def _begin_in_child(self) -> None:
        # Kept, since a driver closes a connection that is garbage, and the parent still uses it.
        self._of_parents += self._of_loops.values()
        self._of_loops = WeakKeyDictionary()

    def current(self, make: Callable[[], Engine]) -> Engine:
        """
        The engine of the running loop; in a greenlet only.

        Args:
            make: Makes an engine whose connections wait in the running loop.
        """
        loop = asyncio.get_running_loop()
        found = self._of_loops.get(loop)
        if found is None:
            for other, left in list(self._of_loops.items()):
                if other.is_closed():
                    left.close()
                    self._of_loops.pop(other, None)
            found = self._of_loops[loop] = _LoopEngine(make())
            greenlets.wait(anext(found.until_loop_ends))
        return found.engine

    def close(self) -> None:
        """Close the connections that are not in use."""
        for loop, found in list(self._of_loops.items()):
            if loop.is_running() and loop is not _running_loop():
                loop.call_soon_threadsafe(found.close)
            else:
                found.close()


class _LoopEngine:
    """
    One engine.

    Attributes:
        until_loop_ends: A generator that closes the connections; the loop closes it when it ends.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        #: psycopg's connections that are in the pool.
        self._idle: set[Any] = set()
        event.listen(engine, "checkin", self._note_idle)
        event.listen(engine, "checkout", self._note_used)
        event.listen(engine, "close", self._note_used)
        self.until_loop_ends = self._close_at_end()

    def close(self) -> None:
        """Close the connections that are not in use; the engine opens new ones."""
        # Not by the pool, which would have to wait for a running loop.
        self.engine.dispose(close=False)
        while self._idle:
            self._idle.pop().pgconn.finish()

    def _note_idle(self, connection: Any, _record: object) -> None:
        # None: the connection was broken, and is closed.
        if connection is not None:
            self._idle.add(connection.driver_connection)

    def _note_used(self, connection: Any, *_: object) -> None:
        self._idle.discard(connection.driver_connection)

    async def _close_at_end(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self.close()


def _running_loop() -> AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
