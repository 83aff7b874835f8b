"""
Deadlines of attempts: first the step is told, and where it does not end, its attempt is given up.

One thread per process looks at the attempts whose step has a ``timeout``.  At the deadline it tells the step: a
coroutine is cancelled; in a process's main thread (prefork, solo) a signal interrupts whatever the body waits for and
raises SoftTimeLimitExceeded in it, as Celery's own soft limit does; in another thread that exception is raised once
the thread runs Python code again.  A grace later the attempt has expired, and it is told to whoever armed the limit.

Rule 1: only the body is hit, once.  ``Limit.run`` is left through the lock under which a shot is fired, which takes
back what has not arrived.  A signal of ours that arrives later does nothing, and one that is not ours is passed on.

Rule 2: it never hits durable's own code that the body calls (``Limit.shielded``), nor what holds a lock of the
process (watchdog's rule 2): then it looks again a moment later.

Rule 3: who leaves a body whose attempt has expired waits until that is dealt with: the process may be about to end.

Where threads are greenlets (gevent, eventlet) only coroutines are told.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType
from typing import Any, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from .. import forks
from .interrupts import raise_in_thread
from .watchdog import may_be_stopped

#: Seconds between two shots at a body that could not be hit.
PAUSE = 0.01

T = TypeVar("T")


def grace(timeout: int) -> int:
    """How long a step that was told may take to end: its own timeout, at least 1 s and at most 10 s; microseconds."""
    return min(10_000_000, max(1_000_000, timeout))


class Limit:
    """
    The deadline of one attempt.

    Attributes:
        told: Whether the step was told that its time is up.
        interrupt: How to tell a coroutine, once it runs; *abandon*: how to wait for it no longer.
    """

    def __init__(self, deadlines: Deadlines, timeout: int, left: int, *, is_async: bool, expire: Callable[[], object]):
        """
        Args:
            timeout: Of the step, in microseconds; *left*: what is left of it.
            expire: Called, in a thread of its own, when the step was told and has not ended.
        """
        self._deadlines = deadlines
        self._grace = grace(timeout) / 1_000_000
        self._is_async = is_async
        self._expire = expire
        self._expiry: threading.Thread | None = None
        self._aim = 0
        self._inside = False
        self._shields = 0
        self._fired = False
        self.notified = False
        self.interrupt: Callable[[], object] | None = None
        self.abandon: Callable[[], object] | None = None
        self.notify_at = time.monotonic() + left / 1_000_000

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call *function*, which runs the author's code; SoftTimeLimitExceeded when its time is up."""
        try:
            self._aim = _thread.get_ident()
            self._deadlines.arm(self)
            self._inside = True
            return function(*args, **kwargs)
        finally:
            self._inside = False
            try:
                self._deadlines.disarm(self)
            except SoftTimeLimitExceeded:
                self._deadlines.disarm(self)
            if self._expiry is not None:
                self._expiry.join()

    def extend(self, timeout: int) -> None:
        """The time begins anew, unless the step was told that it is up."""
        self._deadlines.move(self, time.monotonic() + timeout / 1_000_000)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Code that is not the author's, within the body: it is not interrupted."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1

    def look(self, now: float) -> float | None:
        """Do what it is time for; when to look again, None for never."""
        if now < self.notify_at:
            return self.notify_at
        if now >= self.notify_at + self._grace:
            if self._expiry is None:
                self._expiry = threading.Thread(target=self._expire, name="durable-expiry", daemon=True)
                self._expiry.start()
            return None
        if not self.notified:
            self._tell()
        return self.notify_at + self._grace if self.notified else now + PAUSE

    def _tell(self) -> None:
        if self._is_async:
            if self.interrupt is not None:
                self.notified = True
                self.interrupt()
        elif self._inside and not self._shields and _has_threads():
            if self._aim == threading.main_thread().ident:
                _signals.send(self)
            elif _may_be_hit(self._aim):
                self.notified = self._fired = True
                raise_in_thread(self._aim, SoftTimeLimitExceeded)

    def arrive(self) -> None:
        """A signal has arrived in the thread of the body: raise what it stands for."""
        if self._inside and not self._shields and not self.notified:
            self.notified = True
            raise SoftTimeLimitExceeded

    def take_back(self) -> None:
        """In the thread of the body: what was fired and has not arrived does not arrive any more."""
        if self._fired:
            raise_in_thread(self._aim, None)


class Deadlines:
    """The limits of one process, and the thread that looks at them."""

    def __init__(self) -> None:
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._changed = threading.Condition(threading.Lock())
        self._armed: dict[Limit, None] = {}
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._thread = None
            self._changed.notify()

    def arm(self, limit: Limit) -> None:
        """Look at *limit*, which is of this thread, from now on."""
        if threading.current_thread() is threading.main_thread():
            _signals.install()
        with self._changed:
            self._armed[limit] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="durable-deadlines", daemon=True)
                self._thread.start()
            self._changed.notify()

    def disarm(self, limit: Limit) -> None:
        """Look at it no longer."""
        with self._changed:
            self._armed.pop(limit, None)
            limit.take_back()

    def move(self, limit: Limit, notify_at: float) -> None:
        """Another deadline for *limit*, which may be of any thread."""
        with self._changed:
            if not limit.notified:
                limit.notify_at = notify_at
                self._changed.notify()

    def _look(self) -> None:
        with self._changed:
            while self._thread is threading.current_thread():
                now = time.monotonic()
                looks = [at for limit in self._armed if (at := limit.look(now)) is not None]
                self._changed.wait(max(0.0, min(looks) - now) if looks else None)


class _Signals:
    """The process's SIGUSR1, which Celery uses for the same purpose: ours is told from others by what it is for."""

    def __init__(self) -> None:
        self._for: Limit | None = None
        self._others: Any = None

    def install(self) -> None:
        """Be asked first; in the main thread."""
        before = signal.getsignal(signal.SIGUSR1)
        if before != self._handle:
            self._others = before
            signal.signal(signal.SIGUSR1, self._handle)

    def send(self, limit: Limit) -> None:
        """Interrupt the main thread for *limit*.  One that is under way is waited for, since two may arrive as one."""
        if self._for is None:
            self._for = limit
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _handle(self, number: int, frame: Any) -> None:
        limit, self._for = self._for, None
        if limit is not None:
            limit.arrive()
        elif callable(self._others):
            self._others(number, frame)
        elif self._others == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_signals = _Signals()


def _has_threads() -> bool:
    """Whether threads are threads of the system."""
    return isinstance(_thread.get_ident, BuiltinFunctionType)


def _may_be_hit(thread: int) -> bool:
    """Whether what the thread does now is neither about to take a lock, nor code of this file."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_globals is not globals() and may_be_stopped(frame)
