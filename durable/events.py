"""
The events of a run's log: one frozen dataclass for each kind.

The log of a run is its events, numbered by ``seq`` from 1 without gaps.  Each has the database's time ``at``, in
microseconds since 1970 UTC.  Events of an operation carry its ``op_id`` (task path and ordinal, ``r.1#3``); events of
the run itself carry ``op_id = "r"``.

An event with a ``phase`` occurs once for each operation, because a unique index of the store holds the phase: an
operation is created once and ends once.  Kinds that may repeat have the phase None.

Encoded values (arguments, results, errors, payloads) are text here; they are decoded where they are used.  Each kind
has at most one, in the field that ``value_field`` names.  The store keeps it in a column of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar

#: The operation id of the run itself.
ROOT = "r"


class Phase(StrEnum):
    """What an event does to its operation, as it is recorded."""

    CREATED = "created"
    ENDED = "ended"


class EventKind(StrEnum):
    """The kinds of events, as they are recorded."""

    RUN_CREATED = "run_created"
    RUN_STARTED = "run_started"
    RUN_COMPLETED = "run_completed"
    RUN_FAILED = "run_failed"
    RUN_CANCEL_REQUESTED = "run_cancel_requested"
    RUN_CANCELLED = "run_cancelled"
    STEP_CREATED = "step_created"
    STEP_RETRYING = "step_retrying"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_CANCELLED = "step_cancelled"
    WAIT_CREATED = "wait_created"
    WAIT_COMPLETED = "wait_completed"
    WAIT_CANCELLED = "wait_cancelled"
    HOOK_CREATED = "hook_created"
    HOOK_CONFLICTED = "hook_conflicted"
    HOOK_RECEIVED = "hook_received"
    HOOK_CLOSED = "hook_closed"
    CHILD_CREATED = "child_created"
    CHILD_COMPLETED = "child_completed"
    CHILD_FAILED = "child_failed"
    CHILD_CANCELLED = "child_cancelled"
    MARKER_RECORDED = "marker_recorded"
    ATTRIBUTES_SET = "attributes_set"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """The base of all events.  ``seq`` is 0 until a turn gives the event its place in the log."""

    kind: ClassVar[EventKind]
    phase: ClassVar[Phase | None] = None
    value_field: ClassVar[str | None] = None

    at: int
    seq: int = 0
    op_id: str = ROOT


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCreated(Event):
    """The run was started.  ``args`` is the encoded object of arguments by parameter name."""

    kind: ClassVar[EventKind] = EventKind.RUN_CREATED
    phase: ClassVar[Phase | None] = Phase.CREATED
    value_field: ClassVar[str | None] = "args"
    name: str
    args: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted(Event):
    """
    The first turn of the run began; the run's clock starts at ``at``.

    ``public_url`` is recorded so that a webhook's URL is the same on every replay, even after the setting changes.
    """

    kind: ClassVar[EventKind] = EventKind.RUN_STARTED
    public_url: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCompleted(Event):
    """The workflow returned."""

    kind: ClassVar[EventKind] = EventKind.RUN_COMPLETED
    phase: ClassVar[Phase | None] = Phase.ENDED
    value_field: ClassVar[str | None] = "result"
    result: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFailedEvent(Event):
    """The workflow raised."""

    kind: ClassVar[EventKind] = EventKind.RUN_FAILED
    phase: ClassVar[Phase | None] = Phase.ENDED
    value_field: ClassVar[str | None] = "error"
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCancelRequested(Event):
    """``cancel`` was called: the workflow's next await raises CancelledError."""

    kind: ClassVar[EventKind] = EventKind.RUN_CANCEL_REQUESTED
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCancelledEvent(Event):
    """The run ended after a cancel.  ``error`` is what the workflow raised instead of CancelledError, if anything."""

    kind: ClassVar[EventKind] = EventKind.RUN_CANCELLED
    phase: ClassVar[Phase | None] = Phase.ENDED
    value_field: ClassVar[str | None] = "error"
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCreated(Event):
    """The workflow called a step."""

    kind: ClassVar[EventKind] = EventKind.STEP_CREATED
    phase: ClassVar[Phase | None] = Phase.CREATED
    value_field: ClassVar[str | None] = "args"
    name: str
    digest: str
    args: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnded(Event):
    """
    The base of the events that end an attempt.

    ``started_at`` is when the attempt started, ``worker`` its process (``host:pid``), ``responded`` the ids of the
    requests that it answered.
    """

    attempt: int
    started_at: int | None = None
    worker: str | None = None
    responded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRetrying(AttemptEnded):
    """An attempt failed; the next may start at ``due_at``."""

    kind: ClassVar[EventKind] = EventKind.STEP_RETRYING
    value_field: ClassVar[str | None] = "error"
    error: str
    due_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCompleted(AttemptEnded):
    """An attempt returned."""

    kind: ClassVar[EventKind] = EventKind.STEP_COMPLETED
    phase: ClassVar[Phase | None] = Phase.ENDED
    value_field: ClassVar[str | None] = "result"
    result: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFailedEvent(AttemptEnded):
    """The step failed: its last attempt failed, or one that is not retried."""

    kind: ClassVar[EventKind] = EventKind.STEP_FAILED
    phase: ClassVar[Phase | None] = Phase.ENDED
    value_field: ClassVar[str | None] = "error"
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCancelled(Event):
    """The workflow no longer waits for the step: the call lost a race, or its task was cancelled."""

    kind: ClassVar[EventKind] = EventKind.STEP_CANCELLED
    phase: ClassVar[Phase | None] = Phase.ENDED


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitCreated(Event):
    """The workflow sleeps until ``due_at``."""

    kind: ClassVar[EventKind] = EventKind.WAIT_CREATED
    phase: ClassVar[Phase | None] = Phase.CREATED
    digest: str
    due_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitCompleted(Event):
    """A sleep is over because its time came, or early by ``wake_up``."""

    kind: ClassVar[EventKind] = EventKind.WAIT_COMPLETED
    phase: ClassVar[Phase | None] = Phase.ENDED
    early: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitCancelled(Event):
    """The workflow no longer waits for the sleep."""

    kind: ClassVar[EventKind] = EventKind.WAIT_CANCELLED
    phase: ClassVar[Phase | None] = Phase.ENDED


