"""
Durable execution for teams that already run Celery, SQL and Flask.

``import durable`` loads no other package.  Each name is loaded from its room when it is first used (PEP 562), so that
the command and a process that needs little of durable start fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import (
    AttemptLost,
    BadRequestBody,
    BodyNotLoaded,
    ConfigurationError,
    DecryptionError,
    DurableError,
    FatalError,
    ForkRefused,
    HookClosed,
    HookConflict,
    HookNotFound,
    HookPayloadError,
    LogTooLong,
    NonDeterminismError,
    NonDeterministicCall,
    NotAwaited,
    NotInDoubt,
    PayloadMissing,
    ReplyNotSent,
    RetryableError,
    RunCancelled,
    RunConflict,
    RunFailed,
    RunNotFound,
    ScheduleNotFound,
    SchemaOutOfDate,
    SerializationError,
    StepFailed,
    StepTimeout,
    TurnLost,
    TurnRefused,
    TurnTooLong,
    ValueNotPublished,
    WorkflowCodeError,
)

if TYPE_CHECKING:
    from .app import Durable
    from .calls import (
        aget_hook,
        alist_runs,
        aresume_hook,
        aset_limit,
        astart,
        astart_many,
        get_hook,
        get_run,
        list_runs,
        resume_hook,
        set_limit,
        start,
        start_many,
    )
    from .context import (
        close_stream,
        continue_as_new,
        create_hook,
        create_webhook,
        define_hook,
        emit,
        get_step_metadata,
        get_workflow_metadata,
        heartbeat,
        map,
        now,
        patched,
        publish,
        race,
        random,
        receiver,
        set_attributes,
        should_continue_as_new,
        sleep,
        step_session,
        timeout,
        uuid4,
    )
    from .http import Request, Response
    from .registry import Run, Stream, StreamItem, Value, concurrency, debounce, rate, step, workflow
    from .replay import Question
    from .schedules import acreate_schedule, aget_schedule, create_schedule, get_schedule, schedule
else:
    # A type checker does not see this, so it reports a name that does not exist.
    _ROOMS = {
        "app": ("Durable",),
        "calls": (
            "aget_hook",
            "alist_runs",
            "aresume_hook",
            "aset_limit",
            "astart",
            "astart_many",
            "get_hook",
            "get_run",
            "list_runs",
            "resume_hook",
            "set_limit",
            "start",
            "start_many",
        ),
        "context": (
            "close_stream",
            "continue_as_new",
            "create_hook",
            "create_webhook",
            "define_hook",
            "emit",
            "get_step_metadata",
            "get_workflow_metadata",
            "heartbeat",
            "map",
            "now",
            "patched",
            "publish",
            "race",
            "random",
            "receiver",
            "set_attributes",
            "should_continue_as_new",
            "sleep",
            "step_session",
            "timeout",
            "uuid4",
        ),
        "http": ("Request", "Response"),
        "registry": ("Run", "Stream", "StreamItem", "Value", "concurrency", "debounce", "rate", "step", "workflow"),
        "replay": ("Question",),
        "schedules": ("acreate_schedule", "aget_schedule", "create_schedule", "get_schedule", "schedule"),
    }
    _ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
    _PUBLIC_MODULES = ("metrics", "testing", "verify", "web")

    def __getattr__(name):
        if name in _PUBLIC_MODULES:
            return import_module(f".{name}", __name__)
        if name not in _ROOM_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_ROOM_OF[name]}", __name__), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "AttemptLost",
    "BadRequestBody",
    "BodyNotLoaded",
    "ConfigurationError",
    "DecryptionError",
    "Durable",
    "DurableError",
    "FatalError",
    "ForkRefused",
    "HookClosed",
    "HookConflict",
    "HookNotFound",
    "HookPayloadError",
    "LogTooLong",
    "NonDeterminismError",
    "NonDeterministicCall",
    "NotAwaited",
    "NotInDoubt",
    "PayloadMissing",
    "Question",
    "ReplyNotSent",
    "Request",
    "Response",
    "RetryableError",
    "Run",
    "RunCancelled",
    "RunConflict",
    "RunFailed",
    "RunNotFound",
    "ScheduleNotFound",
    "SchemaOutOfDate",
    "SerializationError",
    "StepFailed",
    "StepTimeout",
    "Stream",
    "StreamItem",
    "TurnLost",
    "TurnRefused",
    "TurnTooLong",
    "Value",
    "ValueNotPublished",
    "WorkflowCodeError",
    "acreate_schedule",
    "aget_hook",
    "aget_schedule",
    "alist_runs",
    "aresume_hook",
    "aset_limit",
    "astart",
    "astart_many",
    "close_stream",
    "concurrency",
    "continue_as_new",
    "create_hook",
    "create_schedule",
    "create_webhook",
    "debounce",
    "define_hook",
    "emit",
    "get_hook",
    "get_run",
    "get_schedule",
    "get_step_metadata",
    "get_workflow_metadata",
    "heartbeat",
    "list_runs",
    "map",
    "now",
    "patched",
    "publish",
    "race",
    "random",
    "rate",
    "receiver",
    "resume_hook",
    "schedule",
    "set_attributes",
    "set_limit",
    "should_continue_as_new",
    "sleep",
    "start",
    "start_many",
    "step",
    "step_session",
    "timeout",
    "uuid4",
    "workflow",
]
