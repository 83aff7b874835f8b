"""Raises an exception in another thread, and restores what that thread could not restore itself."""

from __future__ import annotations

import _thread
import asyncio
import ctypes
import functools
import sys
import time
from types import BuiltinFunctionType
from typing import Any

from .. import forks
from ..sandbox import collector

forks.call_in_child(collector.forget_other_threads)

_set_silently: Any = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)

_set_async_exc: Any = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def raise_in_thread(thread: int | ctypes.c_ulong, error: type[BaseException] | None) -> bool:
    """
    Raise *error* in a thread when it runs Python code next; None cancels an error that has not arrived.

    A ``c_ulong`` is read as the call begins, when no other thread runs: a thread that sets it to 0 gets nothing.

    Returns:
        Whether there is such a thread.
    """
    return bool(_set_async_exc(thread, ctypes.py_object() if error is None else error))


def has_threads() -> bool:
    """Whether threads are threads of the operating system, and not greenlets."""
    return isinstance(_thread.get_ident, BuiltinFunctionType)


class Stopped(BaseException):
    """Raised in a workflow's body that has used up its time.  A body that catches it gets it again."""


def relentless(aim: ctypes.c_ulong) -> type[Stopped]:
    """
    A subclass of Stopped that raises itself again when it arrives, so that a handler cannot go on.

    It ends ``while True: try: … except BaseException: pass``, since the second one arrives in the handler.
    Python makes the exception where it arrives and calls this ``__init__``.  It is C code, so nothing can arrive
    in it.
    """
    kind = type("Stopped", (Stopped,), {})
    kind.__init__ = staticmethod(functools.partial(_set_silently, aim, kind))  # type: ignore[misc]
    return kind


def clock_of(thread: int) -> int | None:
    """The CPU clock of a thread; None where another thread cannot read it (macOS)."""
    return time.pthread_getcpuclockid(thread) if hasattr(time, "pthread_getcpuclockid") else None


class ThreadState:
    """
    What an event loop sets in its thread and resets at its end, unless it was stopped before it could.

    The garbage collector is off until ``restore``: Python drops an exception that arrives in a callback of the
    collector.
    """

    def __init__(self) -> None:
        self._loop = asyncio._get_running_loop()
        self._hooks = sys.get_asyncgen_hooks()
        self._pauses = collector.depth
        collector.pause()

    def restore(self) -> None:
        """Reset the thread to the state in which this object was made."""
        asyncio._set_running_loop(self._loop)
        sys.set_asyncgen_hooks(*self._hooks)
        collector.set_depth(self._pauses)
