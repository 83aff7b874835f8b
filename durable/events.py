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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, TypeVar, dataclass_transform

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
    RUN_CONTINUED = "run_continued"
    RUN_CANCEL_REQUESTED = "run_cancel_requested"
    RUN_CANCELLED = "run_cancelled"
    RUN_FORKED = "run_forked"
    RUN_PAUSED = "run_paused"
    RUN_RESUMED = "run_resumed"
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
    VALUE_PUBLISHED = "value_published"
    REPLY_SENT = "reply_sent"
    EVENT_OMITTED = "event_omitted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """The base of all events.  ``seq`` is 0 until a turn gives the event its place in the log."""

    kind: ClassVar[EventKind]
    phase: ClassVar[Phase | None] = None
    value_field: ClassVar[str | None] = None

    at: int
    seq: int = 0
    op_id: str = ROOT


#: Every kind of event by its name in the log.
KINDS: dict[str, type[Event]] = {}
_E = TypeVar("_E", bound=Event)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def _event(kind: EventKind, phase: Phase | None = None, value: str | None = None) -> Callable[[type[_E]], type[_E]]:
    """Make a class the dataclass of one kind of event, whose encoded value is in the field *value*."""

    def decorate(cls: type[_E]) -> type[_E]:
        cls.kind, cls.phase, cls.value_field = kind, phase, value
        made = dataclass(frozen=True, kw_only=True, slots=True)(cls)
        KINDS[kind.value] = made
        return made

    return decorate


@_event(EventKind.RUN_CREATED, Phase.CREATED, value="args")
class RunCreated(Event):
    """
    The run was started.  ``args`` is the encoded object of arguments by parameter name.

    A later generation ``continues`` the run with this id, and is handed over its open hooks: for each, a dict of
    ``op_id name token label``.

    ``scheduled_for`` is the time for which a schedule has started it.

    A fork has the random numbers of the run ``seed``.  ``renamed`` has, by the fork's own id and tokens, those that the
    workflow saw in their place when the digests of the log were made.
    """

    name: str
    args: str
    continues: str | None = None
    handed_over: tuple[Mapping[str, str | None], ...] = ()
    scheduled_for: int | None = None
    seed: str | None = None
    renamed: Mapping[str, str] | None = None


@_event(EventKind.RUN_STARTED)
class RunStarted(Event):
    """
    The first turn of the run began; the run's clock starts at ``at``.

    ``public_url`` is recorded so that a webhook's URL is the same on every replay, even after the setting changes.
    So is ``continue_at``, the ``seq`` from which ``should_continue_as_new`` is true.
    """

    public_url: str | None = None
    continue_at: int | None = None


@_event(EventKind.RUN_COMPLETED, Phase.ENDED, value="result")
class RunCompleted(Event):
    """The workflow returned."""

    result: str


@_event(EventKind.RUN_FAILED, Phase.ENDED, value="error")
class RunFailedEvent(Event):
    """The workflow raised."""

    error: str


@_event(EventKind.RUN_CONTINUED, Phase.ENDED, value="args")
class RunContinued(Event):
    """The workflow continued as new: ``run_id`` is the next generation, with the arguments ``args``."""

    args: str
    run_id: str


@_event(EventKind.RUN_CANCEL_REQUESTED)
class RunCancelRequested(Event):
    """``cancel`` was called: the workflow's next await raises CancelledError."""

    reason: str | None = None


@_event(EventKind.RUN_CANCELLED, Phase.ENDED, value="error")
class RunCancelledEvent(Event):
    """The run ended after a cancel.  ``error`` is what the workflow raised instead of CancelledError, if anything."""

    error: str | None = None
    reason: str | None = None


@_event(EventKind.RUN_FORKED)
class RunForked(Event):
    """
    The run goes on from here by itself: what comes before is the log of the run ``run_id``, up to its event ``until``.

    ``step`` is the call of a step that the fork makes again.
    """

    run_id: str
    until: int
    step: str | None = None


@_event(EventKind.RUN_PAUSED)
class RunPaused(Event):
    """The run was paused at ``at``: by itself, or because its workflow or queue was (``by``: ``workflow checkout``)."""

    by: str | None = None
    reason: str | None = None


@_event(EventKind.RUN_RESUMED)
class RunResumed(Event):
    """The run goes on since ``at``."""


