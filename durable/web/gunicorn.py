"""
Gunicorn: find the worker, and release held connections when it is stopped.

Add this to ``gunicorn.conf.py``, so that SIGTERM releases held connections at once::

    from durable.web.gunicorn import post_worker_init

Without it they are released within a second.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

from .. import forks
from .shutdown import drain_on

#: The worker of this process, once it is found.  A child process that the worker forks is not a worker.
_found: list[Any] = []
forks.call_in_child(_found.clear)


def post_worker_init(worker: Any) -> None:
    """
    Let SIGTERM first give all held connections their timeout answer; this is a server hook of gunicorn.

    Import it in your ``gunicorn.conf.py``; gunicorn finds it there by its name::

        from durable.web.gunicorn import post_worker_init

    Args:
        worker: The worker process, which gunicorn passes.
    """
    _found[:] = [worker]
    drain_on(signal.SIGTERM)


def current_worker() -> Any | None:
    """Return the gunicorn worker that runs the calling thread; None under another server."""
    base = sys.modules.get("gunicorn.workers.base")
    frame: FrameType | None = sys._getframe()
    # Gunicorn has no interface to its worker and settings, so look for the worker's methods in the call stack.
    while base is not None and frame is not None and not _found:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, base.Worker):
            _found[:] = [candidate]
        frame = frame.f_back
    return _found[0] if _found else None


def is_stopping() -> bool:
    """Return whether gunicorn is stopping this process, by SIGTERM or because ``max_requests`` is reached."""
    return bool(_found) and not _found[0].alive


def threads(worker: Any) -> int:
    """Return how many requests the worker can serve at once."""
    if hasattr(worker, "tpool"):
        return int(worker.cfg.threads)
    if hasattr(worker, "worker_connections"):
        return int(worker.worker_connections)
    return 1
