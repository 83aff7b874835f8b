"""
Connects an engine to the signals of Celery's workers.

What a worker does then is in ``lifecycle.py``, which only a worker imports.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from celery import signals

from ..broker import FORWARD, HEADER, celery_internals
from ..engine import Engine


def connect(engine: Engine) -> None:
    """Connect the engine to the signals of workers of its app, until it is closed."""
    children = celery_internals.ChildWatch()
    # Whether this process is a worker of our app, or a child of one.  The signals of processes name no app.
    serves = False

    def is_of_our_app(sender: Any) -> bool:
        return getattr(sender, "app", engine.celery) is engine.celery

    def on_worker_init(sender: Any = None, **_: object) -> None:
        nonlocal serves
        serves = is_of_our_app(sender)
        if serves:
            engine.sends_task_events = bool(getattr(sender, "task_events", False))
            engine.pool = celery_internals.pool_name(sender)
            celery_internals.redirect_unknown_tasks(engine.celery, HEADER, FORWARD)
            from . import lifecycle

            lifecycle.begin(engine)

    def on_process_init(**_: object) -> None:
        # Celery sends this in each prefork child, and also in the only process of a solo pool.
        if not serves:
            return
        engine.expendable = celery_internals.is_pool_child()
        from . import lifecycle

        lifecycle.start_housekeeping(engine)

    def on_worker_ready(sender: Any = None, **_: object) -> None:
        if not is_of_our_app(sender):
            return
        # A prefork main process may fork again at any time, so no thread of ours runs in it.
        if celery_internals.is_prefork(sender):
            children.watch(sender)
        else:
            from . import lifecycle

            lifecycle.start_housekeeping(engine)

    def on_shutdown(**_: object) -> None:
        if not serves:
            return
        from . import lifecycle

        lifecycle.end(engine)

    for signal, receiver in (
        (signals.worker_init, on_worker_init),
        (signals.worker_process_init, on_process_init),
        (signals.worker_ready, on_worker_ready),
        (signals.worker_process_shutdown, on_shutdown),
        (signals.worker_shutdown, on_shutdown),
    ):
        signal.connect(receiver, weak=False)
        engine.on_close(partial(signal.disconnect, receiver))
