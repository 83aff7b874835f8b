"""
Celery's signals: a worker checks that it can work when it starts, and each process starts and stops housekeeping.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from celery import signals
from sqlalchemy.exc import SQLAlchemyError

from .. import registry
from ..broker import FORWARD, HEADER, celery_internals, check_worker_settings, embedded
from ..engine import Engine
from ..errors import ConfigurationError
from ..recovery import housekeeping
from ..registry import AdoptedStep
from ..sandbox import log_records
from . import adopted_tasks, tasks
from .registration import served_by

log = log_records.get("durable.tasks")


def connect(engine: Engine) -> None:
    """Connect the engine to the signals of workers of its app, until it is closed."""
    children = celery_internals.ChildWatch()

    def is_of_our_app(sender: Any) -> bool:
        return getattr(sender, "app", engine.celery) is engine.celery

    def on_worker_init(sender: Any = None, **_: object) -> None:
        if is_of_our_app(sender):
            engine.sends_task_events = bool(getattr(sender, "task_events", False))
            engine.pool = celery_internals.pool_name(sender)
            celery_internals.redirect_unknown_tasks(engine.celery, HEADER, FORWARD)
            _check(engine)

    def on_process_init(**_: object) -> None:
        # Celery sends this in each prefork child, and also in the only process of a solo pool.
        engine.expendable = celery_internals.is_pool_child()
        _start_housekeeping(engine)

    def on_worker_ready(sender: Any = None, **_: object) -> None:
        if not is_of_our_app(sender):
            return
        # A prefork main process may fork again at any time, so no thread of ours runs in it.
        if celery_internals.is_prefork(sender):
            children.watch(sender)
        else:
            _start_housekeeping(engine)

    def on_shutdown(**_: object) -> None:
        engine.fan_in.close()
        engine.forwarder.close()
        housekeeping.end(engine)

    for signal, receiver in (
        (signals.worker_init, on_worker_init),
        (signals.worker_process_init, on_process_init),
        (signals.worker_ready, on_worker_ready),
        (signals.worker_process_shutdown, on_shutdown),
        (signals.worker_shutdown, on_shutdown),
    ):
        signal.connect(receiver, weak=False)
        engine.on_close(partial(signal.disconnect, receiver))


def _start_housekeeping(engine: Engine) -> None:
    if served_by(engine.celery) not in (None, engine):
        return  # another engine of this app does it
    try:
        housekeeping.ensure(engine)
    except SQLAlchemyError as error:
        log.warning("The database cannot be used yet (%s); housekeeping begins with the first task.", error)


def _check(engine: Engine) -> None:
    """Stop a worker that cannot work.  Celery ignores exceptions of signal receivers, but not SystemExit."""
    try:
        if engine.broker_url() == embedded.url():
            embedded.ensure_running()
        check_worker_settings(engine.celery)
        adopted_tasks.check(engine)
        for step in registry.steps.values():
            # The step's messages would run a task of the application that has the same name.
            if not isinstance(step, AdoptedStep) and tasks.is_taken(engine, step.name):
                raise ConfigurationError(
                    f"A Celery task of the app {engine.celery.main!r} and the step at {step.place} are both named"
                    f" {step.name!r}.  If @app.task stands above @step, take @app.task away.  Otherwise give one"
                    " of them another name with name=...."
                )
        served = served_by(engine.celery) or engine
        if served.store.url != engine.store.url:
            first, last = (each.store.url.render_as_string() for each in (engine, served))
            raise ConfigurationError(
                f"Two engines exist for the Celery app {engine.celery.main!r}: one with the database {first}, and a"
                f" later one with {last}.  A worker serves one engine, so runs in {first} would stay pending.  Make"
                " one engine per Celery app, or close() the one that you don't need."
            )
        engine.check_schema()
    except ConfigurationError as error:
        print(f"durable: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except SQLAlchemyError as error:
        log.warning("The database cannot be used yet (%s); the worker starts without it.", type(error).__name__)
    finally:
        # The worker forks its children next, and no connection may be shared with them.
        engine.store.close()
