"""
The events of a run's log: one frozen dataclass for each kind.

The log of a run is its events, numbered by ``seq`` from 1 without gaps.  Each has the database's time ``at``, in
microseconds since 1970 UTC.  Events of an operation carry its ``op_id`` (task path and ordinal, ``r.1#3``); events of
the run itself carry ``op_id = "r"``.

An event with a ``phase`` occurs once for each operation, because a unique index of the store holds the phase: an
operation is created once and ends once.  Kinds that may repeat have the phase None.

Encoded values (arguments, results, errors, payloads) are text here; they are decoded where they are used.  Each kind
has at most one, in the field that ``value_field`` names.  The store keeps it in a column of its own.

Files, in import order::

    event.py       ``Event``, the base of all events, and their kinds
    runs.py        the events of the run itself
    operations.py  the events of steps, waits, hooks and child runs
    rows.py        events as rows
"""

from .event import KINDS, ROOT, Event, EventKind, Phase
from .operations import (
    AttemptEnded,
    ChildCancelled,
    ChildCompleted,
    ChildCreated,
    ChildFailed,
    HookClosedEvent,
    HookConflicted,
    HookCreated,
    HookReceived,
    StepCancelled,
    StepCompleted,
    StepCreated,
    StepFailedEvent,
    StepRetrying,
    WaitCancelled,
    WaitCompleted,
    WaitCreated,
)
from .rows import from_row, to_row
from .runs import (
    AttributesSet,
    EventOmitted,
    MarkerRecorded,
    ReplySent,
    RunCancelledEvent,
    RunCancelRequested,
    RunCompleted,
    RunContinued,
    RunCreated,
    RunFailedEvent,
    RunForked,
    RunPaused,
    RunResumed,
    RunStarted,
    ValuePublished,
)

__all__ = [
    "KINDS",
    "ROOT",
    "AttemptEnded",
    "AttributesSet",
    "ChildCancelled",
    "ChildCompleted",
    "ChildCreated",
    "ChildFailed",
    "Event",
    "EventKind",
    "EventOmitted",
    "HookClosedEvent",
    "HookConflicted",
    "HookCreated",
    "HookReceived",
    "MarkerRecorded",
    "Phase",
    "ReplySent",
    "RunCancelRequested",
    "RunCancelledEvent",
    "RunCompleted",
    "RunContinued",
    "RunCreated",
    "RunFailedEvent",
    "RunForked",
    "RunPaused",
    "RunResumed",
    "RunStarted",
    "StepCancelled",
    "StepCompleted",
    "StepCreated",
    "StepFailedEvent",
    "StepRetrying",
    "ValuePublished",
    "WaitCancelled",
    "WaitCompleted",
    "WaitCreated",
    "from_row",
    "to_row",
]

# A step may return events, so recorded values name their classes.  They name this room, whatever file has the class.
for _class in (Event, AttemptEnded, *KINDS.values()):
    _class.__module__ = __name__
