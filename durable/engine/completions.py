"""
Waiting for runs to end: a hint says that one has, SQL says how.

A process that waits asks to be told (``Notifier.expect``), looks once more, and then looks again when a hint comes; and
every now and then without one, since hints may be lost.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from ..broker import SUBSCRIPTION_SECS, Notifier

#: Pauses between two looks without hints: short first, then sparing the database.
PAUSES_SECS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
#: The same while hints arrive.
SLOW_SECS = 1.0


class Completions:
    """The ends that the threads of one process wait for."""

    def __init__(self, notifier: Notifier, holder: str) -> None:
        """
        Args:
            holder: This process's inbox.
        """
        self.notifier = notifier
        self.holder = holder
        self._lock = threading.Lock()
        self._waiters: dict[str, set[threading.Event]] = defaultdict(set)

    @contextmanager
    def expected(self, run_id: str) -> Iterator[End]:
        """Wait for a run's end; look at it after this, since it may have come before."""
        end = End(self, run_id)
        with self._lock:
            self._waiters[run_id].add(end.told)
        try:
            self.notifier.listen(self.holder, self.hint)
            yield end
        finally:
            with self._lock:
                self._waiters[run_id].discard(end.told)
                if not self._waiters[run_id]:
                    del self._waiters[run_id]

    def hint(self, run_id: str) -> None:
        """A run has ended, perhaps."""
        with self._lock:
            waiters = tuple(self._waiters.get(run_id, ()))
        for told in waiters:
            told.set()


class End:
    """The end of one run, for one thread."""

    def __init__(self, ends: Completions, run_id: str) -> None:
        self.told = threading.Event()
        self._ends = ends
        self._run_id = run_id
        self._looks = 0
        self._asked_at = 0.0
        self.expect()

    def expect(self) -> None:
        """Ask to be told, anew when that is soon forgotten."""
        now = time.monotonic()
        if not self._asked_at or now - self._asked_at > SUBSCRIPTION_SECS / 2:
            self._ends.notifier.subscribe(self._run_id, self._ends.holder)
            self._asked_at = now

    def wait(self, at_most_secs: float) -> None:
        """Return when it is time to look again."""
        self.expect()
        pause = PAUSES_SECS[min(self._looks, len(PAUSES_SECS) - 1)]
        self._looks += 1
        self.told.wait(min(at_most_secs, SLOW_SECS if self._ends.notifier.healthy else pause))
        self.told.clear()
