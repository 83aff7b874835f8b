"""
The timeline of a run: one row for each operation, with its attempts and waits as bars.

This file does no I/O: it takes events, the steps that are still open, and the time.  The dashboard draws its rows, and
a command line can print them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .. import events
from ..events import Event
from ..store import OpenStep, StepStatus


class BarKind(StrEnum):
    """What an operation did for a time."""

    #: A process ran an attempt.
    ATTEMPT = "attempt"
    #: A step waited for a worker, or for the delay of its retry.
    WAITING = "waiting"
    SLEEP = "sleep"
    #: A hook or a webhook was open.
    LISTENING = "listening"
    #: A child run was open.
    CHILD = "child"


@dataclass(frozen=True, slots=True)
class Bar:
    """
    A part of a row, from *start* to *end*; ``end`` is None while it goes on.

    Attributes:
        state: ``completed``, ``failed``, ``cancelled``, ``running`` or ``in_doubt``.
        attempt: The number of the attempt, for an attempt and the wait before it.
        worker: The process of an attempt, ``host:pid``.
    """

    kind: BarKind
    state: str
    start: int
    end: int | None
    attempt: int | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in a row: a payload or a webhook request that a hook received."""

    at: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """
    One operation.

    Attributes:
        kind: ``step``, ``sleep``, ``timeout``, ``hook`` or ``child``.
        state: As a bar's; also ``conflict`` for a hook whose token was taken.
        child_run_id: The run of a child.
    """

    op_id: str
    kind: str
    name: str
    state: str
    start: int
    end: int | None
    bars: tuple[Bar, ...] = ()
    marks: tuple[Mark, ...] = ()
    attempts: int = 0
    child_run_id: str | None = None


def rows(log: Iterable[Event], open_steps: Iterable[OpenStep] = (), *, ended_at: int | None = None) -> list[Row]:
    """
    Return the rows of the operations whose events are in *log*, in the order in which they began.

    Args:
        log: Events of the run, in order.  Values are not looked at.
        open_steps: The rows of steps without an outcome.
        ended_at: When the run ended.  What had no end of its own ended then.
    """
    by_operation: dict[str, list[Event]] = {}
    for event in log:
        by_operation.setdefault(event.op_id, []).append(event)
    now_open = {step.op_id: step for step in open_steps}
    found = (_row(own, now_open, ended_at) for own in by_operation.values())
    return [row for row in found if row is not None]


def _row(own: Sequence[Event], now_open: Mapping[str, OpenStep], ended_at: int | None) -> Row | None:
    match own[0]:
        case events.StepCreated():
            return _step(own, now_open.get(own[0].op_id), ended_at)
        case events.WaitCreated(digest=digest, op_id=op_id):
            is_sleep = digest.startswith("sleep:")
            kind, name = ("sleep", "sleep") if is_sleep else ("timeout", "timeout")
            return _single(own, kind, name, BarKind.SLEEP, op_id, ended_at)
        case events.ChildCreated(name=name, op_id=op_id):
            return _single(own, "child", name, BarKind.CHILD, op_id, ended_at)
        case events.HookCreated(name=name, op_id=op_id):
            return _single(own, "hook", name or "hook", BarKind.LISTENING, op_id, ended_at)
        case events.HookConflicted(name=name, op_id=op_id, at=at):
            return Row(op_id, "hook", name or "hook", "conflict", at, at)
    return None


def _single(own: Sequence[Event], kind: str, name: str, bar: BarKind, op_id: str, ended_at: int | None) -> Row:
    """The row of an operation that is one bar: a sleep, a hook, a child run."""
    first, last = own[0], own[-1]
    has_ended = last.phase == events.Phase.ENDED
    end = last.at if has_ended else ended_at
    state = _state(last) if has_ended else "running" if ended_at is None else "cancelled"
    marks = tuple(Mark(e.at, e.request_id) for e in own if isinstance(e, events.HookReceived))
    child = first.run_id if isinstance(first, events.ChildCreated) else None
    bars = (Bar(bar, state, first.at, end),)
    return Row(op_id, kind, name, state, first.at, end, bars, marks, child_run_id=child)


def _step(own: Sequence[Event], step: OpenStep | None, ended_at: int | None) -> Row:
    """The row of a step: for each attempt its wait for a worker, and its run."""
    created = own[0]
    assert isinstance(created, events.StepCreated)
    bars: list[Bar] = []
    free_at, attempt = created.at, 1
    state, end = "running", None
    for event in own[1:]:
        if isinstance(event, events.AttemptEnded):
            began = max(free_at, event.started_at if event.started_at is not None else event.at)
            _wait(bars, free_at, began, event.attempt)
            bars.append(Bar(BarKind.ATTEMPT, _state(event), began, event.at, event.attempt, event.worker))
            free_at, attempt = event.at, event.attempt + 1
        if event.phase == events.Phase.ENDED:
            state, end = _state(event), event.at
    if end is None and step is not None and step.claimed_at is not None and step.status != StepStatus.PENDING:
        state = "in_doubt" if step.status == StepStatus.IN_DOUBT else "running"
        worker = None if step.host is None else f"{step.host}:{step.pid}"
        began = max(free_at, step.claimed_at)
        _wait(bars, free_at, began, step.attempt)
        bars.append(Bar(BarKind.ATTEMPT, state, began, None, step.attempt, worker))
        attempt = step.attempt + 1
    elif end is None and ended_at is None:
        state = "waiting"
        bars.append(Bar(BarKind.WAITING, "running", free_at, None, attempt))
    elif end is None or state == "cancelled":
        state, end = "cancelled", end if end is not None else ended_at
        bars.append(Bar(BarKind.WAITING, "cancelled", free_at, end, attempt))
    began_attempts = sum(bar.kind is BarKind.ATTEMPT for bar in bars)
    return Row(created.op_id, "step", created.name, state, created.at, end, tuple(bars), attempts=began_attempts)


def _wait(bars: list[Bar], start: int, end: int, attempt: int) -> None:
    if end > start:
        bars.append(Bar(BarKind.WAITING, "completed", start, end, attempt))


def _state(event: Event) -> str:
    """The state that an event leads to."""
    match event:
        case events.StepFailedEvent() | events.StepRetrying() | events.ChildFailed():
            return "failed"
        case events.StepCancelled() | events.WaitCancelled() | events.ChildCancelled():
            return "cancelled"
    return "completed"
