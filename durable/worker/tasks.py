"""
Celery's view of durable: the tasks ``durable.drive`` and ``durable.wake``, and one task per step.

Only these tasks get our options.  The message of a step carries its address in
a header and no arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from billiard.process import current_process
from celery import Celery, signals
from sqlalchemy.exc import SQLAlchemyError

from .. import current, registry
from ..attempts import Address, Body, attempt, outcome, run_claimed, take_over_run
from ..broker import DRIVE, HEADER, QUEUE, WAKE, embedded, header_of, publisher
from ..engine import Engine
from ..errors import ConfigurationError
from ..recovery import housekeeping
from ..registry import AdoptedStep, Defined, Step
from ..sandbox import log_records
from ..store import reason, is_unavailable
from ..turns import Continuation, conclude, drive, take_in, wake
from . import adopted_tasks, versions
from .child_watch import ChildWatch
from .in_place import carrier_of, continuation_of, engine_of

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

log = log_records.get("durable.tasks")


def install(engine: Engine) -> None:
    """Register our tasks with the engine's Celery app, once Celery has made its own, and for steps defined later."""
    app = engine.celery

    def on_finalized(**_: object) -> None:
        _serve(engine)

    def on_defined(defined: Defined) -> None:
        if _served_by(app) is engine:
            _install_step(engine, defined)

    engine.on_close(partial(_hand_over, engine))
    engine.on_close(registry.subscribe(on_defined))
    if app.finalized:
        _serve(engine)
    else:
        # Until then an app keeps the first task of a name, and nothing takes it away.
        app.on_after_finalize.connect(on_finalized, weak=False)
        engine.on_close(partial(app.on_after_finalize.disconnect, on_finalized))
    _connect_signals(engine)
    engine.on_impossible = partial(outcome.fail_unsendable, engine)
    versions.install()


def _serve(engine: Engine) -> None:
    """Make our tasks of the engine's app run for this engine, in place of another engine of the same app."""
    _install_turns(engine)
    for defined in registry.all_definitions():
        try:
            _install_step(engine, defined)
        except ConfigurationError as error:
            log.error("%s", error)  # the check at a worker's start raises it


def _served_by(app: Celery) -> Engine | None:
    """The engine that our tasks of the app run for; None before Celery has made them."""
    return engine_of(app.tasks.get(DRIVE)) if app.finalized else None


def _hand_over(engine: Engine) -> None:
    """When an engine is closed: serve the one that was made before it for the same app."""
    if _served_by(engine.celery) is not engine:
        return
    adopted_tasks.remove(engine)
    others = [each for each in current.engines() if each.celery is engine.celery]
    if others:
        _serve(others[-1])


def _task(engine: Engine, name: str, **options: Any) -> Any:
    """``@app.task`` for a task of ours, in place of the one of another engine, or of an older definition."""
    tasks = engine.celery.tasks
    if engine_of(tasks.get(name)) is not None:
        tasks.unregister(name)
    base = carrier_of(engine, engine.celery.Task)
    return engine.celery.task(name=name, bind=True, base=base, **MANNERS, **options)


def _install_turns(engine: Engine) -> None:
    @_task(engine, DRIVE)
    def drive_run(task: Any, run_id: str) -> None:
        _begin(engine, task.request)
        with _left_to_the_sweep(run_id):
            _take_over(engine, task.request, run_id)
            drive(engine, run_id, continuation=continuation_of(task.request), redelivered=_is_redelivered(task.request))

    @_task(engine, WAKE)
    def wake_run(task: Any, run_id: str, op_id: str) -> None:
        _begin(engine, task.request)
        with _left_to_the_sweep(run_id):
            _take_over(engine, task.request, run_id)
            wake.fire(engine, run_id, op_id)
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
        if not is_unavailable(error):
            raise
        log.warning("The database cannot be used now (%s): run %s is driven later.", reason(error), run_id)


def _install_step(engine: Engine, defined: Defined) -> None:
    if isinstance(defined, AdoptedStep):
        adopted_tasks.install(engine, defined)
    elif isinstance(defined, Step):
        _install_task(engine, defined)


