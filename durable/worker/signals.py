"""
Connects an engine to the signals of Celery's workers.

What a worker does then is in ``lifecycle.py``, which only a worker imports.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from celery import signals

from .. import forks
from ..broker import FORWARD, HEADER, celery_internals
from ..engine import Engine

#: A child that ends after some tasks may go on with their runs for so many times what its start took, all together.
_START_FACTOR = 10
#: The longest time for one task, in seconds.
_MOST_SECS = 2.0


def connect(engine: Engine) -> None:
    """Connect the engine to the signals of workers of its app, until it is closed."""
    worker = _Worker(engine)
    for signal, receiver in (
        (signals.worker_init, worker.begin),
        (signals.worker_before_create_process, worker.prepare_forks),
        (signals.worker_process_init, worker.begin_process),
        (signals.worker_ready, worker.begin_to_consume),
        (signals.worker_process_shutdown, worker.end),
        (signals.worker_shutdown, worker.end),
    ):
        signal.connect(receiver, weak=False)
        engine.on_close(partial(signal.disconnect, receiver))


class _Worker:
    """The worker that this process may be, or a child of which it may be."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._children = celery_internals.ChildWatch()
        #: Made in the main process of a worker; it imports what only a worker needs.
        self._deaf_watch: Any = None
        # Celery's signals of processes name no app: those of a worker of another app are not for this engine.
        self._serves = False
        self._forks = False
        self._tasks_per_child: int | None = None
        self._forked_at = 0.0
        forks.call_in_child(self._note_fork)

    def _note_fork(self) -> None:
        self._forked_at = time.monotonic()

    def begin(self, sender: Any = None, **_: object) -> None:
        """Celery's ``worker_init``: the worker has its settings."""
        engine = self._engine
        self._serves = getattr(sender, "app", engine.celery) is engine.celery
        if not self._serves:
            return
        engine.sends_task_events = bool(getattr(sender, "task_events", False))
        engine.pool = celery_internals.pool_name(sender)
        self._tasks_per_child = celery_internals.tasks_per_child(sender)
        celery_internals.redirect_unknown_tasks(engine.celery, HEADER, FORWARD)
        celery_internals.prepare_delayed_delivery_once()
        from ..broker import redis_outages
        from . import lifecycle

        redis_outages.survive(engine.celery)
        lifecycle.begin(engine)

    def prepare_forks(self, **_: object) -> None:
        """Celery's ``worker_before_create_process``: the main process of a prefork pool is about to fork."""
        if self._serves and not self._forks:
            self._forks = True
            celery_internals.prepare_forks()

    def begin_process(self, **_: object) -> None:
        """Celery's ``worker_process_init``: a prefork child, or the only process of a solo pool."""
        if not self._serves:
            return
        self._engine.stuck.may_kill_process = celery_internals.is_pool_child()
        from . import lifecycle

        lifecycle.start_housekeeping(self._engine)
        if self._forked_at and self._tasks_per_child:
            start_secs = time.monotonic() - self._forked_at
            seconds = min(_MOST_SECS, start_secs * _START_FACTOR / self._tasks_per_child)
            self._engine.least_continuation = int(seconds * 1_000_000)

    def begin_to_consume(self, sender: Any = None, **_: object) -> None:
        """Celery's ``worker_ready``: the main process takes messages."""
        if not self._serves:
            return
        from . import deaf_worker

        self._deaf_watch = self._deaf_watch or deaf_worker.DeafWatch(self._engine)
        self._deaf_watch.watch(sender)
        # A prefork main process may fork again at any time, so no thread of ours runs in it.
        if celery_internals.is_prefork(sender):
            self._children.watch(sender)
        else:
            from . import lifecycle

            lifecycle.start_housekeeping(self._engine)

    def end(self, **_: object) -> None:
        """Celery's ``worker_process_shutdown`` and ``worker_shutdown``."""
        if not self._serves:
            return
        from . import lifecycle

        lifecycle.end(self._engine)
