"""A worker checks that it can work when it starts, and each of its processes starts and stops housekeeping."""

from __future__ import annotations

import sys

from sqlalchemy.exc import SQLAlchemyError

from .. import codec, registry
from ..broker import check_worker_settings, embedded, refuse_cluster_of
from ..engine import Engine
from ..errors import ConfigurationError
from ..recovery import housekeeping
from ..registry import AdoptedStep
from ..sandbox import log_records
from . import adopted_tasks, tasks, versions
from .registration import served_by

log = log_records.get("durable.tasks")


def start_housekeeping(engine: Engine) -> None:
    """Start the housekeeping of this process, unless another engine of the app does it."""
    if served_by(engine.celery) not in (None, engine):
        return  # another engine of this app does it
    # In an outage too: its rounds log what fails, and go on.
    housekeeping.ensure(engine)


def begin(engine: Engine) -> None:
    """
    Stop a worker that cannot work; have the others answer the question for their versions.

    Celery ignores exceptions of signal receivers, but not SystemExit.
    """
    versions.install()
    # Here, and not in the first turn of each child.
    codec.load_pydantic()
    try:
        if engine.broker_url() == embedded.url():
            embedded.ensure_running()
        check_worker_settings(engine.celery)
        refuse_cluster_of(engine.celery)
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


def end(engine: Engine) -> None:
    """Stop what this process does beside its tasks."""
    engine.later.close()
    housekeeping.end(engine)
