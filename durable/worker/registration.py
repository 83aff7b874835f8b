"""
Registration: which engine the tasks of a Celery app run for, and when the tasks are made.

If an app has several engines, its tasks run for the one that was made last and is not closed.

The modules that run turns and attempts are imported when Celery makes the app's tasks, and not with the engine: a
process that only reads runs does not need them.
"""

from __future__ import annotations

from functools import partial

from celery import Celery

from .. import current, registry
from ..broker import DRIVE
from ..engine import Engine
from ..errors import ConfigurationError
from ..registry import Defined
from ..sandbox import log_records
from ..store import StepRow

log = log_records.get("durable.tasks")


def register(engine: Engine) -> None:
    """
    Register our tasks with the engine's app, now or once Celery has made the app's own tasks.

    Steps that are defined later are registered when they are defined.
    """
    app = engine.celery

    def on_finalized(**_: object) -> None:
        _serve(engine)

    def on_defined(defined: Defined) -> None:
        if served_by(app) is engine:
            from . import tasks

            tasks.register_step(engine, defined)

    def on_close() -> None:
        if served_by(app) is not engine:
            return
        from . import adopted_tasks

        adopted_tasks.remove(engine)
        # Serve the engine that was made before this one for the same app.
        others = [each for each in current.engines() if each.celery is app]
        if others:
            _serve(others[-1])

    def on_impossible(row: StepRow, error: Exception) -> None:
        from ..attempts import outcome

        outcome.fail_unsendable(engine, row, error)

    engine.on_impossible = on_impossible
    engine.on_close(on_close)
    engine.on_close(registry.subscribe(on_defined))
    if app.finalized:
        _serve(engine)
    else:
        # Until it is finalized, an app keeps the first task of a name, and nothing removes it.
        app.on_after_finalize.connect(on_finalized, weak=False)
        engine.on_close(partial(app.on_after_finalize.disconnect, on_finalized))


def served_by(app: Celery) -> Engine | None:
    """The engine that our tasks of the app run for; None before Celery has made them."""
    if not app.finalized:
        return None
    from .in_place import engine_of

    return engine_of(app.tasks.get(DRIVE))


def _serve(engine: Engine) -> None:
    """Make our tasks of the app run for this engine, in place of another engine of the same app."""
    from . import tasks

    tasks.register_turns(engine)
    for defined in registry.all_definitions():
        try:
            tasks.register_step(engine, defined)
        except ConfigurationError as error:
            log.error("%s", error)  # the check at a worker's start raises it
