"""
The waits that a process knows: those of the runs whose replay it keeps.

When such a wait is over, this process can take the run's turn at once, with the replay that it has, and without a look
into the database.  The wait's message comes all the same.  So it does no harm to forget a wait.

The process also remembers the waits that it has ended itself, so that their messages cost no look either.
"""

from __future__ import annotations

import heapq
import threading
from dataclasses import dataclass

from .. import forks

#: The most waits that are known, and the most whose end is remembered.
MOST = 1000


@dataclass(frozen=True, order=True, slots=True)
class KnownWait:
    """A wait, and when it is due."""

    due_at: int
    run_id: str
    op_id: str


class KnownWaits:
    """The waits of one process, by the time at which they are due."""

    def __init__(self) -> None:
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with none, in this process or in a child."""
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], KnownWait] = {}
        self._ended: dict[tuple[str, str], None] = {}
        #: The same as a heap, with some that are not known any more; at most twice MOST.
        self._by_time: list[KnownWait] = []

    def note(self, wait: KnownWait) -> None:
        """Note a wait, unless too many are known."""
        with self._lock:
            if len(self._known) >= MOST:
                return
            if len(self._by_time) >= 2 * MOST:
                # Half of them or more were taken or forgotten long before they are due: timeouts of quick steps.
                self._by_time = sorted(self._known.values())
            self._known[wait.run_id, wait.op_id] = wait
            heapq.heappush(self._by_time, wait)

    def take(self, run_id: str, op_id: str) -> KnownWait | None:
        """Take this wait; None when it is not known."""
        with self._lock:
            return self._known.pop((run_id, op_id), None)

    def take_due(self, now: int) -> KnownWait | None:
        """Take the wait that has been due for longest by *now*; None when none is due."""
        with self._lock:
            while self._by_time and self._by_time[0].due_at <= now:
                due = heapq.heappop(self._by_time)
                if self._known.pop((due.run_id, due.op_id), None) is not None:
                    return due
            return None

    def note_end(self, wait: KnownWait) -> None:
        """Remember that this process has ended a wait."""
        with self._lock:
            self._ended[wait.run_id, wait.op_id] = None
            if len(self._ended) > MOST:
                del self._ended[next(iter(self._ended))]

    def take_end(self, run_id: str, op_id: str) -> bool:
        """
        Return whether this process has ended the wait, once: the next message is for a look into the database.

        A database that has lost the end, in a failover, has the wait again.
        """
        with self._lock:
            return self._ended.pop((run_id, op_id), self) is None

    def __len__(self) -> int:
        return len(self._known)
