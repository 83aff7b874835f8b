"""
The timer thread of a process: checks turns and attempts when one of them may be over its time.

What it checks, and what it does then, is a ``Policy``: the watchdog of turns and the deadlines of attempts.  All of
them share one lock.  The thread holds it while it checks, and a policy holds it while it changes what it watches, so
nothing slow may be done under it.  The thread starts with the first thing to check, after any fork.

Where the process is out of threads, turns and attempts run unchecked until the next of them has started the thread.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

from .. import forks
from ..sandbox import log_records

log = log_records.get("durable")


class Policy(Protocol):
    """What the timer thread checks."""

    def begin(self) -> None:
        """Start with nothing, in this process or in a child."""

    def check(self) -> float | None:
        """Check now, under the lock; seconds until the next check, None for as long as nothing is added."""


class TimerThread:
    """
    The thread, and its lock.

    Attributes:
        changed: The lock; notified when the thread has to check earlier.
    """

    def __init__(self) -> None:
        self._policies: list[Policy] = []
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf
        #: Why the thread could not be started, until that is logged; and whether it was since there was a thread.
        self._refused: RuntimeError | None = None
        self._has_reported = False
        for policy in self._policies:
            policy.begin()

    def add(self, policy: Policy) -> None:
        """Check what this policy watches too."""
        policy.begin()
        with self.changed:
            self._policies.append(policy)

    def check_by(self, moment: float) -> None:
        """
        Have everything checked at *moment* (``time.monotonic``) or before.

        The caller holds the lock, and calls ``report`` when it has released it.
        """
        if self._thread is None:
            self._start()
        elif moment < self._wakes_at:
            self.changed.notify()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="durable-timer", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # An error here would fail turns and attempts that may need no check at all.
            if not self._has_reported:
                self._refused = error
            return
        self._thread, self._refused, self._has_reported = thread, None, False

    def report(self) -> None:
        """Log it if the thread could not be started; not under the lock, since to log may take long."""
        error = self._refused
        if error is not None:
            self._refused, self._has_reported = None, True
            log.warning("No thread could be started that checks turns and steps; they run without a limit: %s", error)

    def close(self) -> None:
        """End the thread.  Another one starts when there is something to check."""
        with self.changed:
            self._thread = None
            self.changed.notify()

    def _run(self) -> None:
        with self.changed:
            while self._thread is threading.current_thread():
                pauses = [pause for policy in self._policies if (pause := policy.check()) is not None]
                pause = min(pauses, default=None)
                self._wakes_at = math.inf if pause is None else time.monotonic() + pause
                self.changed.wait(pause)
