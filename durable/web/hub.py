"""
The hub: the held connections of one process, and how each gets its answer.

SQL is the truth.  One thread per process, alive while somebody waits and for a
few seconds after, asks for the answers to all waiting requests in one SELECT:
every second while hints arrive, every 50 to 250 ms while they don't.  A hint
makes it look at once.  A waiter pins a thread and a socket, nothing else: no
connection to the database or the broker, no body.

The same thread notices clients that have left and a process that is to end,
and lets those waiters go without an answer.  What they waited for is recorded
and goes on; their senders poll for it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol
from weakref import WeakSet

from ..broker import Notifier
from ..engine import Engine
from ..http import Response

log = logging.getLogger("durable.web")

Answers = Callable[[Collection[str]], Mapping[str, Response]]

#: How often SQL is asked while hints arrive, and how often each client is looked at.
SLOW_SECS = 1.0
#: How often it is asked while they don't: at first, and after a while.
FAST_SECS = 0.05
FAST_FOR_SECS = 2.0
STEADY_SECS = 0.25
#: How long the thread stays when nobody waits: starting one for each request would cost more than its answer.
IDLE_SECS = 5.0

_hubs: WeakSet[Hub] = WeakSet()


class Waiter:
    """One held connection."""

    def __init__(self, request_id: str, is_gone: Callable[[], bool]) -> None:
        self.request_id = request_id
        self.is_gone = is_gone
        # The first thing in it counts.  An Event would do, and takes a kilobyte.  Named by its module, where gevent may
        # have put its own since.
        self._released: queue.SimpleQueue[Response | None] = queue.SimpleQueue()

    def wait(self, timeout_secs: float) -> Response | None:
        """The answer; None when there is none in time, the client left, or the process is to end."""
        try:
            return self._released.get(timeout=timeout_secs)
        except queue.Empty:
            return None

    def release(self, answer: Response | None) -> None:
        self._released.put(answer)


class Holder(Protocol):
    """What the blueprint needs of whoever holds its connections."""

    def open(self, request_id: str, limit: int, is_gone: Callable[[], bool]) -> Waiter | None:
        """A place to wait in, None when *limit* places are taken or the process is to end."""

    def attach(self, waiter: Waiter, request_id: str) -> None:
        """Let it wait for the answer to an earlier request, which another process may hold."""

    def recorded(self, waiter: Waiter) -> None:
        """What it waits for is committed: from now on there may be an answer."""

    def close(self, waiter: Waiter) -> None:
        """Give the place back."""


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
        #: By the request whose answer they wait for: several while copies of it are held.
        self._waiters: dict[str, set[Waiter]] = {}
        #: Those whose hints go to another process.
        self._attached: set[Waiter] = set()
        self._hinted: set[str] = set()
        self._polling = False
        self._draining = False
        self._failing = False
        #: By the monotonic clock: until when SQL is asked most often; when it is asked for all; when
        #: the clients are looked at; when the thread ends if nobody waits.
        self._fast_until = 0.0
        self._look_at = 0.0
        self._peek_at = 0.0
        self._end_at = 0.0
        _hubs.add(self)

    def __len__(self) -> int:
        return sum(map(len, self._waiters.values()))

    def open(self, request_id: str, limit: int, is_gone: Callable[[], bool]) -> Waiter | None:
        """A place to wait in, None when *limit* places are taken or the process is to end."""
        waiter = Waiter(request_id, is_gone)
        with self._lock:
            if self._draining or len(self) >= limit:
                return None
            now = time.monotonic()
            self._fast_until = now + FAST_FOR_SECS
            if not self._waiters:
                self._begin(now)
            self._waiters[request_id] = {waiter}
            starts, self._polling = not self._polling, True
        self._notifier.listen(self.holder, self.hint)
        if starts:
            self._start()
        return waiter

    def _begin(self, now: float) -> None:
        """Somebody waits again: no answer can be there yet."""
        self._look_at, self._peek_at = now + self._pause(now), now + SLOW_SECS
        self._wake.set()

    def close(self, waiter: Waiter) -> None:
        """Give the place back."""
        with self._lock:
            self._remove(waiter)
            self._attached.discard(waiter)

    def attach(self, waiter: Waiter, request_id: str) -> None:
        """Let it wait for the answer to an earlier request, which another process may hold."""
        with self._lock:
            self._remove(waiter)
            waiter.request_id = request_id
            self._waiters.setdefault(request_id, set()).add(waiter)
            self._attached.add(waiter)
            self._fast_until = time.monotonic() + FAST_FOR_SECS

    def recorded(self, waiter: Waiter) -> None:
        """Look at once where no hint comes: one for a request of this process finds its waiter, which is there."""
        if waiter in self._attached or not self._notifier.healthy:
            self.hint(waiter.request_id)

    def _remove(self, waiter: Waiter) -> None:
        together = self._waiters.get(waiter.request_id, set())
        together.discard(waiter)
        if not together:
            self._waiters.pop(waiter.request_id, None)

    def _everybody(self) -> tuple[Waiter, ...]:
        with self._lock:
            return tuple(waiter for together in self._waiters.values() for waiter in together)

    def hint(self, request_id: str) -> None:
        """Look at this request in SQL now."""
        with self._lock:
            if request_id in self._waiters:
                self._hinted.add(request_id)
                self._wake.set()

    def drain(self) -> None:
        """Let everybody go without an answer, and hold nobody from now on."""
        self._draining = True
        for waiter in self._everybody():
            waiter.release(None)
        self._wake.set()

    def _start(self) -> None:
        try:
            threading.Thread(target=self._poll, name="durable-hold", daemon=True).start()
        except RuntimeError as error:
            # Out of threads.  Whoever comes next tries again; this one gets its timeout answer.
            self._polling = False
            log.warning("Nobody looks for the answers to held requests: %s", error)

    def _poll(self) -> None:
        while self._goes_on():
            try:
                self._look()
            except Exception:
                # A bug here must not leave everybody else waiting.
                log.exception("Held requests could not be looked at")
            self._wake.wait(max(0.0, self._next_at() - time.monotonic()))
            self._wake.clear()

    def _goes_on(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if self._waiters:
                self._end_at = now + IDLE_SECS
            self._polling = now < self._end_at and not self._draining
            return self._polling

    def _next_at(self) -> float:
        with self._lock:
            return min(self._look_at, self._peek_at) if self._waiters else self._end_at

    def _look(self) -> None:
        if self._draining or self._is_stopping():
            self.drain()
        now = time.monotonic()
        wanted = self._wanted(now)
        if wanted:
            self._release_answered(wanted)
        if now >= self._peek_at:
            self._peek_at = now + SLOW_SECS
            self._release_gone()

    def _wanted(self, now: float) -> Collection[str]:
        """Whose answers to ask for: everybody's when that is due, else those hinted at."""
        with self._lock:
            hinted, self._hinted = self._hinted, set()
            due = now >= self._look_at
            # The next time may have come nearer: somebody new waits, or hints ceased.
            self._look_at = now + self._pause(now) if due else min(self._look_at, now + self._pause(now))
            return tuple(self._waiters) if due else hinted

    def _pause(self, now: float) -> float:
        if self._notifier.healthy and not self._attached:
            return SLOW_SECS
        return FAST_SECS if now < self._fast_until else STEADY_SECS

    def _release_answered(self, request_ids: Collection[str]) -> None:
        try:
            answers = self._answers(request_ids)
        except Exception as error:
            # What is waited for has been recorded: keep waiting, the database may be back in time.
            if not self._failing:
                log.warning("The answers to held requests cannot be read: %s", type(error).__name__)
            self._failing = True
            return
        self._failing = False
        for request_id, answer in answers.items():
            with self._lock:
                together = tuple(self._waiters.get(request_id, ()))
            for waiter in together:
                waiter.release(answer)

    def _release_gone(self) -> None:
        for waiter in self._everybody():
            if waiter.is_gone():
                waiter.release(None)


def drain(engine: Engine | None = None) -> None:
    """
    Give every connection that this process holds its timeout answer, and hold none from now on.

    For a server's shutdown hook.  Without *engine*, those of all engines.
    """
    for hub in tuple(_hubs):
        if hub.pid == os.getpid() and (engine is None or hub.holder == engine.process_id):
            hub.drain()
