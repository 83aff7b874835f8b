"""
Deadlines of attempts: a step is interrupted at its timeout, and if it does not end, its attempt is given up.

The timer thread checks the attempts whose step has a ``timeout``.  At the deadline it interrupts the step:

- a coroutine is cancelled;
- in a process's main thread (prefork, solo), a signal interrupts what the body waits for and raises
  SoftTimeLimitExceeded in it, as Celery's own soft limit does;
- in another thread, that exception is raised once the thread runs Python code again.

After a grace period the attempt has expired, and the ``expire`` of its limit is called.

Rule 1: only the body is interrupted, and only once.  The thread leaves ``Limit.run`` through the lock under which
exceptions are raised, and cancels one that has not arrived.  A signal of ours that arrives later does nothing, and a
signal that is not ours is passed on.

Rule 2: durable's own code that the body calls (``Limit.shielded``) is not interrupted, and neither is code that may
hold a lock of the process (rule 2 of the watchdog).  The thread checks again ``PAUSE`` seconds later.

Rule 3: a thread that leaves a body whose attempt has expired waits until ``expire`` has returned: the process may be
about to end.

Where threads are greenlets (gevent, eventlet), only coroutines are interrupted.
"""

from __future__ import annotations

import _thread
import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from .interrupts import has_threads, raise_in_thread
from .timer import TimerThread
from .watchdog import may_be_stopped

#: Seconds until the next check of a body that could not be interrupted.
PAUSE = 0.01

T = TypeVar("T")


def grace(timeout: int) -> int:
    """How long an interrupted step may take to end, in microseconds: its timeout, at least 1 s and at most 10 s."""
    return min(10_000_000, max(1_000_000, timeout))


