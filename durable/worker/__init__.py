"""
The worker: the Celery tasks that it runs, and what it does when it starts and stops.

The code that depends on Celery's internals is in ``broker/celery_internals.py``.

Files, in import order::

    sentry.py          what Sentry shows of a task
    celery_outcome.py  what Celery sees of an attempt that failed
    foreign.py         messages of another installation go back into their queue
    adopted_tasks.py   an application's own Celery task that runs the attempts of a step
    in_place.py        runs the tasks of steps that were claimed here, after the task of a message
    versions.py        which versions this process and other workers run
    tasks.py           the tasks ``durable.drive``, ``durable.wake`` and ``durable.forward``, and one for each step
    registration.py    which engine the tasks of an app run for, and when they are made
    deaf_worker.py     finds out that this worker's consumer is dead
    lifecycle.py       checks a worker at its start, starts and stops housekeeping
    signals.py         connects an engine to the signals of workers
"""

from __future__ import annotations

from ..engine import Engine
from . import registration, signals

__all__ = ["install"]


def install(engine: Engine) -> None:
    """Register the engine's tasks with its Celery app, and connect it to the signals of the app's workers."""
    registration.register(engine)
    signals.connect(engine)
