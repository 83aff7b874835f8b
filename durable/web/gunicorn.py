"""
Gunicorn: finds the worker, and releases held connections when it is stopped.

Add this to ``gunicorn.conf.py``, so that SIGTERM releases held connections at once::

    from durable.web.gunicorn import post_worker_init

Without it they are released within a second.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
from types import FrameType
from typing import Any

from .hub import drain

#: By pid: a worker found before a fork belongs to the parent process.
_workers: dict[int, Any] = {}


def post_worker_init(worker: Any) -> None:
    """Gunicorn's server hook of this name: SIGTERM first gives all held connections their timeout answer."""
    _workers[os.getpid()] = worker
    stop = signal.getsignal(signal.SIGTERM)

    def drain_and_stop(signum: int, frame: FrameType | None) -> None:
        # On a new thread: a signal handler interrupts the main thread, which may hold any lock.
        _thread.start_new_thread(drain, ())
        if callable(stop):
            stop(signum, frame)

    signal.signal(signal.SIGTERM, drain_and_stop)
    # As gunicorn sets it: system calls of running requests are restarted.
    signal.siginterrupt(signal.SIGTERM, False)


def current_worker() -> Any | None:
    """The gunicorn worker that runs the calling thread, None under another server."""
    pid = os.getpid()
    if pid not in _workers:
        found = _among_callers(sys._getframe())
        if found is not None:
            _workers[pid] = found
    return _workers.get(pid)


def is_stopping() -> bool:
    """Whether gunicorn is stopping this process, by SIGTERM or because ``max_requests`` is reached."""
    worker = _workers.get(os.getpid())
    return worker is not None and not worker.alive


def threads(worker: Any) -> int:
    """How many requests the worker can serve at once."""
    if hasattr(worker, "tpool"):
        return int(worker.cfg.threads)
    if hasattr(worker, "worker_connections"):
        return int(worker.worker_connections)
    return 1


def _among_callers(frame: FrameType | None) -> Any | None:
    """The worker in the call stack: Gunicorn has no other interface to its worker and settings."""
    base = sys.modules.get("gunicorn.workers.base")
    while base is not None and frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, base.Worker):
            return candidate
        frame = frame.f_back
    return None
