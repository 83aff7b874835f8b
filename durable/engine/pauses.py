"""
What is paused by name, as this process knows it.

A process reads it with each heartbeat, so it knows of a pause within ``beat_interval``.  While nothing is paused, a
turn and an attempt look at an empty set and nothing else.  While something is, the database decides: what is to be held
is written in a transaction that finds the pause there.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..store import Cause, Store, pauses


class KnownPauses:
    """The workflows, queues and receivers that are paused."""

    def __init__(self) -> None:
        self._active: frozenset[Cause] = frozenset()
        self._read_at = float("-inf")

    def __bool__(self) -> bool:
        return bool(self._active)

    def has(self, kind: str, name: str | None) -> bool:
        """Whether it is paused."""
        return name is not None and bool(self._active) and Cause(kind, name) in self._active

    def of_run(self, workflow: str, queue: str | None) -> list[Cause]:
        """
        Why a run does not go on.

        Args:
            queue: The queue that its turns go to.
        """
        causes = [Cause(pauses.WORKFLOW, workflow)] + ([Cause(pauses.QUEUE, queue)] if queue is not None else [])
        return [cause for cause in causes if cause in self._active]

    def know(self, active: Iterable[Cause]) -> None:
        """Take note of what was read from the database."""
        self._active = frozenset(active)
        self._read_at = time.monotonic()

    def read(self, store: Store) -> None:
        """Read what is paused."""
        with store.read() as tx:
            self.know(pauses.active(tx))

    def read_if_older(self, store: Store, secs: float) -> None:
        """Read what is paused, unless that was done so many *secs* ago; for processes without a heartbeat."""
        # Several may read it at once: a lock would be held over a wait for SQL, which blocks an event loop.
        if time.monotonic() - self._read_at >= secs:
            self.read(store)
