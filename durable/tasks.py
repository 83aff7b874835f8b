"""
Celery's view of durable: the tasks ``durable.drive`` and ``durable.wake``, and one task per step.

Only these tasks get our options.  The message of a step carries its address in
a header and no arguments.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from billiard.process import current_process
from celery import signals
from sqlalchemy.exc import SQLAlchemyError

from . import alarms, carrying, embedded, health, housekeeping, outcomes, publish, registry
from .claiming import Address, take_over_run
from .continuation import Journey
from .dispatch import DRIVE, WAKE
from .drive import conclude, drive, send_drive, take_in
from .engine import Engine
from .errors import ConfigurationError
from .progress import HEADER, QUEUE, header_of
from .registry import AdoptedStep, Step, Workflow
from .steps import Body, attempt, run_claimed
from .store import reason, unreachable
from .trampoline import journey_of, travelling

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
    engine.on_impossible = partial(outcomes.fail_unsendable, engine)
    health.install()


def _install_turns(engine: Engine) -> None:
    # A second engine of the same app takes the first one's place.
    for name in (DRIVE, WAKE):
        engine.celery._tasks.pop(name, None)

    @engine.celery.task(name=DRIVE, bind=True, base=travelling(engine, engine.celery.Task), **MANNERS)
    def drive_run(task: Any, run_id: str) -> None:
        _begin(engine, task.request)
        with _left_to_the_sweep(run_id):
            _take_over(engine, task.request, run_id)
            drive(engine, run_id, journey=journey_of(task.request), redelivered=_is_redelivered(task.request))

    @engine.celery.task(name=WAKE, bind=True, base=travelling(engine, engine.celery.Task), **MANNERS)
    def wake_run(task: Any, run_id: str, op_id: str) -> None:
        _begin(engine, task.request)
        with _left_to_the_sweep(run_id):
            _take_over(engine, task.request, run_id)
            alarms.ring(engine, run_id, op_id)
            _drive_in_place(engine, task.request, run_id)


def _begin(engine: Engine, request: Any) -> None:
    """A message was taken: by a process that beats, and which notes how far it has come."""
    housekeeping.ensure(engine)
    engine.progress.note(request)


def _take_over(engine: Engine, request: Any, run_id: str) -> None:
    """A message that came again: whoever had it may have died in a step that it had gone on to."""
    if _is_redelivered(request):
        take_over_run(engine, run_id)


def _is_redelivered(request: Any) -> bool:
    """Whether the broker delivered the message before: whoever had it may have died of it."""
    return bool((request.delivery_info or {}).get("redelivered"))


@contextmanager
def _left_to_the_sweep(run_id: str) -> Iterator[None]:
    """A database that cannot be used now is no error of a turn: what it was about is still there, and overdue soon."""
    try:
        yield
    except SQLAlchemyError as error:
        if not unreachable(error):
            raise
        log.warning("The database cannot be used now (%s): run %s is driven later.", reason(error), run_id)


def _install_step(engine: Engine, defined: Step[..., Any] | Workflow[..., Any]) -> None:
    if isinstance(defined, AdoptedStep):
        carrying.install(engine, defined)
    elif isinstance(defined, Step):
        _install_task(engine, defined)


def _install_task(engine: Engine, defined: Step[..., Any]) -> None:
    # Celery 6 wants no queue and no priority on a task: dispatch puts them on the message.
    options = {name: value for name, value in defined.options.items() if name not in ("queue", "priority")}
    # A reloader defines the same step again: the later one counts.
    engine.celery._tasks.pop(defined.name, None)

    @engine.celery.task(name=defined.name, bind=True, base=travelling(engine, engine.celery.Task), **MANNERS, **options)
    def run_step(task: Any, *args: object, **kwargs: object) -> None:
        journey = journey_of(task.request)
        concluded = None if journey is None else partial(conclude, engine, journey)
        if journey is not None and (held := journey.begin()) is not None:
            run_claimed(engine, held, Body(defined), concluded)
            _drive_linkless(engine, held.run_id, journey)
            return
        address = Address.of(task.request)
        if address is None:
            raise TypeError(
                f"Step {task.name} runs as part of a workflow, and this message has no {HEADER!r} header:"
                " nothing was run.  Await it in a workflow; if @app.task stands above @step, take that away."
            )
        _begin(engine, task.request)
        has_ended = attempt(engine, defined, address, task.request.id, conclude=concluded)
        _drive_in_place(engine, task.request, address.run, has_ended=has_ended)


def _drive_in_place(engine: Engine, request: Any, run_id: str, *, has_ended: bool = False) -> None:
    """
    Take the chain's link here, which saves a hop through the broker, and drop it.

    Only where the link would have come to this very queue: another queue's workers may be the only
    ones that know the workflow.  When the turn fails, the link is left to try again.

    Args:
        has_ended: An attempt has, whose outcome may wait for others'.
    """
    journey = journey_of(request)
    if journey is not None and journey.has_turned:
        request.chain = None
        return
    if not engine.settings.continuation or not request.chain:
        return
    link = request.chain[-1].get("options", {}).get("headers", {}).get(HEADER, {})
    if link.get(QUEUE) != header_of(request).get(QUEUE):
        return
    try:
        act = take_in if has_ended else drive
        act(engine, run_id, journey=journey, redelivered=_is_redelivered(request))
    except Exception:
        log.exception("A turn of run %s failed in place; its link is sent.", run_id)
    else:
        request.chain = None


def _drive_linkless(engine: Engine, run_id: str, journey: Journey) -> None:
    """The turn after an attempt that no message carried, unless it was taken with its outcome."""
    if journey.has_turned:
        return
    try:
        take_in(engine, run_id, journey=journey)
    except Exception:
        log.exception("A turn of run %s failed in place; its message is sent.", run_id)
        send_drive(engine, run_id)


def _connect_signals(engine: Engine) -> None:
    def of_ours(sender: Any) -> bool:
        return getattr(sender, "app", engine.celery) is engine.celery

    def before_work(sender: Any = None, **_: object) -> None:
        if of_ours(sender):
            engine.sends_task_events = bool(getattr(sender, "task_events", False))
            _check(engine)

    def in_child(**_: object) -> None:
        # The solo pool's only process says this too.
        engine.expendable = current_process().name != "MainProcess"
        _start_housekeeping(engine)

    def ready(sender: Any = None, **_: object) -> None:
        # A prefork main process forks again at any time: no thread of ours runs in it.
        if of_ours(sender) and not _is_prefork(sender):
            _start_housekeeping(engine)

    def leaving(**_: object) -> None:
        engine.fan_in.close()
        housekeeping.end(engine)

    for signal, handle in (
        (signals.worker_init, before_work),
        (signals.worker_process_init, in_child),
        (signals.worker_ready, ready),
        (signals.worker_process_shutdown, leaving),
        (signals.worker_shutdown, leaving),
    ):
        signal.connect(handle, weak=False)
        engine.on_close(partial(signal.disconnect, handle))


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
        publish.check_worker(engine.celery)
        carrying.check(engine)
        engine.check_schema()
    except ConfigurationError as error:
        print(f"durable: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except SQLAlchemyError as error:
        log.warning("The database is not there yet (%s); starting all the same.", type(error).__name__)
    finally:
        # Children are forked next: no connection crosses.
        engine.store.close()
