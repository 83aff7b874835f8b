"""
The log's vocabulary: one frozen dataclass per kind of event.

A run is its log: ``seq`` 1, 2, 3, … without a gap, each event with the
database's time ``at``, in microseconds since 1970 UTC.  Events that concern an
operation name it by ``op_id`` (task path and ordinal, ``r.1#3``); those of the
run itself carry ``op_id = "r"``.

``phase`` is what a unique index of the store holds: an operation is created
once and ended once.  Kinds that may repeat have the phase None.

Encoded values (arguments, results, errors, payloads) stay text here: they are
decoded where they are delivered.  Each kind keeps at most one, in the field
named by ``value_field``, and the store keeps it in a column of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

#: The operation id of the run itself.
ROOT = "r"

Phase = Literal["created", "ended"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What every event has.  ``seq`` is 0 until a turn has given it its place."""

    kind: ClassVar[str]
    phase: ClassVar[Phase | None] = None
    value_field: ClassVar[str | None] = None

    at: int
    seq: int = 0
    op_id: str = ROOT


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCreated(Event):
    """Somebody started the run.  ``args`` is the encoded object of arguments by parameter name."""

    kind: ClassVar[str] = "run_created"
    phase: ClassVar[Phase | None] = "created"
    value_field: ClassVar[str | None] = "args"
    name: str
    args: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted(Event):
    """
    The first turn took the run; its clock starts at ``at``.

    ``public_url`` is kept with the run: a webhook's URL is the same on every replay, also when the
    setting has changed.
    """

    kind: ClassVar[str] = "run_started"
    public_url: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCompleted(Event):
    """The workflow returned."""

    kind: ClassVar[str] = "run_completed"
    phase: ClassVar[Phase | None] = "ended"
    value_field: ClassVar[str | None] = "result"
    result: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFailedEvent(Event):
    """The workflow raised."""

    kind: ClassVar[str] = "run_failed"
    phase: ClassVar[Phase | None] = "ended"
    value_field: ClassVar[str | None] = "error"
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCancelRequested(Event):
    """Somebody called ``cancel``: the workflow's next await raises CancelledError."""

    kind: ClassVar[str] = "run_cancel_requested"
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCancelledEvent(Event):
    """The run ended after a cancel.  ``error`` is what its cleanup raised, if it did."""

    kind: ClassVar[str] = "run_cancelled"
    phase: ClassVar[Phase | None] = "ended"
    value_field: ClassVar[str | None] = "error"
    error: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCreated(Event):
    """The workflow called a step."""

    kind: ClassVar[str] = "step_created"
    phase: ClassVar[Phase | None] = "created"
    value_field: ClassVar[str | None] = "args"
    name: str
    digest: str
    args: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptEnded(Event):
    """
    What an attempt leaves behind, whatever its outcome.

    ``started_at`` is this attempt's start, ``worker`` its process (``host:pid``), ``responded`` the
    ids of the requests that it answered.
    """

    attempt: int
    started_at: int | None = None
    worker: str | None = None
    responded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRetrying(AttemptEnded):
    """An attempt failed; the next may start at ``due_at``."""

    kind: ClassVar[str] = "step_retrying"
    value_field: ClassVar[str | None] = "error"
    error: str
    due_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCompleted(AttemptEnded):
    """An attempt returned."""

    kind: ClassVar[str] = "step_completed"
    phase: ClassVar[Phase | None] = "ended"
    value_field: ClassVar[str | None] = "result"
    result: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFailedEvent(AttemptEnded):
    """The last attempt failed, or one that is not retried."""

    kind: ClassVar[str] = "step_failed"
    phase: ClassVar[Phase | None] = "ended"
    value_field: ClassVar[str | None] = "error"
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCancelled(Event):
    """The workflow gave the call up: it lost a race, or its task was cancelled."""

    kind: ClassVar[str] = "step_cancelled"
    phase: ClassVar[Phase | None] = "ended"


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitCreated(Event):
    """The workflow sleeps until ``due_at``."""

    kind: ClassVar[str] = "wait_created"
    phase: ClassVar[Phase | None] = "created"
    digest: str
    due_at: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitCompleted(Event):
    """A sleep is over: by its time, or by ``wake_up`` (``early``)."""

    kind: ClassVar[str] = "wait_completed"
    phase: ClassVar[Phase | None] = "ended"
    early: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitCancelled(Event):
    """The workflow gave the sleep up."""

    kind: ClassVar[str] = "wait_cancelled"
    phase: ClassVar[Phase | None] = "ended"


