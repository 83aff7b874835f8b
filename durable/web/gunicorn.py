"""
Gunicorn: what its worker can tell, and ending held connections when it is stopped.

In ``gunicorn.conf.py``, so that SIGTERM ends holds at once rather than within a second::

    from durable.web.gunicorn import post_worker_init

Without it the worker is found by the first webhook that is held.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
from types import FrameType
from typing import Any

from .hub import drain

#: By pid: a worker of before a fork is not this process's.
_workers: dict[int, Any] = {}


def post_worker_init(worker: Any) -> None:
    """Gunicorn's server hook of this name: at SIGTERM, first give all held connections their answer."""
    _workers[os.getpid()] = worker
    stop = signal.getsignal(signal.SIGTERM)

    def drain_and_stop(signum: int, frame: FrameType | None) -> None:
        # On a thread: here the main thread may be holding any lock.
        _thread.start_new_thread(drain, ())
        if callable(stop):
            stop(signum, frame)

    signal.signal(signal.SIGTERM, drain_and_stop)
    # As gunicorn has it: system calls of running requests go on.
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
    """Whether gunicorn wants this process to end: SIGTERM, or ``max_requests`` reached."""
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
    """Gunicorn offers no other way to its worker and settings than the ``self`` that called us."""
    base = sys.modules.get("gunicorn.workers.base")
    while base is not None and frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, base.Worker):
            return candidate
        frame = frame.f_back
    return None
