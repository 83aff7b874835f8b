"""A server's signals: before the server stops, the held connections get their timeout answers."""

from __future__ import annotations

import _thread
import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from .. import forks
from .hub import drain

#: How this process learns that it is being stopped, if its server is hypercorn.
_stopped: list[Callable[[], bool]] = []
forks.call_in_child(_stopped.clear)


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

    It changes nothing outside of the main thread, nor if the server has no handler: the signal ends the process then,
    or what ``asyncio.run`` runs.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signum)
    if not callable(handler) or handler is signal.default_int_handler or isinstance(handler, _DrainFirst):
        return
    # asyncio.run takes its handler away at its end, but only if it finds that one.
    if isinstance(getattr(getattr(handler, "func", None), "__self__", None), asyncio.Runner):
        return
    signal.signal(signum, _DrainFirst(handler))
    # As servers set it: system calls of running requests are restarted.
    signal.siginterrupt(signum, False)


def watch_asgi_server() -> None:
    """
    Let the hubs know before this process's ASGI server waits for its requests.

    uvicorn and hypercorn tell the application that they stop when all requests have ended.  So the signals drain the
    hubs; hypercorn's parent tells its processes by an event instead.  Call it in the event loop.
    """
    drain_on(signal.SIGTERM)
    drain_on(signal.SIGINT)
    if "hypercorn" not in sys.modules or _stopped:
        return
    # hypercorn has no interface to the event, so look for its function in the call stack.  The loop leaves no reference
    # to a frame: that of this function would keep the request until the garbage is collected.
    frame: FrameType | None = sys._getframe()
    while frame is not None and not _stopped:
        if frame.f_globals.get("__name__") == "hypercorn.asyncio.run":
            event = frame.f_locals.get("shutdown_event")
            _stopped.extend([] if event is None else [event.is_set])
        frame = frame.f_back
    del frame


def is_stopping() -> bool:
    """Return whether hypercorn's parent is stopping this process."""
    return any(each() for each in _stopped)
