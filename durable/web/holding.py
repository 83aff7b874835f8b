"""
The hub: the held connections of one process, and how each gets its answer.

SQL is the truth.  One thread per process, alive only while somebody waits,
asks for the answers to all waiting requests in one SELECT: every second while
hints arrive, every 50 to 250 ms while they don't.  A hint makes it look at
once.  A waiter pins a thread and a socket, nothing else: no connection to the
database or the broker, no body.

The same thread notices clients that have left and a process that is to end,
and lets those waiters go without an answer.  What they waited for is recorded
and goes on; their senders poll for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from weakref import WeakSet

from ..http import Response
from ..notify import Notifier

log = logging.getLogger("durable.web")

Answers = Callable[[Collection[str]], Mapping[str, Response]]

#: How often SQL is asked while hints arrive, and how often each client is looked at.
SLOW_SECS = 1.0
#: How often it is asked while they don't: at first, and after a while.
FAST_SECS = 0.05
FASTEST_FOR = 2.0
STEADY_SECS = 0.25

_hubs: WeakSet[Hub] = WeakSet()


class Waiter:
    """One held connection."""

    def __init__(self, request_id: str, is_gone: Callable[[], bool]) -> None:
        self.request_id = request_id
        self.is_gone = is_gone
        self._answer: Response | None = None
        self._released = threading.Event()

    def wait(self, timeout_secs: float) -> Response | None:
        """The answer; None when there is none in time, the client left, or the process is to end."""
        self._released.wait(timeout_secs)
        return self._answer

    def release(self, answer: Response | None) -> None:
        self._answer = answer
        self._released.set()


class Hub:
    """
    The waiters of one process.

    Args:
        answers: Asks SQL which of some requests have been answered.
        notifier: Brings hints, which are ids of requests.
        holder: This process's inbox.
        is_stopping: Whether the server wants this process to end.
    """

    def __init__(
        self,
        answers: Answers,
        notifier: Notifier,
        holder: str,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.pid = os.getpid()
        self.holder = holder
        self._answers = answers
        self._notifier = notifier
        self._is_stopping = is_stopping
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._waiters: dict[str, Waiter] = {}
        self._hinted: set[str] = set()
        self._polling = False
        self._fast_until = 0.0
        self._draining = False
        _hubs.add(self)

    def __len__(self) -> int:
        return len(self._waiters)

    def open(self, request_id: str, limit: int, is_gone: Callable[[], bool]) -> Waiter | None:
        """A place to wait in, None when *limit* places are taken or the process is to end."""
        waiter = Waiter(request_id, is_gone)
        with self._lock:
            if self._draining or len(self._waiters) >= limit:
                return None
            self._waiters[request_id] = waiter
            self._fast_until = time.monotonic() + FASTEST_FOR
            starts, self._polling = not self._polling, True
        self._notifier.listen(self.holder, self.hint)
        if starts:
            threading.Thread(target=self._poll, name="durable-hold", daemon=True).start()
        return waiter

    def close(self, waiter: Waiter) -> None:
        """Give the place back."""
        with self._lock:
            self._waiters.pop(waiter.request_id, None)
            last = not self._waiters
        if last:
            self._wake.set()

    def hint(self, request_id: str) -> None:
        """Look at this request in SQL now."""
        if request_id in self._waiters:
            self._hinted.add(request_id)
            self._wake.set()

    def drain(self) -> None:
        """Let everybody go without an answer, and hold nobody from now on."""
        self._draining = True
        for waiter in tuple(self._waiters.values()):
            waiter.release(None)

    def _poll(self) -> None:
        poll = _Poll(time.monotonic())
        while self._goes_on():
            if self._is_stopping():
                self.drain()
            now = time.monotonic()
            self._look_at(poll, now)
            self._wake.wait(max(0.0, min(poll.look_at, poll.peek_at) - time.monotonic()))
            self._wake.clear()

    def _goes_on(self) -> bool:
        with self._lock:
            self._polling = bool(self._waiters)
            return self._polling

    def _look_at(self, poll: _Poll, now: float) -> None:
        hinted = self._take_hints()
        if now >= poll.look_at:
            hinted = set(self._waiters)
            poll.look_at = now + self._pause(now)
        else:
            poll.look_at = min(poll.look_at, now + self._pause(now))
        if hinted:
            self._release_answered(hinted)
        if now >= poll.peek_at:
            self._release_gone()
            poll.peek_at = now + SLOW_SECS

    def _take_hints(self) -> set[str]:
        hinted, self._hinted = self._hinted, set()
        return hinted

    def _pause(self, now: float) -> float:
        if self._notifier.healthy:
            return SLOW_SECS
        return FAST_SECS if now < self._fast_until else STEADY_SECS

    def _release_answered(self, request_ids: Collection[str]) -> None:
        try:
            answers = self._answers(request_ids)
        except Exception as error:
            # Who waits has been recorded: keep waiting, the database may be back in time.
            log.warning("The answers to held requests could not be read: %s", type(error).__name__)
            return
        for request_id, answer in answers.items():
            waiter = self._waiters.get(request_id)
            if waiter is not None:
                waiter.release(answer)

    def _release_gone(self) -> None:
        for waiter in tuple(self._waiters.values()):
            if waiter.is_gone():
                waiter.release(None)


class _Poll:
    """When the poller is to look at everything in SQL, and at the clients' sockets."""

    def __init__(self, now: float) -> None:
        self.look_at = now
        self.peek_at = now + SLOW_SECS


def drain(engine: Any = None) -> None:
    """
    Give every connection that this process holds its timeout answer, and hold none from now on.

    For a server's shutdown hook.  Without *engine*, those of all engines.
    """
    for hub in tuple(_hubs):
        if hub.pid == os.getpid() and (engine is None or hub.holder == engine.process_id):
            hub.drain()
