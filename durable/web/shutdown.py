"""A server's signals: before the server stops, the held connections get their timeout answers."""

from __future__ import annotations

import _thread
import signal
import threading
from types import FrameType
from typing import Any

from .hub import drain


class _DrainFirst:
    """A signal handler that releases the held connections, and then does what the server's own one does."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        # On a new thread: a signal handler interrupts the main thread, which may hold any lock.
        _thread.start_new_thread(drain, ())
        self._handler(signum, frame)


def drain_on(signum: int) -> None:
    """
    Let the signal drain the hubs before the server's handler runs.

    It changes nothing outside of the main thread, nor if the server has no handler: the signal ends the process then.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signum)
    if not callable(handler) or handler is signal.default_int_handler or isinstance(handler, _DrainFirst):
        return
    signal.signal(signum, _DrainFirst(handler))
    # As servers set it: system calls of running requests are restarted.
    signal.siginterrupt(signum, False)


def drain_on_signals() -> None:
    """
    Let the signals that stop an ASGI server drain the hubs first.

    uvicorn and hypercorn wait for all requests before they tell the application that they stop.
    """
    drain_on(signal.SIGTERM)
    drain_on(signal.SIGINT)
