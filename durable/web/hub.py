"""
The hub: the held connections of one process, and how each gets its answer.

The answers are in SQL.  One thread per process reads the answers to all
waiting requests in one SELECT: every second while notifications arrive, every
50 to 250 ms while they do not.  A notification makes the thread read at once.
The thread runs while a connection is held, and for a few seconds after.

A small answer comes with its notification.  Its waiters are released at once,
and SQL is not read.

A waiter uses one thread of a WSGI server and one socket, under ASGI only the
socket; it keeps no database connection, no broker connection and no body.

Connections that read streams are served by the same thread (``followers.py``), and count as held ones do.

The thread also notices clients that have disconnected, and a process that is
being stopped.  It releases those waiters without an answer.  Their requests
are recorded, so the runs continue, and the senders can poll the answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol
from weakref import WeakSet

from .. import forks
from ..broker import Notifier
from ..engine import Engine
from ..http import Response
from ..store import PushedAnswer
from . import pace
from .followers import Follower, Followers, Source, StreamName
from .waiters import Waiter, Waiters

log = logging.getLogger("durable.web")

Answers = Callable[[Collection[str]], Mapping[str, Response]]
#: Reads the answer in a notification.
Pushed = Callable[[PushedAnswer], Response]

#: How long the thread stays when nothing waits: to start one for each request would cost more than its answer.
IDLE_SECS = 5.0

#: The hubs of this process.  In a child, the parent's hubs have neither their threads nor their connections.
_hubs: WeakSet[Hub] = WeakSet()
forks.call_in_child(_hubs.clear)


class Holder(Protocol):
    """What the blueprint needs to hold connections; ``Hub`` implements it, and ``durable.testing`` does."""

    def open(self, request_id: str, limit: int, is_gone: Callable[[], bool]) -> Waiter | None:
        """Return a waiter; None if *limit* connections are held already, or the process is being stopped."""

    def attach(self, waiter: Waiter, request_id: str) -> None:
        """Let the waiter wait for the answer to an earlier request, which another process may hold."""

    def recorded(self, waiter: Waiter) -> None:
        """Note that the request is committed: from now on there may be an answer."""

    def close(self, waiter: Waiter) -> None:
        """Forget the waiter; another connection may be held in its place."""

    def follow(self, stream: StreamName, number: int, limit: int, is_gone: Callable[[], bool]) -> Follower | None:
        """Return a follower; None if *limit* connections are held already, or the process is being stopped."""


class Hub:
    """
    The waiters of one process.

    Args:
        answers: Reads from SQL the answers there are to some requests.
        notifier: Delivers notifications; each is the id of a request that has been answered.
        holder: The name of this process's inbox.
        source: Reads streams.
        is_stopping: Whether the server is stopping this process.
        pushed: Reads the answer in a notification; without it, all answers are read from SQL.
    """

    def __init__(
        self,
        answers: Answers,
        notifier: Notifier,
        holder: str,
        source: Source,
        is_stopping: Callable[[], bool] = lambda: False,
        pushed: Pushed | None = None,
    ) -> None:
        self.holder = holder
        self._answers = answers
        self._pushed = pushed
        self._notifier = notifier
        self._is_stopping = is_stopping
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._followers = Followers(source, notifier, holder, self._wake.set)
        self._waiters = Waiters()
        #: Waiters for a request of another process, which gets the notification.
        self._attached: set[Waiter] = set()
        #: Requests that a notification named since the last read.
        self._notified: set[str] = set()
        self._polling = False
        self._draining = False
        #: Whether the last read failed, so that an outage is logged once.
        self._failing = False
        self._pace = pace.Pace()
        # Times of the monotonic clock.
        #: When the answers to all requests are read next.
        self._read_at = 0.0
        #: When the clients are checked next.
        self._check_clients_at = 0.0
        #: When the thread ends if nothing waits.
        self._end_at = 0.0
        _hubs.add(self)

    def __len__(self) -> int:
        return len(self._waiters) + len(self._followers)

    def open(self, request_id: str, limit: int, is_gone: Callable[[], bool]) -> Waiter | None:
        """Return a waiter; None if *limit* connections are held already, or the process is being stopped."""
        waiter = Waiter(request_id, is_gone)
        with self._lock:
            if self._draining or len(self) >= limit:
                return None
            now = time.monotonic()
            self._pace.quicken(now)
            if not len(self):
                # The first waiter: an idle thread's times are long past, and no answer can be there yet.
                self._read_at = now + self._read_interval(now)
                self._check_clients_at = now + pace.SLOW_SECS
                self._wake.set()
            self._waiters.add(waiter)
        try:
            self._ensure_thread()
        except BaseException:
            # The caller does not get it, so nothing else would close it.
            self.close(waiter)
            raise
        return waiter

    def follow(self, stream: StreamName, number: int, limit: int, is_gone: Callable[[], bool]) -> Follower | None:
        """Return a follower; None if *limit* connections are held already, or the process is being stopped."""
        with self._lock:
            if self._draining or len(self) >= limit:
                return None
            if not len(self):
                self._check_clients_at = time.monotonic() + pace.SLOW_SECS
                self._wake.set()
            follower = self._followers.add(stream, number, is_gone)
        try:
            self._ensure_thread()
            self._followers.subscribe([stream[0]])
        except BaseException:
            follower.close()
            raise
        return follower

    def _ensure_thread(self) -> None:
        """Start the thread, unless it runs."""
        self._notifier.listen(self.holder, self.notify)
        with self._lock:
            starts_thread, self._polling = not self._polling, True
        if starts_thread:
            try:
                threading.Thread(target=self._run, name="durable-hold", daemon=True).start()
            except RuntimeError as error:
                # Out of threads.  This waiter gets its timeout answer; the next waiter tries to start one again.
                self._polling = False
                log.warning("No thread could be started that reads the answers to held requests: %s", error)

    def close(self, waiter: Waiter) -> None:
        """Forget the waiter; another connection may be held in its place."""
        with self._lock:
            self._waiters.remove(waiter)
            self._attached.discard(waiter)

    def attach(self, waiter: Waiter, request_id: str) -> None:
        """Let the waiter wait for the answer to an earlier request, which another process may hold."""
        with self._lock:
            self._waiters.remove(waiter)
            waiter.request_id = request_id
            self._waiters.add(waiter)
            self._attached.add(waiter)
            self._pace.quicken(time.monotonic())

    def recorded(self, waiter: Waiter) -> None:
        """Read the answer at once if no notification will arrive for it."""
        if waiter in self._attached or not self._notifier.healthy:
            self.notify(waiter.request_id)

    def notify(self, message: str) -> None:
        """Read the answer to this request now; or release its waiters, if the message has the answer."""
        if " " in message:
            self._release_pushed(message)
            return
        request_id = message
        with self._lock:
            if request_id in self._waiters:
                self._notified.add(request_id)
                self._wake.set()
        self._followers.notify(request_id)

    def _release_pushed(self, message: str) -> None:
        """Give an answer to those that wait for it.  Where anything is odd, they wait for the answer from SQL."""
        if self._pushed is None:
            return
        try:
            pushed = PushedAnswer.parse(message)
            with self._lock:
                is_awaited = pushed.request_id in self._waiters
            answer = self._pushed(pushed) if is_awaited else None
        except Exception as error:
            log.warning("An answer in a notification cannot be read, and is read from SQL: %s", type(error).__name__)
            return
        if answer is not None:
            with self._lock:
                waiters = self._waiters.pop(pushed.request_id)
            for waiter in waiters:
                waiter.release(answer)

    def drain(self) -> None:
        """Release every waiter without an answer, and open no more."""
        self._draining = True
        for waiter in self._all_waiters():
            waiter.release(None)
        self._followers.release(lambda _: True)
        self._wake.set()

    def _all_waiters(self) -> tuple[Waiter, ...]:
        with self._lock:
            return self._waiters.all()

    def _run(self) -> None:
        """Read answers and check clients on a thread, until nothing has waited for IDLE_SECS."""
        while True:
            now = time.monotonic()
            with self._lock:
                if len(self):
                    self._end_at = now + IDLE_SECS
                if now >= self._end_at or self._draining:
                    self._polling = False
                    return
            try:
                if self._is_stopping():
                    self.drain()
                self._release_answered(now)
                if self._followers:
                    self._followers.deliver(now)
                if now >= self._check_clients_at:
                    self._check_clients_at = now + pace.SLOW_SECS
                    for waiter in self._all_waiters():
                        if waiter.is_gone():
                            waiter.release(None)
                    self._followers.release(lambda follower: follower.is_gone())
            except Exception:
                # A bug in one check must not keep all the others waiting.
                log.exception("Held requests could not be checked")
            with self._lock:
                next_at = self._check_clients_at if len(self) else self._end_at
                if self._waiters:
                    next_at = min(next_at, self._read_at)
                if self._followers:
                    next_at = min(next_at, self._followers.read_at)
            self._wake.wait(max(0.0, next_at - time.monotonic()))
            self._wake.clear()

    def _release_answered(self, now: float) -> None:
        """Read the answers to all requests if that is due, else to those that a notification named."""
        with self._lock:
            notified, self._notified = self._notified, set()
            is_due = now >= self._read_at
            next_at = now + self._read_interval(now)
            # The next read may come earlier than planned: a waiter is new, or notifications have stopped.
            self._read_at = next_at if is_due else min(self._read_at, next_at)
            request_ids = self._waiters.request_ids() if is_due else tuple(notified)
        if not request_ids:
            return
        try:
            answers = self._answers(request_ids)
        except Exception as error:
            # The requests are recorded: keep waiting, since the database may be back in time.
            if not self._failing:
                log.warning("The answers to held requests cannot be read: %s", type(error).__name__)
            self._failing = True
            return
        self._failing = False
        for request_id, answer in answers.items():
            with self._lock:
                waiters = self._waiters.of(request_id)
            for waiter in waiters:
                waiter.release(answer)

    def _read_interval(self, now: float) -> float:
        return self._pace.secs(now, has_notifications=self._notifier.healthy and not self._attached)


def drain(engine: Engine | None = None) -> None:
    """
    Give every connection that this process holds its timeout answer, and hold none from now on.

    Call it in your server's shutdown hook.  Without *engine* it drains the hubs of all engines.
    """
    for hub in tuple(_hubs):
        if engine is None or hub.holder == engine.process_id:
            hub.drain()
