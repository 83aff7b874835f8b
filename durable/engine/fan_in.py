"""
Fan-in: outcomes of many steps that are out at once are taken in together.

A turn for each of them would cost more than the steps do, and two processes' turns would be in each other's way.  So
while many are out, an outcome waits a moment for company in the inbox: the next outcome here takes it along, or that of
another process that has waited for longer, or a timer sends a turn for it.  A process that dies meanwhile leaves it to
the sweep.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .. import forks
from ..sandbox import log_records

log = log_records.get("durable.drive")

#: So many others have to be out for an outcome to wait.
MANY = 8
#: How long it waits, in seconds.
BATCH_DELAY_SECS = 0.025
#: Of so many runs it is known when they were looked at.
_MOST = 1000


class FanIn:
    """The runs of one process whose outcomes wait for company."""

    def __init__(self, send: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            send: Sends a turn of a run, unless it has no news by now; called in a thread of its own.
            clock: Says the time, in seconds.
        """
        self._send = send
        self._clock = clock
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._changed = threading.Condition(threading.Lock())
        #: By run: when its inbox was looked at last, or the turn was over; and until when an outcome waits.
        self._looked: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def defer(self, run_id: str, out: int) -> bool:
        """Whether an outcome that was just recorded is left to wait, with *out* other operations under way."""
        if out < MANY:
            return False
        now = self._clock()
        with self._changed:
            if now - self._looked.get(run_id, -1.0) < BATCH_DELAY_SECS:
                self._wait(run_id, now)
                return True
            self._note(run_id, now)
        return False

    def turn_ended(self, run_id: str) -> None:
        """The turn is over: the next moment begins now, however long the turn took."""
        with self._changed:
            if run_id in self._looked:
                self._looked[run_id] = self._clock()

    def postpone(self, run_id: str) -> None:
        """Another process is about to take the run's news in: look again a moment later."""
        with self._changed:
            self._wait(run_id, self._clock())

    def _note(self, run_id: str, now: float) -> None:
        """The inbox is looked at now: what has waited is taken along."""
        self._due.pop(run_id, None)
        self._looked.pop(run_id, None)
        self._looked[run_id] = now
        if len(self._looked) > _MOST:
            del self._looked[next(iter(self._looked))]

    def _wait(self, run_id: str, now: float) -> None:
        if run_id in self._due:
            return
        self._due[run_id] = now + BATCH_DELAY_SECS
        if self._thread is None:
            self._thread = threading.Thread(target=self._ring, name="durable-fan-in", daemon=True)
            self._thread.start()
        self._changed.notify()

    def close(self) -> None:
        """Send what waits now, and end the thread: the process is about to end."""
        with self._changed:
            waiting = list(self._due)
            self._due.clear()
            self._thread = None
            self._changed.notify()
        for run_id in waiting:
            self._try(run_id)

    def _ring(self) -> None:
        while (due := self._next()) is not None:
            for run_id in due:
                self._try(run_id)

    def _try(self, run_id: str) -> None:
        try:
            self._send(run_id)
        except Exception:
            # One run's trouble must not leave the others waiting.
            log.exception("No turn could be sent to run %s; it is left to the sweep.", run_id)

    def _next(self) -> list[str] | None:
        """The runs for which it is time, None when the thread is to end."""
        with self._changed:
            while self._thread is threading.current_thread():
                now = self._clock()
                due = [run_id for run_id, at in self._due.items() if at <= now]
                for run_id in due:
                    del self._due[run_id]
                if due:
                    return due
                self._changed.wait(min(self._due.values()) - now if self._due else None)
        return None
