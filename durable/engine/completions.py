"""
Waiting for runs to end, or to take a payload in, and for replies to questions.

A process that waits for a run subscribes to it (``Notifier.subscribe``) and then checks the run in SQL.  It checks
again when a notification arrives, and at intervals without one, since notifications may be lost.  For a
reply, a notification is sent to the process that has asked, which needs no subscription.

What waits is a generator, which yields after each check.  ``wait_in_thread`` pauses in the caller's thread, and
``wait_in_loop`` in an event loop, where thousands may wait: only the checks take a thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from ..broker import SUBSCRIPTION_SECS, Notifier
from .loop_calls import LoopCalls, Returned, advance

T = TypeVar("T")

#: Seconds between two checks when no notifications arrive: short at first, then longer to spare the database.
PAUSES_SECS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
#: Seconds between two checks while notifications arrive.
SLOW_SECS = 1.0
#: With many waiters each pauses longer, so that a process checks at most 200 times a second.
SPREAD_SECS = 0.005


class Completions:
    """The runs, and the questions, that this process waits for."""

    def __init__(self, notifier: Notifier, holder: str) -> None:
        """
        Args:
            holder: The name of this process's inbox.
        """
        self.notifier = notifier
        self.holder = holder
        self._lock = threading.Lock()
        self._waiters: dict[str, set[Completion]] = defaultdict(set)
        #: How many wait.
        self.count = 0

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
            self._waiters[run_id].add(completion)
            self.count += 1
        try:
            self.notifier.listen(self.holder, self.notify)
            yield completion
        finally:
            with self._lock:
                self.count -= 1
                self._waiters[run_id].discard(completion)
                if not self._waiters[run_id]:
                    del self._waiters[run_id]

    def notify(self, run_id: str) -> None:
        """Wake all that wait for this run, to check it."""
        with self._lock:
            waiters = tuple(self._waiters.get(run_id, ()))
        for waiter in waiters:
            waiter.notify()


class Completion:
    """What one waiter waits for: the end of a run, that it takes a payload in, or a reply."""

    def __init__(self, completions: Completions, run_id: str, is_addressed: bool = False) -> None:
        #: Set by a notification, until the next pause.
        self.notified = threading.Event()
        self._call: Callable[[], object] | None = None
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

    def notify(self) -> None:
        """End the pause, from any thread."""
        self.notified.set()
        if self._call is not None:
            self._call()

    def wait(self, at_most_secs: float) -> None:
        """Wait in this thread until it is time to check the run again."""
        self.subscribe()
        self.notified.wait(self._pause_secs(at_most_secs))
        self.notified.clear()

    async def wait_in_loop(self, at_most_secs: float) -> None:
        """Wait in the event loop.  ``subscribe`` uses the broker, so the caller calls it before, in a thread."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            # The loop may be closed meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(woken.set)

        self._call = wake
        # A notification that came before the line above has called nothing.
        if not self.notified.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_secs(at_most_secs)):
                    await woken.wait()
        self._call = None
        self.notified.clear()

    def _pause_secs(self, at_most_secs: float) -> float:
        pause = PAUSES_SECS[min(self._checks, len(PAUSES_SECS) - 1)]
        self._checks += 1
        usual = SLOW_SECS if self._completions.notifier.healthy else pause
        return min(at_most_secs, max(usual, self._completions.count * SPREAD_SECS))


class NextCheck(NamedTuple):
    """What a waiter yields until it checks again."""

    completion: Completion
    at_most_secs: float


#: It yields seconds where nothing can notify it.
Waiting = Generator[NextCheck | float, None, T]


def wait_in_thread(waiting: Waiting[T]) -> T:
    """Wait to the end, and return what the waiter returns."""
    while True:
        step = advance(waiting)
        if isinstance(step, Returned):
            result: T = step.result
            return result
        if isinstance(step, NextCheck):
            step.completion.wait(step.at_most_secs)
        else:
            time.sleep(step)


async def wait_in_loop(calls: LoopCalls, waiting: Waiting[T]) -> T:
    """Wait to the end as ``wait_in_thread`` does, but take a thread or a connection only for the checks."""

    def check() -> NextCheck | float | Returned[T]:
        step = advance(waiting)
        if isinstance(step, NextCheck):
            step.completion.subscribe()
        return step

    try:
        while True:
            step = await calls.run(check)
            if isinstance(step, Returned):
                result: T = step.result
                return result
            if isinstance(step, NextCheck):
                await step.completion.wait_in_loop(step.at_most_secs)
            else:
                await asyncio.sleep(step)
    finally:
        # It runs only if it was cancelled twice; then it is closed when its thread lets go of it.
        with suppress(ValueError):
            waiting.close()
