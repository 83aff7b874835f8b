"""
The watchdog: stops a workflow's body when one turn uses more CPU time, or takes more time, than allowed.

A body runs in the worker's own thread, and nothing else can run in that thread meanwhile.  So the timer thread checks
the threads in which bodies run.  Where a body is over a limit, it raises ``Stopped`` in that thread, again and again
until the body ends.

Rule 1: only the body is stopped.  The exception is raised under a lock, in a thread that is inside ``TurnWatch.run``.
The thread takes the lock to leave that function, and cancels an exception that has not arrived.

Rule 2: nothing is stopped where a lock of the process could stay locked for ever (of logging, of imports).  The
watchdog checks again ``PAUSE`` seconds later.

Rule 3: the result of a stopped turn is thrown away.  The turn gets ``TurnTooLong`` and commits nothing.

Limits, and what cannot be stopped:

- Time counts only while the watchdog runs too: a paused process (SIGSTOP, a virtual machine that moves) uses none.
- A body that waits, for a lock for example, is interrupted by a signal in the main thread; in other threads it is
  stopped once it wakes up by itself.
- A call into C (a regular expression, a huge ``sum``) is stopped once it returns.
- A loop that catches BaseException in each round is nearly always stopped in the end, but not surely.
- What is not stopped after ``HOPELESS_SECS`` is reported to ``give_up``.
- Where threads are greenlets (gevent, eventlet) the watchdog is off: a body that spins would block it too.
"""

from __future__ import annotations

import _thread
import ctypes
import math
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

# The functions themselves: the guards of workflow code put slower ones into the module.
from time import clock_gettime, monotonic, process_time
from types import FrameType
from typing import Any

from ..errors import TurnTooLong
from ..sandbox import calling_line, log_records
from .interrupts import Stopped, ThreadState, clock_of, has_threads, raise_in_thread, relentless
from .timer import TimerThread

#: Seconds between two exceptions in a body that goes on.
PAUSE = 0.01

#: After so many exceptions, the body's ``finally`` and ``except`` blocks are stopped too.
GENTLE = 20

#: Seconds over a limit after which nothing will stop a body.
HOPELESS_SECS = 5.0

#: The most seconds between two checks of a body.
CHECK_SECS = 1.0

#: After so many checks without a body, the next body wakes the thread.  Waking it for each of many turns would cost the
#: turns more than these checks.
EMPTY_CHECKS = 5

#: Interrupts what the main thread waits for.  Python ignores it by default, so one that comes too late does nothing.
SIGNAL = signal.SIGURG

log = log_records.get("durable")

#: Modules that hold locks of the whole process.
_LOCKING = ("importlib", "logging", "queue", "threading")

#: Functions, of any module, in which a lock may be held that no ``finally`` releases yet.
_TAKING = ("acquire", "release", "_acquireLock", "_releaseLock", "__enter__", "__exit__")