@dataclass(frozen=True, kw_only=True, slots=True)
class HookCreated(Event):
    """The run holds the hook's token: the one that the workflow asked for, or a random one."""

    kind: ClassVar[EventKind] = EventKind.HOOK_CREATED
    phase: ClassVar[Phase | None] = Phase.CREATED
    name: str
    digest: str
    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HookConflicted(Event):
    """Another hook, of the run ``owner``, holds the token."""

    kind: ClassVar[EventKind] = EventKind.HOOK_CONFLICTED
    phase: ClassVar[Phase | None] = Phase.CREATED
    name: str
    digest: str
    token: str
    owner: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HookReceived(Event):
    """The hook received a payload (``payload``) or a webhook request (``request_id``)."""

    kind: ClassVar[EventKind] = EventKind.HOOK_RECEIVED
    value_field: ClassVar[str | None] = "payload"
    payload: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HookClosedEvent(Event):
    """The workflow stopped listening."""

    kind: ClassVar[EventKind] = EventKind.HOOK_CLOSED
    phase: ClassVar[Phase | None] = Phase.ENDED


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildCreated(Event):
    """The workflow called another workflow, which runs as ``run_id``."""

    kind: ClassVar[EventKind] = EventKind.CHILD_CREATED
    phase: ClassVar[Phase | None] = Phase.CREATED
    value_field: ClassVar[str | None] = "args"
    name: str
    digest: str
    args: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildCompleted(Event):
    """The child run returned."""

    kind: ClassVar[EventKind] = EventKind.CHILD_COMPLETED
    phase: ClassVar[Phase | None] = Phase.ENDED
    value_field: ClassVar[str | None] = "result"
    result: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildFailed(Event):
    """The child run failed."""

    kind: ClassVar[EventKind] = EventKind.CHILD_FAILED
    phase: ClassVar[Phase | None] = Phase.ENDED
    value_field: ClassVar[str | None] = "error"
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildCancelled(Event):
    """The child run was cancelled: by a caller, or because the workflow no longer waits for it."""

    kind: ClassVar[EventKind] = EventKind.CHILD_CANCELLED
    phase: ClassVar[Phase | None] = Phase.ENDED
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkerRecorded(Event):
    """The workflow called ``patched(name)`` and takes the new way."""

    kind: ClassVar[EventKind] = EventKind.MARKER_RECORDED
    phase: ClassVar[Phase | None] = Phase.CREATED
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributesSet(Event):
    """The run's attributes changed; None removes one."""

    kind: ClassVar[EventKind] = EventKind.ATTRIBUTES_SET
    attributes: Mapping[str, str | None] = field(default_factory=dict)


def _concrete(base: type[Event]) -> list[type[Event]]:
    found = []
    for cls in base.__subclasses__():
        found += [cls] if hasattr(cls, "kind") else _concrete(cls)
    return found


#: Every kind of event by its name in the log.
KINDS: dict[str, type[Event]] = {cls.kind.value: cls for cls in _concrete(Event)}

_COLUMNS = ("at", "seq", "op_id")

#: For each class: its kind and phase as text, and the fields of its ``data`` with their defaults, which are left out.
_ROW_FORMS = {
    cls: (
        cls.kind.value,
        None if cls.phase is None else cls.phase.value,
        tuple((f.name, f.default) for f in fields(cls) if f.name not in (*_COLUMNS, cls.value_field)),
    )
    for cls in KINDS.values()
}
_dump = json.JSONEncoder(separators=(",", ":")).encode
_load = json.JSONDecoder().decode


def to_row(event: Event) -> dict[str, Any]:
    """The event as the columns ``kind phase seq at op_id data value``; ``data`` is JSON text."""
    kind, phase, in_data = _ROW_FORMS[type(event)]
    data = {name: value for name, default in in_data if (value := getattr(event, name)) != default}
    return {
        "kind": kind,
        "phase": phase,
        "seq": event.seq,
        "at": event.at,
        "op_id": event.op_id,
        "data": _dump(data),
        "value": getattr(event, event.value_field) if event.value_field else None,
    }


def from_row(kind: str, *, seq: int, at: int, op_id: str, data: str, value: str | None) -> Event:
    """The event of a row that ``to_row`` made."""
    cls = KINDS[kind]
    values: dict[str, Any] = _load(data)
    if "responded" in values:
        values["responded"] = tuple(values["responded"])
    if cls.value_field:
        values[cls.value_field] = value
    return cls(seq=seq, at=at, op_id=op_id, **values)
