"""
Running tasks in place: after the task of a message, the worker runs the tasks of steps that it has claimed, and ends
waits that it knows.

Each of these tasks goes through its own tracer with its own request, one after the other and never one inside another.
So its signals, log lines and task events are those of a task that came in a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

# The function itself: the guards of workflow code put a slower one into the module.
from time import monotonic
from typing import Any
from uuid import uuid4

from celery import Task
from sqlalchemy.exc import SQLAlchemyError

from ..attempts import record_gathered, release
from ..broker import HEADER, OFFERS, QUEUE, WAKE, celery_internals
from ..engine import Engine, KnownWait
from ..sandbox import log_records
from ..store import Claim, reason
from ..turns import Continuation

#: How long attempts that were claimed together wait for each other.
READY_SECS = 0.05
#: How long a finished attempt may wait for another one that takes long, until its outcome is recorded.
GATHERED_SECS = 0.02

#: The key of a Celery request that holds its ``Continuation``.
_CONTINUATION = "durable_continuation"

log = log_records.get("durable.tasks")


def continuation_of(request: Any) -> Continuation | None:
    """The continuation of a Celery request; None where the worker stops after its message."""
    return getattr(request, _CONTINUATION, None)


def engine_of(task: Any) -> Engine | None:
    """The engine that a Celery task of ours runs for; None for another task."""
    return getattr(task, "durable_engine", None)


def base_task(engine: Engine) -> type[Task]:
    """The base class of our tasks: after one has run, the worker continues with its run."""
    base = celery_internals.traced_task(engine.celery, partial(_run_message, engine))
    base.durable_engine = engine
    return base


def _run_message(
    engine: Engine, tracer: celery_internals.Tracer, uuid: str, args: Any, kwargs: Any, request: Any = None
) -> Any:
    """Run the task of a message, and then each attempt that was claimed here."""
    request = request or {}
    header = request.get(HEADER) or (request.get("headers") or {}).get(HEADER)
    # The queue as the sender wrote it: the routing key may be another word.
    header = header if isinstance(header, Mapping) else {}
    queue = header.get(QUEUE)
    if not engine.settings.continuation or not queue or not isinstance(queue, str):
        return tracer(uuid, args, kwargs, request)
    continuation = Continuation(engine, queue, has_offers=bool(header.get(OFFERS)), in_batches=True)
    try:
        result = tracer(uuid, args, kwargs, {**request, _CONTINUATION: continuation})
        _release_later(engine, continuation)
        while True:
            if (held := continuation.next or continuation.take_ready()) is not None:
                if continuation.records_before(held):
                    _record_gathered(engine, continuation)
                _run_attempt(engine, held, continuation, request)
                if continuation.next is held:
                    break  # its task did not begin it
            elif continuation.gathered:
                _record_gathered(engine, continuation)
            elif due := continuation.take_due_waits():
                _end_waits(engine, due[0], continuation, request)
            else:
                break
    finally:
        record_gathered(engine, continuation)
        engine.later.cancel((_record_gathered, id(continuation)))
        if continuation.next is not None:
            held, continuation.next = continuation.next, None
            log.warning("Step %s of run %s did not begin here; its message is sent.", held.name, held.run_id)
            _release(engine, held)
        _release_ready(engine, continuation)
    return result


def _run_attempt(engine: Engine, held: Claim, continuation: Continuation, message: Mapping[str, Any]) -> None:
    """Run the task of an attempt that was claimed here, as a worker does for a message."""
    uuid = f"{held.run_id}:{held.op_id}:{held.attempt}"[:255]
    shown = {"argsrepr": "()", "kwargsrepr": "{}"}
    if engine.sends_task_events:
        shown = engine.dispatch.shown_arguments(held.name, held.args)
    fields = {
        **shown,
        "retries": held.attempt - 1,
        "headers": {HEADER: {"run": held.run_id, "op": held.op_id, "attempt": held.attempt}},
        # Where Celery's instrumentation finds the parent of its span of the task.
        **engine.tracing.headers(held.run_id, held.trace_context),
    }
    began = monotonic()
    _run_task(engine, held.name, uuid, (), fields, continuation, message)
    engine.quick_steps.note(held.name, monotonic() - began)
    if len(continuation.gathered) == 1:
        # The next attempt may take long, though such steps were quick before.
        record = partial(_record_gathered, engine, continuation)
        engine.later.call((_record_gathered, id(continuation)), GATHERED_SECS, record)


def _end_waits(engine: Engine, first: KnownWait, continuation: Continuation, message: Mapping[str, Any]) -> None:
    """Run the task that ends waits which this process knows, as a worker does for the message of the *first*."""
    args = (first.run_id, first.op_id)
    shown = {"argsrepr": repr(args), "kwargsrepr": "{}"}
    _run_task(engine, WAKE, uuid4().hex, args, {**shown, "retries": 0}, continuation, message)
    _release_later(engine, continuation)


def _run_task(
    engine: Engine,
    name: str,
    uuid: str,
    args: tuple[str, ...],
    fields: Mapping[str, Any],
    continuation: Continuation,
    message: Mapping[str, Any],
) -> None:
    """Run a task through its tracer; *fields* are its request's own ones, and others come from the message."""
    request = {
        "id": uuid,
        "task": name,
        "correlation_id": uuid,
        "parent_id": message.get("id"),
        "root_id": message.get("root_id"),
        "hostname": message.get("hostname"),
        "args": args,
        "kwargs": {},
        "delivery_info": {**message.get("delivery_info", {}), "redelivered": False},
        "is_eager": False,
        "ignore_result": True,
        "lang": "py",
        "timelimit": [None, None],
        _CONTINUATION: continuation,
        **fields,
    }
    if engine.sends_task_events:
        _send_event(
            engine,
            message,
            "task-received",
            uuid=uuid,
            name=name,
            args=fields["argsrepr"],
            kwargs=fields["kwargsrepr"],
            retries=0,
        )
        _send_event(engine, message, "task-started", uuid=uuid)
    tracer = celery_internals.tracer_of(engine.celery.tasks[name], message.get("hostname"))
    event = celery_internals.event_of(tracer(uuid, args, {}, request))
    if engine.sends_task_events and event is not None:
        kind, own = event
        _send_event(engine, message, kind, uuid=uuid, **own)