@_event(EventKind.STEP_CREATED, Phase.CREATED, value="args")
class StepCreated(Event):
    """The workflow called a step."""

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


@_event(EventKind.STEP_RETRYING, value="error")
class StepRetrying(AttemptEnded):
    """An attempt failed; the next may start at ``due_at``."""

    error: str
    due_at: int


@_event(EventKind.STEP_COMPLETED, Phase.ENDED, value="result")
class StepCompleted(AttemptEnded):
    """An attempt returned."""

    result: str


@_event(EventKind.STEP_FAILED, Phase.ENDED, value="error")
class StepFailedEvent(AttemptEnded):
    """The step failed: its last attempt failed, or one that is not retried."""

    error: str


@_event(EventKind.STEP_CANCELLED, Phase.ENDED)
class StepCancelled(Event):
    """The workflow no longer waits for the step: the call lost a race, or its task was cancelled."""


@_event(EventKind.WAIT_CREATED, Phase.CREATED)
class WaitCreated(Event):
    """The workflow sleeps until ``due_at``."""

    digest: str
    due_at: int


@_event(EventKind.WAIT_COMPLETED, Phase.ENDED)
class WaitCompleted(Event):
    """A sleep is over because its time came, or early by ``wake_up``."""

    early: bool = False


@_event(EventKind.WAIT_CANCELLED, Phase.ENDED)
class WaitCancelled(Event):
    """The workflow no longer waits for the sleep."""


@_event(EventKind.HOOK_CREATED, Phase.CREATED)
class HookCreated(Event):
    """The run holds the hook's token: the one that the workflow asked for, or a random one."""

    name: str
    digest: str
    token: str


@_event(EventKind.HOOK_CONFLICTED, Phase.CREATED)
class HookConflicted(Event):
    """Another hook, of the run ``owner``, holds the token."""

    name: str
    digest: str
    token: str
    owner: str


@_event(EventKind.HOOK_RECEIVED, value="payload")
class HookReceived(Event):
    """
    The hook received a payload (``payload``) or a webhook request (``request_id``).

    With both it is a question: a payload whose sender waits for the reply to ``request_id``.
    """

    payload: str | None = None
    request_id: str | None = None


@_event(EventKind.HOOK_CLOSED, Phase.ENDED)
class HookClosedEvent(Event):
    """The workflow stopped listening."""


@_event(EventKind.CHILD_CREATED, Phase.CREATED, value="args")
class ChildCreated(Event):
    """The workflow called another workflow, which runs as ``run_id``."""

    name: str
    digest: str
    args: str
    run_id: str


@_event(EventKind.CHILD_COMPLETED, Phase.ENDED, value="result")
class ChildCompleted(Event):
    """The child run returned."""

    result: str


@_event(EventKind.CHILD_FAILED, Phase.ENDED, value="error")
class ChildFailed(Event):
    """The child run failed."""

    error: str


@_event(EventKind.CHILD_CANCELLED, Phase.ENDED)
class ChildCancelled(Event):
    """The child run was cancelled: by a caller, or because the workflow no longer waits for it."""

    reason: str | None = None


@_event(EventKind.MARKER_RECORDED, Phase.CREATED)
class MarkerRecorded(Event):
    """The workflow called ``patched(name)`` and takes the new way."""

    name: str


@_event(EventKind.ATTRIBUTES_SET)
class AttributesSet(Event):
    """The run's attributes changed; None removes one."""

    attributes: Mapping[str, str | None] = field(default_factory=dict)


@_event(EventKind.VALUE_PUBLISHED, value="value")
class ValuePublished(Event):
    """The workflow or one of its steps published a value."""

    name: str
    value: str


@_event(EventKind.REPLY_SENT)
class ReplySent(Event):
    """The workflow replied to a question; the row of the request ``request_id`` has the reply."""

    request_id: str


@_event(EventKind.EVENT_OMITTED)
class EventOmitted(Event):
    """The log that this one was forked from has an event of the kind ``was`` here: the call is made again."""

    was: str


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
    if "handed_over" in values:
        values["handed_over"] = tuple(values["handed_over"])
    if cls.value_field:
        values[cls.value_field] = value
    return cls(seq=seq, at=at, op_id=op_id, **values)