def _install_task(engine: Engine, defined: Step[..., Any]) -> None:
    # Celery 6 wants no queue and no priority on a task: dispatch puts them on the message.
    options = {name: value for name, value in defined.options.items() if name not in ("queue", "priority")}
    if _is_taken(engine, defined.name):
        return  # the check at a worker's start tells

    @_task(engine, defined.name, **options)
    def run_step(task: Any, *args: object, **kwargs: object) -> None:
        continuation = continuation_of(task.request)
        concluded = None if continuation is None else partial(conclude, engine, continuation)
        if continuation is not None and (held := continuation.begin()) is not None:
            run_claimed(engine, held, Body(defined), concluded)
            _drive_linkless(engine, held.run_id, continuation)
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


def _is_taken(engine: Engine, name: str) -> bool:
    """Whether the application has a Celery task of its own by the name of a step."""
    task = engine.celery.tasks.get(name)
    return task is not None and engine_of(task) is None


def _drive_in_place(engine: Engine, request: Any, run_id: str, *, has_ended: bool = False) -> None:
    """
    Take the chain's link here, which saves a hop through the broker, and drop it.

    Only where the link would have come to this very queue: another queue's workers may be the only
    ones that know the workflow.  When the turn fails, the link is left to try again.

    Args:
        has_ended: An attempt has, whose outcome may wait for others'.
    """
    continuation = continuation_of(request)
    if continuation is not None and continuation.has_turned:
        request.chain = None
        return
    if not engine.settings.continuation or not request.chain:
        return
    link = request.chain[-1].get("options", {}).get("headers", {}).get(HEADER, {})
    if link.get(QUEUE) != header_of(request).get(QUEUE):
        return
    try:
        act = take_in if has_ended else drive
        act(engine, run_id, continuation=continuation, redelivered=_is_redelivered(request))
    except Exception:
        log.exception("A turn of run %s failed in place; its link is sent.", run_id)
    else:
        request.chain = None


def _drive_linkless(engine: Engine, run_id: str, continuation: Continuation) -> None:
    """The turn after an attempt that no message carried, unless it was taken with its outcome."""
    if continuation.has_turned:
        return
    try:
        take_in(engine, run_id, continuation=continuation)
    except Exception:
        log.exception("A turn of run %s failed in place; its message is sent.", run_id)
        engine.wake(run_id)


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

    children = ChildWatch()

    def ready(sender: Any = None, **_: object) -> None:
        if not of_ours(sender):
            return
        # A prefork main process forks again at any time: no thread of ours runs in it.
        if _is_prefork(sender):
            children.watch(sender)
        else:
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
    if _served_by(engine.celery) not in (None, engine):
        return  # another engine of this app does it
    try:
        housekeeping.ensure(engine)
    except SQLAlchemyError as error:
        log.warning("The database is not there yet (%s); housekeeping begins with the first task.", error)


def _check(engine: Engine) -> None:
    """Stop a worker that cannot work.  Celery swallows exceptions of signal handlers, but not SystemExit."""
    try:
        if engine.broker_url() == embedded.url():
            embedded.ensure_running()
        publisher.check_worker(engine.celery)
        adopted_tasks.check(engine)
        _check_names(engine)
        _check_is_served(engine)
        engine.check_schema()
    except ConfigurationError as error:
        print(f"durable: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except SQLAlchemyError as error:
        log.warning("The database is not there yet (%s); starting all the same.", type(error).__name__)
    finally:
        # Children are forked next: no connection crosses.
        engine.store.close()


def _check_names(engine: Engine) -> None:
    """Refuse a Celery task of the application that has a step's name: the step's messages would run it."""
    for defined in registry.steps.values():
        if not isinstance(defined, AdoptedStep) and _is_taken(engine, defined.name):
            raise ConfigurationError(
                f"A Celery task of the app {engine.celery.main!r} and the step at {defined.place} are both named"
                f" {defined.name!r}.  If @app.task stands above @step, take @app.task away.  Otherwise give one"
                " of them another name with name=...."
            )


def _check_is_served(engine: Engine) -> None:
    """Refuse a second engine of the app with another database: this worker would leave the runs of one pending."""
    served = _served_by(engine.celery) or engine
    if served.store.url != engine.store.url:
        first, last = (each.store.url.render_as_string() for each in (engine, served))
        raise ConfigurationError(
            f"Two engines exist for the Celery app {engine.celery.main!r}, one with the database {first}, a later one"
            f" with {last}.  A worker serves one engine: runs in {first} would stay pending.  Make one"
            " engine per Celery app, or close() the one that you don't need."
        )