def _record_gathered(engine: Engine, continuation: Continuation) -> None:
    """Record what was gathered, and have what was claimed with it released in a moment."""
    record_gathered(engine, continuation)
    _release_later(engine, continuation)


def _release_later(engine: Engine, continuation: Continuation) -> None:
    """Have the attempts that were claimed together released in a moment, since one of them may take long."""
    if continuation.ready:
        release = partial(_release_ready, engine, continuation)
        engine.later.call((_release_ready, id(continuation)), READY_SECS, release)


def _release_ready(engine: Engine, continuation: Continuation) -> None:
    """Release the attempts that were claimed together and have not begun: another process may be idle."""
    while True:
        try:
            held = continuation.ready.popleft()
        except IndexError:
            break
        _release(engine, held)
    engine.later.cancel((_release_ready, id(continuation)))


def _release(engine: Engine, held: Claim) -> None:
    """Release an attempt that was claimed and has not begun, and have housekeeping send its message now."""
    engine.running.discard(held.claim)
    try:
        release(engine, held, has_begun=False)
    except SQLAlchemyError as error:
        # Housekeeping gives up what is claimed here and not run.
        log.warning("Step %s of run %s could not be released: %s", held.name, held.run_id, reason(error))
        return
    if engine.on_due is not None:
        engine.on_due(engine.now())


def _send_event(engine: Engine, message: Mapping[str, Any], kind: str, **fields: Any) -> None:
    try:
        with engine.celery.events.default_dispatcher(hostname=message.get("hostname")) as dispatcher:
            dispatcher.send(kind, **fields)
    except Exception as error:
        log.warning("The task event %s could not be sent: %r", kind, error)
