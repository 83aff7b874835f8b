"""A Celery worker in a thread of the test's own process, which leaves nothing of Celery's set-up behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery, signals
from celery.app import trace
from celery.contrib.testing.worker import start_worker


@contextmanager
def worker_in_thread(app: Celery) -> Iterator[None]:
    """A worker of the app with a solo pool.  Celery would take the root logger over, and trace calls of all tasks."""
    signals.setup_logging.connect(_no_logging)
    try:
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
            yield
    finally:
        signals.setup_logging.disconnect(_no_logging)
        trace.reset_worker_optimizations(app)


def _no_logging(**_: object) -> None: ...
