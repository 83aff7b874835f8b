"""
Celery's view of durable: the tasks ``durable.drive`` and ``durable.wake``, and one task per step.

Only these tasks get our options.  The message of a step carries its address in
a header and no arguments.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import signals
from sqlalchemy.exc import SQLAlchemyError

from . import alarms, embedded, housekeeping, registry
from .dispatch import DRIVE, HEADER, WAKE
from .drive import drive
from .engine import Engine
from .errors import ConfigurationError
from .registry import Step, Workflow
from .steps import Address, attempt

#: Acknowledged after the body, sent again when the process dies in it; results are the log's.
MANNERS: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "acks_on_failure": True,
    "acks_on_timeout": False,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
    "track_started": False,
    "serializer": "json",
    "typing": False,
    "shared": False,
}

log = logging.getLogger("durable.tasks")


def install(engine: Engine) -> None:
    """Register our tasks with the engine's Celery app, now and for steps defined later."""
    _install_turns(engine)
    engine.on_close(registry.subscribe(lambda defined: _install_step(engine, defined)))
    _connect_signals(engine)


def _install_turns(engine: Engine) -> None:
    # A second engine of the same app takes the first one's place.
    for name in (DRIVE, WAKE):
        engine.celery._tasks.pop(name, None)

    @engine.celery.task(name=DRIVE, **MANNERS)
    def drive_run(run_id: str) -> None:
        housekeeping.ensure(engine)
        drive(engine, run_id)

    @engine.celery.task(name=WAKE, bind=True, **MANNERS)
    def wake_run(task: Any, run_id: str, op_id: str) -> None:
        housekeeping.ensure(engine)
        alarms.ring(engine, run_id, op_id)
        _drive_in_place(engine, task.request, run_id)


def _install_step(engine: Engine, defined: Step[..., Any] | Workflow[..., Any]) -> None:
    if not isinstance(defined, Step):
        return
    # Celery 6 wants no queue on a task: dispatch puts it on the message.
    options = {name: value for name, value in defined.options.items() if name != "queue"}
    # A reloader defines the same step again: the later one counts.
    engine.celery._tasks.pop(defined.name, None)

    @engine.celery.task(name=defined.name, bind=True, **MANNERS, **options)
    def run_step(task: Any) -> None:
        housekeeping.ensure(engine)
        address = _address(task.request)
        if address is None:
            log.error(
                "A message for %s has no %r header: nothing was run.  Await steps in a workflow.",
                task.name,
                HEADER,
            )
            return
        attempt(engine, defined, address, task.request.id)
        _drive_in_place(engine, task.request, address.run)


def _drive_in_place(engine: Engine, request: Any, run_id: str) -> None:
    """
    Take the chain's link here, which saves a hop through the broker, and drop it.

    Only where the link would have come to this very queue: another queue's workers may be the only
    ones that know the workflow.  When the turn fails, the link is left to try again.
    """
    if not engine.settings.continuation or not request.chain:
        return
    queue = request.chain[-1].get("options", {}).get("queue") or engine.celery.conf.task_default_queue
    if (request.delivery_info or {}).get("routing_key") != queue:
        return
    try:
        drive(engine, run_id)
    except Exception:
        log.exception("A turn of run %s failed in place; its link is sent.", run_id)
    else:
        request.chain = None


def _address(request: Any) -> Address | None:
    header = (request.headers or {}).get(HEADER) if request.headers else getattr(request, HEADER, None)
    match header:
        case {"run": str(run), "op": str(op), "attempt": int(number)}:
            return Address(run, op, number)
    return None


def _connect_signals(engine: Engine) -> None:
    def of_ours(sender: Any) -> bool:
        return getattr(sender, "app", engine.celery) is engine.celery

    def before_work(sender: Any = None, **_: object) -> None:
        if of_ours(sender):
            _check(engine)

    def in_child(**_: object) -> None:
        _start_housekeeping(engine)

    def ready(sender: Any = None, **_: object) -> None:
        # A prefork main process forks again at any time: no thread of ours runs in it.
        if of_ours(sender) and not _is_prefork(sender):
            _start_housekeeping(engine)

    def leaving(**_: object) -> None:
        housekeeping.end(engine)

    signals.worker_init.connect(before_work, weak=False)
    signals.worker_process_init.connect(in_child, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_process_shutdown.connect(leaving, weak=False)
    signals.worker_shutdown.connect(leaving, weak=False)


def _is_prefork(consumer: Any) -> bool:
    return type(getattr(consumer, "pool", None)).__module__ == "celery.concurrency.prefork"


def _start_housekeeping(engine: Engine) -> None:
    try:
        housekeeping.ensure(engine)
    except SQLAlchemyError as error:
        log.warning("The database is not there yet (%s); housekeeping begins with the first task.", error)


def _check(engine: Engine) -> None:
    """Stop a worker that cannot work.  Celery swallows exceptions of signal handlers, but not SystemExit."""
    try:
        if engine.broker_url() == embedded.url():
            embedded.ensure_running()
        engine.check_schema()
    except ConfigurationError as error:
        print(f"durable: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except SQLAlchemyError as error:
        log.warning("The database is not there yet (%s); starting all the same.", type(error).__name__)
    finally:
        # Children are forked next: no connection crosses.
        engine.store.close()