class Limit:
    """
    The deadline of one attempt.

    Attributes:
        notified: Whether the step was interrupted.
        interrupt: Interrupts a coroutine; None before it runs.
        abandon: Stops waiting for a coroutine; None before it runs.
    """

    def __init__(self, deadlines: Deadlines, timeout: int, left: int, *, is_async: bool, expire: Callable[[], object]):
        """
        Args:
            timeout: The step's timeout, in microseconds.
            left: What is left of it, in microseconds.
            expire: Called, in a thread of its own, when the step has not ended after the grace period.
        """
        self._deadlines = deadlines
        self._grace = grace(timeout) / 1_000_000
        self._is_async = is_async
        self._expire = expire
        self._expiry: threading.Thread | None = None
        self._thread = 0
        self._is_in_body = False
        self._shields = 0
        #: The thread while it runs the author's code, otherwise 0.  It sets 0 itself before it does anything else, and
        #: ``raise_in_thread`` reads this as it raises: a check made before that may be out of date by then.
        self._target = ctypes.c_ulong(0)
        self._raised = False
        self.notified = False
        self.interrupt: Callable[[], object] | None = None
        self.abandon: Callable[[], object] | None = None
        self.notify_at = time.monotonic() + left / 1_000_000

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call *function*, which runs the author's code; it gets SoftTimeLimitExceeded at the deadline."""
        try:
            self._thread = _thread.get_ident()
            self._deadlines.arm(self)
            self._is_in_body = True
            self._target.value = self._thread
            return function(*args, **kwargs)
        finally:
            # These call nothing, so nothing arrives before them.  What is on its way arrives before `disarm` has the
            # lock.
            self._is_in_body = False
            self._target.value = 0
            try:
                self._deadlines.disarm(self)
            except SoftTimeLimitExceeded:
                self._deadlines.disarm(self)
            if self._expiry is not None:
                self._expiry.join()

    def extend(self, timeout: int) -> None:
        """Start the timeout again, unless the step was interrupted."""
        self._deadlines.move(self, time.monotonic() + timeout / 1_000_000)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Do not interrupt the code in this block: it runs within the body, and is not the author's."""
        self._shields += 1
        self._target.value = 0
        try:
            yield
        finally:
            self._shields -= 1
            if self._is_in_body and not self._shields:
                self._target.value = self._thread

    def check(self, now: float) -> float | None:
        """Interrupt the step, or start ``expire``, if it is time; when to check again, None for never."""
        if now < self.notify_at:
            return self.notify_at
        if now >= self.notify_at + self._grace:
            return None if self._start_expiry() else now + PAUSE
        if not self.notified:
            self._interrupt()
        return self.notify_at + self._grace if self.notified else now + PAUSE

    def _start_expiry(self) -> bool:
        """Call ``expire`` in a thread; False if none can be started now."""
        if self._expiry is None:
            thread = threading.Thread(target=self._expire, name="durable-expiry", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._expiry = thread
        return True

    def _interrupt(self) -> None:
        if self._is_async:
            if self.interrupt is not None:
                self.notified = True
                self.interrupt()
        elif self._target.value and has_threads():
            if self._thread == threading.main_thread().ident:
                _signals.send(self)
            elif _may_be_interrupted(self._thread) and raise_in_thread(self._target, SoftTimeLimitExceeded):
                self.notified = self._raised = True

    def arrive(self) -> None:
        """In the thread of the body, when the signal arrives: raise the exception."""
        if self._target.value and not self.notified:
            self.notified = True
            raise SoftTimeLimitExceeded

    def take_back(self) -> None:
        """In the thread of the body: cancel an exception that was raised in it and has not arrived."""
        if self._raised:
            raise_in_thread(self._thread, None)


class Deadlines:
    """The limits of one process, which the timer thread checks."""

    def __init__(self, timer: TimerThread) -> None:
        self._timer = timer
        timer.add(self)

    def begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._armed: dict[Limit, None] = {}

    def arm(self, limit: Limit) -> None:
        """Check *limit*, which belongs to this thread, from now on."""
        if threading.current_thread() is threading.main_thread():
            _signals.install()
        with self._timer.changed:
            self._armed[limit] = None
            self._timer.check_by(limit.notify_at)
        self._timer.report()

    def disarm(self, limit: Limit) -> None:
        """Stop checking *limit*."""
        with self._timer.changed:
            self._armed.pop(limit, None)
            limit.take_back()

    def move(self, limit: Limit, notify_at: float) -> None:
        """Move the deadline of *limit*, which may belong to any thread."""
        with self._timer.changed:
            if not limit.notified:
                limit.notify_at = notify_at
                self._timer.check_by(notify_at)

    def check(self) -> float | None:
        """Interrupt the steps whose time is up; seconds until the next one's could be."""
        now = time.monotonic()
        next_checks = [at for limit in self._armed if (at := limit.check(now)) is not None]
        return max(0.0, min(next_checks) - now) if next_checks else None


class _Signals:
    """The process's SIGUSR1, which Celery uses for the same purpose.  A signal is ours when a limit has sent it."""

    def __init__(self) -> None:
        self._sent_by: Limit | None = None
        self._other_handler: Any = None

    def install(self) -> None:
        """Handle the signal before the other handler does; in the main thread."""
        before = signal.getsignal(signal.SIGUSR1)
        if before != self._handle:
            self._other_handler = before
            signal.signal(signal.SIGUSR1, self._handle)

    def send(self, limit: Limit) -> None:
        """Interrupt the main thread for *limit*, unless a signal is under way: two may arrive as one."""
        if self._sent_by is None:
            self._sent_by = limit
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def _handle(self, number: int, frame: Any) -> None:
        limit, self._sent_by = self._sent_by, None
        if limit is not None:
            limit.arrive()
        elif callable(self._other_handler):
            self._other_handler(number, frame)
        elif self._other_handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


_signals = _Signals()


def _may_be_interrupted(thread: int) -> bool:
    """Whether the thread is neither about to take a lock, nor in code of this file."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_globals is not globals() and may_be_stopped(frame)
