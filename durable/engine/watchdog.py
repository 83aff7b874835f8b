"""
The watchdog: stops the author's code when a turn burns more CPU time, or takes more time, than it may.

A workflow's body runs in the worker's own thread, and nothing else in it can run meanwhile.  So one
thread per process looks at the threads in which bodies run, and where one is over its limit raises
``Stopped`` there, again and again until the body is left.  It sleeps while no body runs.

Rule 1: it never hits anything but the body.  It fires under the lock, at a thread that is inside
``TurnWatch.run``; leaving that takes the lock, and takes back what was fired and has not arrived.

Rule 2: it never fires where a lock of the process could stay locked for ever (of logging, of imports).
Then it looks again a moment later.

Rule 3: what was stopped is thrown away.  The turn gets ``TurnTooLong`` and commits nothing of what it did.

Time counts only while the watchdog itself can look: a process that was paused (SIGSTOP, a virtual
machine that was moved) has used none up.  A body that waits (for a lock, say) is interrupted by a signal in the
main thread; in other threads once it wakes up by itself.  A call into C (a regular expression, a huge
``sum``) is stopped only once it returns.  A loop that catches BaseException in each round is nearly always
left in the end, but its shape may save it.  What cannot be stopped is told to ``give_up`` after some
seconds.  Off where threads are greenlets (gevent, eventlet): there a body that spins stops the watchdog too.
"""

from __future__ import annotations

import _thread
import ctypes
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import BuiltinFunctionType, FrameType
from typing import Any

from .. import forks
from ..errors import TurnTooLong
from ..sandbox import calling_line, log_records
from .interrupts import Stopped, ThreadState, clock_of, relentless, set_async_exc

#: Seconds between two shots at a body that goes on.
PAUSE = 0.01

#: Shots after which no more heed is paid to a body's ``finally`` and ``except``.
GENTLE = 20

#: Seconds of shots after which nothing helps.
HOPELESS_SECS = 5.0

#: Seconds between two looks at a body that may take only so much time.
LOOK = 1.0

#: After so many looks at nobody it sleeps until it is woken: to wake it for each of many turns would cost them more.
QUIET = 5

#: Interrupts what waits in the main thread.  Ignored by default: one that comes too late does nothing.
SIGNAL = signal.SIGURG

log = log_records.get("durable")

#: Modules that hold locks of the whole process.
_LOCKING = ("importlib", "logging", "queue", "threading")

#: Functions, of whatever module, that may have taken a lock which nobody has promised to give back yet.
_TAKING = ("acquire", "release", "_acquireLock", "_releaseLock", "__enter__", "__exit__")


