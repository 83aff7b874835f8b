"""
Sends the first turns of new runs: many in a moment come together, as messages for several runs each.

A run that is started by itself has its message at once.  In a process that starts many runs one after the other, a
message waits for some milliseconds for those of the next runs.  If the process is killed meanwhile, the sweep sends it.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence

# The function itself: the guards of workflow code put a slower one into the module.
from time import monotonic

from .. import forks
from ..store import DriveRow
from .later import Later

#: So many starts within this time, in seconds, are many.
MANY = 16
WINDOW_SECS = 0.05
#: How long a message waits for others, in seconds, and how many it carries at most.
HOLD_SECS = 0.01
MOST_TOGETHER = 8


class FirstTurns:
    """The first turns of the runs that one process starts."""

    def __init__(
        self,
        send: Callable[[Sequence[DriveRow], int], object],
        later: Callable[[], Later],
        *,
        holds: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """
        Args:
            send: Sends first turns, those of so many runs in one message.
            later: Returns what makes calls a moment later.
            holds: Returns whether a message may wait for those of other runs, and carry them.
            clock: Returns the time in seconds.
        """
        self._holds = holds
        self._send = send
        self._later = later
        self._clock = clock
        self._held: list[DriveRow] = []
        self._begin()
        forks.call_in_child(self._begin)
        # A program may end right after it has started its runs.
        self._at_exit = weakref.finalize(self, _flush, self._held, send)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child: what the parent holds it also sends."""
        self._lock = threading.Lock()
        self._latest: deque[float] = deque(maxlen=MANY)
        self._held.clear()

    def add(self, row: DriveRow) -> None:
        """Send the first turn of a run now, or a moment later with those of others."""
        with self._lock:
            now = self._clock()
            are_many = len(self._latest) == MANY and self._latest[0] > now - WINDOW_SECS
            self._latest.append(now)
            is_held = are_many and self._may_wait(row)
            if is_held:
                self._held.append(row)
            count = len(self._held)
        if not is_held:
            self._send([row], 1)
        elif count >= MOST_TOGETHER:
            self.flush()
        elif count == 1:
            self._later().call(self, HOLD_SECS, self.flush)

    def add_all(self, rows: Sequence[DriveRow]) -> None:
        """Send the first turns of runs that were started at once; but in no fewer than ``MANY`` messages."""
        together = [row for row in rows if self._may_wait(row)]
        alone = [row for row in rows if not self._may_wait(row)]
        self._send(together, min(MOST_TOGETHER, max(1, len(together) // MANY)))
        self._send(alone, 1)

    def _may_wait(self, row: DriveRow) -> bool:
        # Celery applies priorities to messages, and its instrumentation makes a span of each in the run's trace.
        return row.priority is None and row.trace_context is None and self._holds()

    def flush(self) -> None:
        """Send what waits."""
        with self._lock:
            rows = self._held[:]
            self._held.clear()
        self._send(rows, MOST_TOGETHER)

    def close(self) -> None:
        """Send what waits: the process does not need this any more."""
        self._at_exit.detach()
        self.flush()


def _flush(held: list[DriveRow], send: Callable[[Sequence[DriveRow], int], object]) -> None:
    send(held, MOST_TOGETHER)
