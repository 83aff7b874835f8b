"""
The Celery tasks that a worker runs: ``durable.drive``, ``durable.wake``, ``durable.forward``, and one for each step.

Each handles a message.  If the next message of its chain would come to the same queue, it also drives the run in place.
The message of a step has the attempt's address in a header, and no arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from .. import events
from ..attempts import (
    Address,
    Finished,
    RunningAttempt,
    StepBody,
    attempt,
    go_on,
    record_in_place,
    run_claimed,
    take_over_run,
)
from ..broker import DRIVE, FORWARD, HEADER, QUEUE, WAKE, celery_internals, header_of, hops_of
from ..engine import Engine
from ..recovery import housekeeping
from ..registry import AdoptedStep, Defined, Step
from ..sandbox import log_records
from ..store import is_contention, is_unavailable, reason
from ..turns import begin_runs, conclude_waits, drive, forward_attempt, wake
from . import adopted_tasks, foreign, sentry
from .celery_outcome import raise_failure
from .in_place import base_task, continuation_of, engine_of

#: Options of our tasks only: acknowledged after the body, delivered again when the process dies in it, and without
#: results, which are in the log.
TASK_OPTIONS: dict[str, Any] = {
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


def register_turns(engine: Engine) -> None:
    """Register ``durable.drive``, ``durable.wake`` and ``durable.forward`` with the engine's app."""

    @_task(engine, DRIVE)
    def drive_run(task: Any, run_id: str) -> None:
        request = task.request
        _note_message(engine, request)
        sentry.tag(run_id)
        with _left_to_the_sweep(run_id):
            others = [other for (other,) in celery_internals.chained_args(request)]
            if _begin_in_place(engine, request, [run_id, *others]):
                return
            _take_over(engine, request, [run_id, *others])
            drive(
                engine,
                run_id,
                continuation=continuation_of(request),
                redelivered=_is_redelivered(request),
                hops=hops_of(request),
                in_batches=True,
            )

    @_task(engine, WAKE)
    def wake_run(task: Any, run_id: str, op_id: str) -> None:
        request = task.request
        continuation = continuation_of(request)
        sentry.tag(run_id)
        if continuation is not None and (due := continuation.begin_waits()):
            # This process knows these waits.  If it cannot end one like this, the wait's message does.
            conclude_waits(engine, continuation, due)
            return
        _note_message(engine, request)
        with _left_to_the_sweep(run_id):
            _take_over(engine, request, [run_id])
            if wake.fire(engine, run_id, op_id, continuation) or _is_redelivered(request):
                _drive_in_place(engine, request, run_id)
            else:
                # Another message of it, or a turn, has ended the wait.
                celery_internals.drop_chain(request)

    @_task(engine, FORWARD)
    def forward_unknown_step(task: Any, *args: object, **kwargs: object) -> None:
        """Runs for the message of a step that this worker does not know."""
        request = task.request
        celery_internals.drop_chain(request)
        address = Address.of(request)
        if address is not None:
            _note_message(engine, request)
            with _left_to_the_sweep(address.run):
                forward_attempt(engine, address.run, address.op, address.attempt, hops_of(request))


def register_step(engine: Engine, defined: Defined) -> None:
    """Register the task of a step, if *defined* is one, with the engine's app."""
    if isinstance(defined, AdoptedStep):
        adopted_tasks.install(engine, defined)
        return
    # A worker's check at its start reports a name that is taken.
    if not isinstance(defined, Step) or is_taken(engine, defined.name):
        return
    # The dispatcher puts these on the message: Celery 6 wants no queue and no priority on a task.
    options = {name: value for name, value in defined.options.items() if name not in ("queue", "priority", "argsrepr")}

    @_task(engine, defined.name, **options)
    def run_step(task: Any, *args: object, **kwargs: object) -> None:
        request = task.request
        continuation = continuation_of(request)
        concluded = None if continuation is None else partial(record_in_place, engine, continuation)
        if continuation is not None and (held := continuation.begin()) is not None:
            # The attempt was claimed here, so it has no message.
            run_id = held.run_id
            sentry.tag(run_id, task.name, held.attempt)
            finished: Finished | None = run_claimed(engine, held, _TracedBody(defined), concluded)
            if not continuation.has_turned:
                try:
                    go_on(engine, continuation, run_id)
                except Exception as error:
                    _log_failed_turn(run_id, error)
                    engine.send_turns(run_id)
        else:
            address = Address.of(request)
            if address is None:
                raise TypeError(
                    f"Step {task.name} runs as part of a workflow, and this message has no {HEADER!r} header, so"
                    " nothing was run.  Await the step in a workflow; if @app.task stands above @step, take @app.task"
                    " away."
                )
            run_id = address.run
            sentry.tag(run_id, task.name, address.attempt)
            sentry.note_retry(engine, task.name, address)
            _note_message(engine, request)
            finished = attempt(engine, defined, address, request.id, _TracedBody(defined), concluded)
            _drive_in_place(engine, request, run_id)
        if finished is not None:
            raise_failure(engine, request, run_id, finished)


