"""
Fan-in: when many steps of a run are under way, one turn takes several of their outcomes.

A turn for each outcome would cost more than the steps do, and turns of two processes would block each other.  So while
many steps are under way, an outcome waits in the inbox for up to ``BATCH_DELAY_SECS``.  It is taken by the turn of the
next outcome in this process, by a turn of another process, or by a turn that a timer sends.  When the process dies
before that, the sweep sends the turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .. import forks
from ..sandbox import log_records

log = log_records.get("durable.drive")

#: An outcome waits only while at least so many other operations are under way.
MANY = 8
#: How long it waits, in seconds.
BATCH_DELAY_SECS = 0.025
#: The most runs whose last turn is remembered.
_MOST_RUNS = 1000


class FanIn:
    """The runs of one process that have outcomes waiting."""

    def __init__(self, send: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            send: Sends a turn of a run, unless its inbox is empty by now; called in a thread of its own.
            clock: Returns the time, in seconds.
        """
        self._send = send
        self._clock = clock
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._changed = threading.Condition(threading.Lock())
        #: By run, when its last turn took the inbox, or ended.
        self._taken_at: dict[str, float] = {}
        #: By run, when a turn is sent for the outcomes that wait.
        self._due: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def defer(self, run_id: str, out: int) -> bool:
        """
        Have an outcome that was just recorded wait; False when a turn has to take it now.

        Args:
            out: How many other operations of the run are under way.
        """
        if out < MANY:
            return False
        now = self._clock()
        with self._changed:
            if now - self._taken_at.get(run_id, -1.0) < BATCH_DELAY_SECS:
                self._schedule(run_id, now)
                return True
            # The caller's turn takes the inbox now, with what has waited in it.
            self._due.pop(run_id, None)
            self._taken_at.pop(run_id, None)
            self._taken_at[run_id] = now
            if len(self._taken_at) > _MOST_RUNS:
                del self._taken_at[next(iter(self._taken_at))]
        return False

    def turn_ended(self, run_id: str) -> None:
        """Count the delay from the end of the run's turn, however long the turn took."""
        with self._changed:
            if run_id in self._taken_at:
                self._taken_at[run_id] = self._clock()

    def postpone(self, run_id: str) -> None:
        """Send a turn after the delay, unless the inbox is empty then: another process is about to take it."""
        with self._changed:
            self._schedule(run_id, self._clock())

    def _schedule(self, run_id: str, now: float) -> None:
        if run_id in self._due:
            return
        self._due[run_id] = now + BATCH_DELAY_SECS
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_when_due, name="durable-fan-in", daemon=True)
            self._thread.start()
        self._changed.notify()

    def close(self) -> None:
        """Send turns for all outcomes that wait, and end the thread: the process is about to end."""
        with self._changed:
            waiting = list(self._due)
            self._due.clear()
            self._thread = None
            self._changed.notify()
        for run_id in waiting:
            self._try_to_send(run_id)

    def _send_when_due(self) -> None:
        while True:
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                now = self._clock()
                due = [run_id for run_id, at in self._due.items() if at <= now]
                for run_id in due:
                    del self._due[run_id]
                if not due:
                    self._changed.wait(min(self._due.values()) - now if self._due else None)
            for run_id in due:
                self._try_to_send(run_id)

    def _try_to_send(self, run_id: str) -> None:
        try:
            self._send(run_id)
        except Exception:
            # An error with one run must not leave the others waiting.
            log.exception("No turn could be sent for run %s; the sweep sends it.", run_id)
