"""
``Event``, the base of all events, and their kinds.

``define_event`` makes a class the dataclass of one kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
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
    #: For ``to_row``: the kind and the phase as text, and the fields of ``data`` with their defaults.
    row_form: ClassVar[tuple[str, str | None, tuple[tuple[str, Any], ...]]]

    at: int
    seq: int = 0
    op_id: str = ROOT


#: The fields that are columns of a row; with the field of the value, they are all that ``data`` leaves out.
_COLUMNS = ("at", "seq", "op_id")

#: Every kind of event by its name in the log.
KINDS: dict[str, type[Event]] = {}
_E = TypeVar("_E", bound=Event)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def define_event(
    kind: EventKind, phase: Phase | None = None, value: str | None = None
) -> Callable[[type[_E]], type[_E]]:
    """Make a class the dataclass of one kind of event, whose encoded value is in the field *value*."""

    def decorate(cls: type[_E]) -> type[_E]:
        cls.kind, cls.phase, cls.value_field = kind, phase, value
        made = dataclass(frozen=True, kw_only=True, slots=True)(cls)
        in_data = tuple((each.name, each.default) for each in fields(made) if each.name not in (*_COLUMNS, value))
        made.row_form = (kind.value, None if phase is None else phase.value, in_data)
        KINDS[kind.value] = made
        return made

    return decorate