class _TracedBody(StepBody):
    """The body of an attempt that a Celery task runs: Celery logs the failure with its traceback."""

    def log_failure(self, running: RunningAttempt, ended: events.AttemptEnded) -> None:
        """Log how the attempt failed, in one line."""
        if isinstance(ended, events.StepRetrying) or running.error is None or running.cancellation.given_up:
            super().log_failure(running, ended)
        else:
            held = running.held
            log.warning(
                "Step %s of run %s failed in attempt %d: %r", held.name, held.run_id, held.attempt, running.error
            )


def is_taken(engine: Engine, name: str) -> bool:
    """Whether the application has a Celery task of its own by the name of a step."""
    task = engine.celery.tasks.get(name)
    return task is not None and engine_of(task) is None


def _task(engine: Engine, name: str, **options: Any) -> Any:
    """``@app.task`` for a task of ours; it replaces the task of another engine, or of an older definition."""
    tasks = engine.celery.tasks
    if engine_of(tasks.get(name)) is not None:
        tasks.unregister(name)
    return engine.celery.task(name=name, bind=True, base=base_task(engine), **TASK_OPTIONS, **options)


def _note_message(engine: Engine, request: Any) -> None:
    """
    Start this process's heartbeats, if they have not begun, and record that it has taken the message.

    Raises:
        Reject: The message is of another installation.
    """
    housekeeping.ensure(engine)
    foreign.give_back(engine, request)
    engine.progress.note(request)


def _is_redelivered(request: Any) -> bool:
    """Whether the broker has delivered the message before: the process that had it may have died of it."""
    return bool((request.delivery_info or {}).get("redelivered"))


@contextmanager
def _left_to_the_sweep(run_id: str) -> Iterator[None]:
    """Ignore that the database cannot be used now: it has a record of the work, and the sweep sends it again."""
    try:
        yield
    except SQLAlchemyError as error:
        if not is_unavailable(error):
            raise
        log.warning("The database cannot be used now (%s): run %s is driven later.", reason(error), run_id)


def _take_over(engine: Engine, request: Any, run_ids: Sequence[str]) -> None:
    """Give up what a process that had the message may have died in: steps that it ran after the turns of these runs."""
    if _is_redelivered(request):
        for run_id in run_ids:
            take_over_run(engine, run_id)


def _begin_in_place(engine: Engine, request: Any, run_ids: Sequence[str]) -> bool:
    """
    Take the first turns of all runs whose message this is; False where it is that of one run.

    One that was delivered again may have a run whose code kills the process: those come one after the other.
    """
    continuation = continuation_of(request)
    if len(run_ids) == 1 or continuation is None or _is_redelivered(request):
        return False
    begin_runs(engine, continuation, run_ids)
    celery_internals.drop_chain(request)
    return True


def _drive_in_place(engine: Engine, request: Any, run_id: str) -> None:
    """
    Drive the run here instead of sending the next message of the chain, which saves a trip through the broker.

    This happens only if that message would have come to the same queue: the workers of another queue may be the only
    ones that have the workflow.  If the turn fails, the message is sent.
    """
    continuation = continuation_of(request)
    if continuation is not None and continuation.has_turned:
        celery_internals.drop_chain(request)
        return
    headers = celery_internals.next_in_chain(request)
    if headers is None or continuation is None:
        return
    if headers.get(HEADER, {}).get(QUEUE) != header_of(request).get(QUEUE):
        return
    try:
        go_on(engine, continuation, run_id, redelivered=_is_redelivered(request))
    except Exception as error:
        _log_failed_turn(run_id, error)
    else:
        celery_internals.drop_chain(request)


def _log_failed_turn(run_id: str, error: Exception) -> None:
    """Log why a turn failed in place: trouble of the database in one line, anything else with its traceback."""
    if is_contention(error):
        log.warning("The database has undone a turn of run %s (%s): a message drives it.", run_id, reason(error))
    elif is_unavailable(error):
        log.warning("The database cannot be used now (%s): run %s is driven by a message.", reason(error), run_id)
    else:
        log.error("A turn of run %s failed in place; its message is sent.", run_id, exc_info=error)