@dataclass(frozen=True, kw_only=True, slots=True)
class HookCreated(Event):
    """The token is this run's.  ``token`` is what was asked for, or what was drawn."""

    kind: ClassVar[str] = "hook_created"
    phase: ClassVar[Phase | None] = "created"
    name: str
    digest: str
    token: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HookConflicted(Event):
    """The token was held by another hook, of the run ``owner``."""

    kind: ClassVar[str] = "hook_conflicted"
    phase: ClassVar[Phase | None] = "created"
    name: str
    digest: str
    token: str
    owner: str


@dataclass(frozen=True, kw_only=True, slots=True)
class HookReceived(Event):
    """A payload (``payload``), or a webhook request (``request_id``), came in."""

    kind: ClassVar[str] = "hook_received"
    value_field: ClassVar[str | None] = "payload"
    payload: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class HookClosedEvent(Event):
    """The workflow stopped listening."""

    kind: ClassVar[str] = "hook_closed"
    phase: ClassVar[Phase | None] = "ended"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildCreated(Event):
    """The workflow called another workflow, which runs as ``run_id``."""

    kind: ClassVar[str] = "child_created"
    phase: ClassVar[Phase | None] = "created"
    value_field: ClassVar[str | None] = "args"
    name: str
    digest: str
    args: str
    run_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildCompleted(Event):
    """The child run returned."""

    kind: ClassVar[str] = "child_completed"
    phase: ClassVar[Phase | None] = "ended"
    value_field: ClassVar[str | None] = "result"
    result: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildFailed(Event):
    """The child run failed."""

    kind: ClassVar[str] = "child_failed"
    phase: ClassVar[Phase | None] = "ended"
    value_field: ClassVar[str | None] = "error"
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildCancelled(Event):
    """The child run was cancelled: by somebody else, or because the workflow gave the call up."""

    kind: ClassVar[str] = "child_cancelled"
    phase: ClassVar[Phase | None] = "ended"
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkerRecorded(Event):
    """The run went through ``patched(name)``."""

    kind: ClassVar[str] = "marker_recorded"
    phase: ClassVar[Phase | None] = "created"
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributesSet(Event):
    """The run's attributes changed; None unsets one."""

    kind: ClassVar[str] = "attributes_set"
    attributes: Mapping[str, str | None] = field(default_factory=dict)


def _concrete(base: type[Event]) -> list[type[Event]]:
    found = []
    for cls in base.__subclasses__():
        found += [cls] if hasattr(cls, "kind") else _concrete(cls)
    return found


#: Every kind of event by its name in the log.
KINDS: dict[str, type[Event]] = {cls.kind: cls for cls in _concrete(Event)}

_COLUMNS = ("at", "seq", "op_id")

#: What of each kind is in the data of its row: names of fields, and their defaults, which are left out.
_DATA = {
    cls: tuple((f.name, f.default) for f in fields(cls) if f.name not in (*_COLUMNS, cls.value_field))
    for cls in KINDS.values()
}
_dump = json.JSONEncoder(separators=(",", ":")).encode
_load = json.JSONDecoder().decode


def to_row(event: Event) -> dict[str, Any]:
    """The event as the columns ``kind phase seq at op_id data value``; ``data`` is JSON text."""
    data = {name: value for name, default in _DATA[type(event)] if (value := getattr(event, name)) != default}
    return {
        "kind": event.kind,
        "phase": event.phase,
        "seq": event.seq,
        "at": event.at,
        "op_id": event.op_id,
        "data": _dump(data),
        "value": getattr(event, event.value_field) if event.value_field else None,
    }


def from_row(kind: str, *, seq: int, at: int, op_id: str, data: str, value: str | None) -> Event:
    """The event that ``to_row`` took apart."""
    cls = KINDS[kind]
    known: dict[str, Any] = _load(data)
    if "responded" in known:
        known["responded"] = tuple(known["responded"])
    if cls.value_field:
        known[cls.value_field] = value
    return cls(seq=seq, at=at, op_id=op_id, **known)