class TurnWatch:
    """
    One turn's CPU time, and its time.

    Attributes:
        where: The author's line that ran when one of them was used up.
        took: Seconds of time that the watchdog has seen it run.
    """

    def __init__(self, watchdog: Watchdog, run_id: str, cpu_limit: float, limit: float) -> None:
        self._watchdog = watchdog
        self.run_id = run_id
        self._cpu_limit = cpu_limit
        self._limit = limit
        self._clock: int | None = None
        self._until: float | None = None
        self._looked = 0.0
        self.took = 0.0
        self._over = 0.0
        self._hung = False
        self._shots = 0
        #: The thread that may be hit, 0 for none.
        self._aim = ctypes.c_ulong(0)
        self.where: str | None = None

    def run(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """
        Call *function*, which runs the author's code.

        Raises:
            TurnTooLong: This and the calls before it have used the CPU time, or the time, up.
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
                # This calls nothing, so nothing arrives before it.  One shot may still be on its way; no other
                # follows while this file's code runs.
                self._aim.value = 0
                try:
                    self._watchdog.disarm(self)
                except Stopped:
                    self._watchdog.disarm(self)
        except Stopped:
            pass

    def begin(self) -> None:
        """Note the thread, and up to which reading of its clock it may go."""
        self._aim.value = _thread.get_ident()
        self._looked = time.monotonic()
        if self._until is None:
            self._clock = clock_of(self._aim.value)
            self._until = self._read() + (self._cpu_limit or math.inf)

    def look(self) -> float:
        """Seconds until the next look is due, 0: it is over a limit."""
        assert self._until is not None
        now = time.monotonic()
        # No more than that: in what is beyond, the watchdog could not look, and perhaps the body could not run.
        passed, self._looked = min(now - self._looked, 2 * self._pace()), now
        self.took += passed
        cpu_left = self._until - self._read()
        self._hung = self._hung or (0 < self._limit <= self.took and cpu_left > 0)
        if cpu_left > 0 and not self._hung:
            return min(cpu_left, self._pace())
        self._over += passed if self._over else PAUSE
        return 0

    def _pace(self) -> float:
        return min(LOOK, self._limit / 4) if self._limit else LOOK

    @property
    def hopeless(self) -> bool:
        """Whether it has been over its limit for so long that nothing will stop it."""
        return self._over >= HOPELESS_SECS

    @property
    def fired(self) -> bool:
        """Whether the CPU time was used up."""
        return self._shots > 0

    def fire(self) -> None:
        """Have Stopped raised in the thread, unless that could leave something locked."""
        frame = sys._current_frames().get(self._aim.value)
        if frame is None:
            return
        self.where = self.where or calling_line(frame)
        if self._hung and self._aim.value == threading.main_thread().ident:
            signal.pthread_kill(self._aim.value, SIGNAL)
        elif self._may_fire(frame):
            self._shots += 1
            set_async_exc(self._aim, Stopped if self._gentle else relentless(self._aim))

    def _may_fire(self, frame: FrameType) -> bool:
        if self._hung:
            return _may_be_interrupted(frame)
        return may_be_stopped(frame) if self._gentle else _may_be_cut_off(frame)

    @property
    def _gentle(self) -> bool:
        return self._shots < GENTLE

    def interrupt(self, frame: FrameType | None) -> None:
        """Raise Stopped out of what the main thread waits for: a handler of signals calls this, in that thread."""
        if not self._hung or not self._aim.value or frame is None or not _may_be_interrupted(frame):
            return
        self._shots += 1
        raise (Stopped if self._gentle else relentless(self._aim))()

    def hold(self) -> None:
        """Take back what was fired and has not arrived."""
        if self.fired:
            set_async_exc(_thread.get_ident(), ctypes.py_object())

    def reason(self) -> TurnTooLong:
        """Why it was stopped."""
        if self._hung:
            return TurnTooLong(self.run_id, self._limit, self.where, hung=True)
        return TurnTooLong(self.run_id, self._cpu_limit, self.where)

    def _read(self) -> float:
        # Where a thread's clock cannot be read by another (macOS), the whole process's counts.
        return time.process_time() if self._clock is None else time.clock_gettime(self._clock)


class Watchdog:
    """The watches of one process, and the thread that looks at them."""

    def __init__(
        self, cpu_limit: float, limit: float = 0, give_up: Callable[[TurnTooLong], object] | None = None
    ) -> None:
        """
        Args:
            cpu_limit: CPU time of one turn in seconds; 0: any.
            limit: Time of one turn in seconds; 0: any.
            give_up: Called, in a thread of its own, with what is wrong with a turn that nothing stops.
        """
        threads_are_threads = isinstance(_thread.get_ident, BuiltinFunctionType)
        self._cpu_limit = cpu_limit if threads_are_threads else 0
        self._limit = limit if threads_are_threads else 0
        self._give_up = give_up or (lambda reason: log.error("%s  Nothing stops it: end this process.", reason))
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._changed = threading.Condition(threading.Lock())
        self._armed: dict[TurnWatch, None] = {}
        self._hopeless: set[TurnWatch] = set()
        self._thread: threading.Thread | None = None
        self._idle = False

    def watch(self, run_id: str) -> TurnWatch:
        """A watch for one turn of a run."""
        return TurnWatch(self, run_id, self._cpu_limit, self._limit)

    def is_long_at(self, run_id: str) -> bool:
        """Whether a turn of this run has been going on in this process for some seconds."""
        with self._changed:
            return any(watch.run_id == run_id and watch.took > 3 * LOOK for watch in self._armed)

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._thread = None
            self._changed.notify()

    def arm(self, watch: TurnWatch) -> None:
        """Look at *watch*, which is of this thread, from now on."""
        if self._limit and _thread.get_ident() == threading.main_thread().ident:
            _listen(watch)
        watch.begin()
        with self._changed:
            self._armed[watch] = None
            if self._thread is None:
                self._start()
            elif self._idle:
                self._changed.notify()

    def disarm(self, watch: TurnWatch) -> None:
        """Look at it no longer; what was fired and has not arrived does not arrive any more."""
        with self._changed:
            self._armed.pop(watch, None)
            self._hopeless.discard(watch)
            watch.hold()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._look, name="durable-watchdog", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        looks = 0
        with self._changed:
            while self._thread is threading.current_thread():
                # One that was woken begins anew: whoever woke it may be gone already, and others follow.
                looks = 0 if self._armed or self._idle else looks + 1
                self._idle = looks > QUIET
                self._changed.wait(None if self._idle else self._next_look() or self._pace)

    @property
    def _pace(self) -> float:
        """Seconds within which a body that begins is seen."""
        return min([LOOK, *(each / 4 for each in (self._cpu_limit, self._limit) if each)])

    def _next_look(self) -> float | None:
        """Fire where it is time; seconds until somebody could be over the limit, None: nobody is there."""
        left = [watch.look() for watch in self._armed]
        for watch, each in zip(self._armed, left, strict=True):
            if each <= 0:
                watch.fire()
            if watch.hopeless and watch not in self._hopeless:
                self._hopeless.add(watch)
                # Not here: it may write to a log whose lock the body holds.
                threading.Thread(target=self._give_up, args=(watch.reason(),), daemon=True).start()
        return max(PAUSE, min(left)) if left else None


#: The watch of the main thread, and what was there to handle SIGNAL before us.
_of_main: TurnWatch | None = None
_handled_before: Any = None


def _listen(watch: TurnWatch) -> None:
    """Have SIGNAL interrupt this watch's turn, which runs in the main thread."""
    global _of_main, _handled_before
    _of_main = watch
    if signal.getsignal(SIGNAL) is not _on_signal:
        _handled_before = signal.signal(SIGNAL, _on_signal)


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if _of_main is not None:
        _of_main.interrupt(frame)
    if callable(_handled_before):
        _handled_before(signum, frame)


def may_be_stopped(innermost: FrameType) -> bool:
    """Whether it is neither in code of ours that arms and disarms, nor about to take a lock."""
    locking = _package(innermost) in ("importlib", "threading") or innermost.f_code.co_name in _TAKING
    return not locking and innermost.f_globals is not globals()


def _may_be_cut_off(innermost: FrameType) -> bool:
    """Whether besides no ``finally`` is under way that gives such a lock back."""
    frame: FrameType | None = innermost
    while frame is not None and frame.f_globals is not globals():
        if _package(frame) in _LOCKING:
            return False
        frame = frame.f_back
    return may_be_stopped(innermost)


def _may_be_interrupted(innermost: FrameType) -> bool:
    """Whether what waits there is the body, and no lock of the process is taken meanwhile."""
    frame: FrameType | None = innermost
    while frame is not None and frame.f_globals is not globals():
        if _package(frame) in ("importlib", "logging"):
            return False
        frame = frame.f_back
    return innermost.f_globals is not globals() and frame is not None and frame.f_code is TurnWatch._run.__code__


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