class TurnWatch:
    """
    The limits of one turn, and how much of them is used.

    Attributes:
        where: The author's line that ran when a limit was reached.
        took: Seconds that the turn has taken, as far as the watchdog ran too.
    """

    def __init__(self, watchdog: Watchdog, run_id: str, cpu_limit: float, limit: float) -> None:
        self._watchdog = watchdog
        self.run_id = run_id
        self._cpu_limit = cpu_limit
        self._limit = limit
        self._clock: int | None = None
        self._until: float | None = None
        self._checked_at = 0.0
        self.took = 0.0
        self._over = 0.0
        self._hung = False
        self._times_raised = 0
        #: The thread in which exceptions may be raised, 0 for none.
        self._target = ctypes.c_ulong(0)
        self.where: str | None = None

    def run(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """
        Call *function*, which runs the author's code.

        Raises:
            TurnTooLong: This call and those before it have used up the CPU time, or the time.
        """
        if not self._cpu_limit and not self._limit:
            function(*args, **kwargs)
            return
        before = ThreadState()
        try:
            self._run(function, args, kwargs)
        finally:
            before.restore()
        if self.fired:
            raise self.reason()

    def _run(self, function: Callable[..., object], args: Any, kwargs: Any) -> None:
        try:
            try:
                self._watchdog.arm(self)
                function(*args, **kwargs)
            finally:
                # This calls nothing, so nothing arrives before it.  One exception may still be under way; no other
                # is raised while this file's code runs.
                self._target.value = 0
                try:
                    self._watchdog.disarm(self)
                except Stopped:
                    self._watchdog.disarm(self)
        except Stopped:
            pass

    def begin(self) -> None:
        """Note the thread, and the reading of its CPU clock at which its time is used up."""
        self._target.value = _thread.get_ident()
        self._checked_at = monotonic()
        if self._until is None:
            self._clock = clock_of(self._target.value)
            self._until = self._read() + (self._cpu_limit or math.inf)

    def check(self) -> float:
        """Count the time since the last check.  Returns seconds until the next one; 0 when a limit is reached."""
        assert self._until is not None
        now = monotonic()
        # More time than that has passed only if this thread did not run, and perhaps the body did not either.
        passed, self._checked_at = min(now - self._checked_at, 2 * self._pace()), now
        self.took += passed
        cpu_left = self._until - self._read()
        self._hung = self._hung or (0 < self._limit <= self.took and cpu_left > 0)
        if cpu_left > 0 and not self._hung:
            return min(cpu_left, self._pace())
        self._over += passed if self._over else PAUSE
        return 0

    def _pace(self) -> float:
        return min(CHECK_SECS, self._limit / 4) if self._limit else CHECK_SECS

    @property
    def hopeless(self) -> bool:
        """Whether it has been over a limit for so long that nothing will stop it."""
        return self._over >= HOPELESS_SECS

    @property
    def fired(self) -> bool:
        """Whether an exception was raised to stop it."""
        return self._times_raised > 0

    def fire(self) -> None:
        """Raise Stopped in the thread, unless that could leave a lock locked."""
        frame = sys._current_frames().get(self._target.value)
        if frame is None:
            return
        self.where = self.where or calling_line(frame)
        if self._hung and self._target.value == threading.main_thread().ident:
            signal.pthread_kill(self._target.value, SIGNAL)
        elif self._may_fire(frame):
            self._times_raised += 1
            raise_in_thread(self._target, Stopped if self._gentle else relentless(self._target))

    def _may_fire(self, frame: FrameType) -> bool:
        if self._hung:
            return _may_be_interrupted(frame)
        return may_be_stopped(frame) if self._gentle else _may_be_cut_off(frame)

    @property
    def _gentle(self) -> bool:
        return self._times_raised < GENTLE

    def interrupt(self, frame: FrameType | None) -> None:
        """In the main thread, called by a signal handler: raise Stopped out of what the thread waits for."""
        if not self._hung or not self._target.value or frame is None or not _may_be_interrupted(frame):
            return
        self._times_raised += 1
        raise (Stopped if self._gentle else relentless(self._target))()

    def cancel(self) -> None:
        """Cancel an exception that has not arrived."""
        if self.fired:
            raise_in_thread(_thread.get_ident(), None)

    def reason(self) -> TurnTooLong:
        """The error of a turn that was stopped."""
        if self._hung:
            return TurnTooLong(self.run_id, self._limit, self.where, hung=True)
        return TurnTooLong(self.run_id, self._cpu_limit, self.where)

    def _read(self) -> float:
        # Where a thread's clock cannot be read by another (macOS), the whole process's counts.
        return process_time() if self._clock is None else clock_gettime(self._clock)


class Watchdog:
    """The watches of one process, which the timer thread checks."""

    def __init__(
        self,
        timer: TimerThread,
        cpu_limit: float,
        limit: float = 0,
        give_up: Callable[[TurnTooLong], object] | None = None,
    ) -> None:
        """
        Args:
            cpu_limit: CPU time of one turn in seconds; 0: no limit.
            limit: Time of one turn in seconds; 0: no limit.
            give_up: Called, in a thread of its own, with the error of a turn that nothing stops.
        """
        self._timer = timer
        self._cpu_limit = cpu_limit if has_threads() else 0
        self._limit = limit if has_threads() else 0
        #: Seconds within which a body that begins is noticed.
        self._pace = min([CHECK_SECS, *(each / 4 for each in (self._cpu_limit, self._limit) if each)])
        self._give_up = give_up or (lambda reason: log.error("%s  Nothing stops it: end this process.", reason))
        timer.add(self)

    def begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._armed: dict[TurnWatch, None] = {}
        self._hopeless: set[TurnWatch] = set()
        self._empty_checks = 0

    def watch(self, run_id: str) -> TurnWatch:
        """A watch for one turn of a run."""
        return TurnWatch(self, run_id, self._cpu_limit, self._limit)

    def is_long_at(self, run_id: str) -> bool:
        """Whether a turn of this run has taken some seconds in this process, and goes on."""
        with self._timer.changed:
            return any(watch.run_id == run_id and watch.took > 3 * CHECK_SECS for watch in self._armed)

    def arm(self, watch: TurnWatch) -> None:
        """Check *watch*, which belongs to this thread, from now on."""
        if self._limit and _thread.get_ident() == threading.main_thread().ident:
            _listen(watch)
        watch.begin()
        with self._timer.changed:
            self._armed[watch] = None
            self._empty_checks = 0
            self._timer.check_by(monotonic() + self._pace)
        self._timer.report()

    def disarm(self, watch: TurnWatch) -> None:
        """Stop checking *watch*, and cancel an exception that has not arrived."""
        with self._timer.changed:
            self._armed.pop(watch, None)
            self._hopeless.discard(watch)
            watch.cancel()

    def check(self) -> float | None:
        """Stop the bodies that are over a limit; seconds until the next one could be, None when none has run lately."""
        if not self._armed:
            self._empty_checks += 1
            return None if self._empty_checks > EMPTY_CHECKS else self._pace
        left = [watch.check() for watch in self._armed]
        for watch, each in zip(self._armed, left, strict=True):
            if each <= 0:
                watch.fire()
            if watch.hopeless and watch not in self._hopeless:
                # In a thread of its own, since it may write to a log whose lock the body holds.
                args = (watch.reason(),)
                thread = threading.Thread(target=self._give_up, args=args, name="durable-give-up", daemon=True)
                # Out of threads, the next check tries again.
                with suppress(RuntimeError):
                    thread.start()
                    self._hopeless.add(watch)
        return max(PAUSE, min(left))


#: The watch of the main thread, the handler of SIGNAL before ours, and when ours was last found in place.
_of_main: TurnWatch | None = None
_handled_before: Any = None
_found_at = -math.inf


def _listen(watch: TurnWatch) -> None:
    """Let SIGNAL interrupt the turn of this watch, which runs in the main thread."""
    global _of_main, _handled_before, _found_at
    _of_main = watch
    # Another handler may have come in its place.  Not in each turn: the look takes longer than all else of this.
    now = monotonic()
    if now - _found_at < CHECK_SECS:
        return
    _found_at = now
    if signal.getsignal(SIGNAL) is not _on_signal:
        _handled_before = signal.signal(SIGNAL, _on_signal)


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if _of_main is not None:
        _of_main.interrupt(frame)
    if callable(_handled_before):
        _handled_before(signum, frame)


def may_be_stopped(innermost: FrameType) -> bool:
    """Whether a thread at this frame is neither in code of this file, nor about to take a lock."""
    locking = _package(innermost) in ("importlib", "threading") or innermost.f_code.co_name in _TAKING
    return not locking and innermost.f_globals is not globals()


def _may_be_cut_off(innermost: FrameType) -> bool:
    """Whether in addition no ``finally`` block of these modules is under way, which may release a lock."""
    frame: FrameType | None = innermost
    while frame is not None and frame.f_globals is not globals():
        if _package(frame) in _LOCKING:
            return False
        frame = frame.f_back
    return may_be_stopped(innermost)


def _may_be_interrupted(innermost: FrameType) -> bool:
    """Whether the body waits at this frame, and holds no lock of imports or of logging."""
    frame: FrameType | None = innermost
    while frame is not None and frame.f_globals is not globals():
        if _package(frame) in ("importlib", "logging"):
            return False
        frame = frame.f_back
    return innermost.f_globals is not globals() and frame is not None and frame.f_code is TurnWatch._run.__code__


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
