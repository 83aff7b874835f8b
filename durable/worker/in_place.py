"""
Celery's part of a continuation: one message's task is traced, then the task of each step that is run after it.

Each of them goes through its own tracer, with a request of its own, one after the other and none within another: its
signals, log lines and, where the worker sends them, its task events are those of a task that came by a message.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from celery import Task
from celery.app.trace import build_tracer
from celery.backends.base import DisabledBackend
from sqlalchemy.exc import SQLAlchemyError

from ..attempts import release
from ..broker import HEADER, QUEUE
from ..engine import Engine
from ..sandbox import log_records
from ..store import Claim, reason
from ..turns import Continuation

#: The attribute of a request that says how far its message takes the worker.
_CONTINUATION = "durable_journey"

log = log_records.get("durable.tasks")

Tracer = Callable[..., Any]


def continuation_of(request: Any) -> Continuation | None:
    """How far the message behind a Celery request takes its worker, None where it goes no further."""
    return getattr(request, _CONTINUATION, None)


def engine_of(task: Any) -> Engine | None:
    """The engine that a Celery task of ours runs for; None for another task."""
    return getattr(task, "durable_engine", None)


def carrier_of(engine: Engine, base: type[Task] = Task) -> type[Task]:
    """A base class for our tasks: whoever runs one goes on with its run."""

    class Carrier(base):  # type: ignore[misc]
        abstract = True
        durable_engine = engine
        tracer: Tracer | None = None

        @functools.cached_property
        def backend(self) -> DisabledBackend:
            """None: results are the log's.  The application's would be made once for each thread that sends."""
            return DisabledBackend(app=engine.celery)

        @property
        def __trace__(self) -> Tracer | None:
            """What a worker calls for a message."""
            return self.tracer and functools.partial(_carry_on, engine, self.tracer)

        @__trace__.setter
        def __trace__(self, tracer: Tracer | None) -> None:
            self.tracer = tracer

    return Carrier


def _carry_on(engine: Engine, tracer: Tracer, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
    queue = _queue_of(request or {})
    if not engine.settings.continuation or not queue:
        return tracer(uuid, args, kwargs, request)
    continuation = Continuation(engine, queue)
    try:
        told = tracer(uuid, args, kwargs, {**request, _CONTINUATION: continuation})
        while (held := continuation.next) is not None:
            _run(engine, held, continuation, request)
    finally:
        _leave(engine, continuation)
    return told


def _queue_of(request: Mapping[str, Any]) -> str | None:
    """The queue that the message came from, which its sender has noted; its routing key may be another word."""
    header = request.get(HEADER) or (request.get("headers") or {}).get(HEADER) or {}
    found = header.get(QUEUE) if isinstance(header, Mapping) else None
    return found if isinstance(found, str) else None


def _run(engine: Engine, held: Claim, continuation: Continuation, carrying: Mapping[str, Any]) -> None:
    """Run the task of an attempt that was claimed here, as for a message."""
    task = engine.celery.tasks[held.name]
    request = _request(held, carrying) | {_CONTINUATION: continuation}
    uuid, began = request["id"], time.monotonic()
    if engine.sends_task_events:
        _tell(engine, carrying, "task-received", uuid=uuid, name=held.name, args="()", kwargs="{}", retries=0)
        _tell(engine, carrying, "task-started", uuid=uuid)
    _tracer_of(task, carrying)(uuid, (), {}, request)
    _leave(engine, continuation, held)
    if engine.sends_task_events:
        _tell(engine, carrying, "task-succeeded", uuid=uuid, result="None", runtime=time.monotonic() - began)


def _request(held: Claim, carrying: Mapping[str, Any]) -> dict[str, Any]:
    uuid = f"{held.run_id}:{held.op_id}:{held.attempt}"[:255]
    info = {**carrying.get("delivery_info", {}), "redelivered": False}
    own: dict[str, Any] = {
        "id": uuid,
        "task": held.name,
        "correlation_id": uuid,
        "parent_id": carrying.get("id"),
        "args": (),
        "kwargs": {},
    }
    own |= {"retries": held.attempt - 1, "argsrepr": "()", "kwargsrepr": "{}", "delivery_info": info, "is_eager": False}
    own |= {"root_id": carrying.get("root_id"), "hostname": carrying.get("hostname"), "ignore_result": True}
    header = {"run": held.run_id, "op": held.op_id, "attempt": held.attempt}
    return own | {"lang": "py", "headers": {HEADER: header}, "timelimit": [None, None]}


def _tracer_of(task: Any, carrying: Mapping[str, Any]) -> Tracer:
    if task.tracer is None:
        # A step that was defined after the worker had begun.
        task.tracer = build_tracer(task.name, task, hostname=carrying.get("hostname"), app=task.app)
    return task.tracer  # type: ignore[no-any-return]


def _leave(engine: Engine, continuation: Continuation, held: Claim | None = None) -> None:
    """Hand back what was claimed and not begun: the journey was broken off (by a signal's receiver, by a shutdown)."""
    left = continuation.next
    if left is None or (held is not None and left is not held):
        return
    continuation.next = None
    log.warning("Step %s of run %s was not begun here; its message is sent.", left.name, left.run_id)
    engine.running.discard(left.claim)
    try:
        release(engine, left, has_begun=False)
    except SQLAlchemyError as error:
        # Housekeeping gives up what is claimed here and not run.
        log.warning("Step %s of run %s could not be handed back: %s", left.name, left.run_id, reason(error))


def _tell(engine: Engine, carrying: Mapping[str, Any], kind: str, **fields: Any) -> None:
    try:
        with engine.celery.events.default_dispatcher(hostname=carrying.get("hostname")) as dispatcher:
            dispatcher.send(kind, **fields)
    except Exception as error:
        log.warning("An event (%s) could not be sent: %r", kind, error)
