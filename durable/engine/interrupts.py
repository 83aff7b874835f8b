"""An exception raised in another thread, and what of that thread has to be put back afterwards."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import sys
import time
from typing import Any

set_async_exc: Any = ctypes.PYFUNCTYPE(None, ctypes.c_ulong, ctypes.py_object)(
    ("PyThreadState_SetAsyncExc", ctypes.pythonapi)
)


def raise_in_thread(thread: int, error: type[BaseException] | None) -> None:
    """Have *error* raised in a thread when it runs Python code next; None takes back what has not arrived."""
    set_async_exc(thread, ctypes.py_object() if error is None else error)


class Stopped(BaseException):
    """Raised in a workflow's body that has used its CPU time up.  Catching it does not help: it comes again."""


def relentless(aim: ctypes.c_ulong) -> type[Stopped]:
    """
    A kind of Stopped that sends itself again as it arrives, so that no handler survives it.

    ``while True: try: … except BaseException: pass`` is left by the one that arrives in the handler.
    Python makes the exception where it arrives, by this ``__init__`` in C, in which nothing can arrive.
    """
    kind = type("Stopped", (Stopped,), {})
    kind.__init__ = staticmethod(functools.partial(set_async_exc, aim, kind))  # type: ignore[misc]
    return kind


def clock_of(thread: int) -> int | None:
    """The CPU clock of a thread, None where another cannot read it."""
    return time.pthread_getcpuclockid(thread) if hasattr(time, "pthread_getcpuclockid") else None


class ThreadState:
    """
    What a loop changes in its thread and puts back: unless it was stopped in the middle of that.

    Until it is restored nothing is collected: an exception that arrives in a callback of the collector is lost, and
    whose callback it was never knows.
    """

    def __init__(self) -> None:
        self._loop = asyncio._get_running_loop()
        self._hooks = sys.get_asyncgen_hooks()
        self._collecting = gc.isenabled()
        gc.disable()

    def restore(self) -> None:
        """Put it back."""
        asyncio._set_running_loop(self._loop)
        sys.set_asyncgen_hooks(*self._hooks)
        if self._collecting:
            gc.enable()
