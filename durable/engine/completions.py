"""
Waiting for runs to end, or to take a payload in, and for replies to questions.

A process that waits for a run subscribes to it (``Notifier.subscribe``) and then checks the run in SQL.  It checks
again when a notification arrives, and at intervals without one, since notifications may be lost.  For a
reply, a notification is sent to the process that has asked, which needs no subscription.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from ..broker import SUBSCRIPTION_SECS, Notifier

#: Seconds between two checks when no notifications arrive: short at first, then longer to spare the database.
PAUSES_SECS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
#: Seconds between two checks while notifications arrive.
SLOW_SECS = 1.0


class Completions:
    """The runs, and the questions, that threads of this process wait for."""

    def __init__(self, notifier: Notifier, holder: str) -> None:
        """
        Args:
            holder: The name of this process's inbox.
        """
        self.notifier = notifier
        self.holder = holder
        self._lock = threading.Lock()
        self._waiters: dict[str, set[threading.Event]] = defaultdict(set)

    @contextmanager
    def expected(self, run_id: str, *, is_addressed: bool = False) -> Iterator[Completion]:
        """
        Wait for a run.  Check it inside the block first: what you wait for may have happened before.

        Args:
            run_id: The run, or a question by the id of its request.
            is_addressed: The notification is sent to this process, without a subscription.
        """
        completion = Completion(self, run_id, is_addressed)
        with self._lock:
            self._waiters[run_id].add(completion.notified)
        try:
            self.notifier.listen(self.holder, self.notify)
            yield completion
        finally:
            with self._lock:
                self._waiters[run_id].discard(completion.notified)
                if not self._waiters[run_id]:
                    del self._waiters[run_id]

    def notify(self, run_id: str) -> None:
        """Wake the threads that wait for this run, to check it."""
        with self._lock:
            waiters = tuple(self._waiters.get(run_id, ()))
        for notified in waiters:
            notified.set()


class Completion:
    """What one thread waits for: the end of a run, that it takes a payload in, or a reply."""

    def __init__(self, completions: Completions, run_id: str, is_addressed: bool = False) -> None:
        self.notified = threading.Event()
        self._completions = completions
        self._run_id = run_id
        self._is_addressed = is_addressed
        self._checks = 0
        self._subscribed_at = 0.0
        self.subscribe()

    def subscribe(self) -> None:
        """Subscribe to the run, again when the subscription expires soon."""
        now = time.monotonic()
        if self._is_addressed:
            return
        if not self._subscribed_at or now - self._subscribed_at > SUBSCRIPTION_SECS / 2:
            self._completions.notifier.subscribe(self._run_id, self._completions.holder)
            self._subscribed_at = now

    def wait(self, at_most_secs: float) -> None:
        """Wait until it is time to check the run again."""
        self.subscribe()
        pause = PAUSES_SECS[min(self._checks, len(PAUSES_SECS) - 1)]
        self._checks += 1
        self.notified.wait(min(at_most_secs, SLOW_SECS if self._completions.notifier.healthy else pause))
        self.notified.clear()
