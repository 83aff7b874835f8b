"""
Where a run can be forked, and what its fork begins with.

A fork begins with the first events of a log, as far as whole turns go, and takes in the rest from its inbox.  For a
replay treats the two differently: what the log has is replayed as it was, with the answers that ``patched`` gave then,
while what comes in is new.  So the log of a fork ends where a turn has ended, before what the next turn took in.

The events of a turn are what has come in, then what the workflow has asked for.  Where an event that has come in
follows one that was asked for, another turn begins.

A call without an outcome is not left in the log of a fork: nothing would make it.  An ``EventOmitted`` takes its place,
so that the numbers of the events stay the same, and the workflow's first turn makes the call again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import events
from ..errors import ForkRefused
from ..events import ROOT, Event
from ..registry import SEMANTICS, definitions

#: What only a workflow asks for.
_ASKED = (
    events.StepCreated,
    events.StepCancelled,
    events.WaitCreated,
    events.WaitCancelled,
    events.HookCreated,
    events.HookConflicted,
    events.HookClosedEvent,
    events.ChildCreated,
    events.MarkerRecorded,
    events.ReplySent,
)
#: The marks in the op ids of a workflow's own changes of attributes and published values; see ``RunContext``.
_MARKS = ("@", "=")
#: What turns and forks write themselves.
_WRITTEN = (events.RunStarted, events.EventOmitted)
#: The semantics of steps that must not do their work twice.
_ONCE = SEMANTICS[1:]

_MAY_HAVE_WORKED = (
    "its step {name} ({op_id}) is at_most_once or transactional, had begun at the fork and has no outcome, so a second"
    " execution could do its work twice.  Wait until it has ended, or resolve it; or name it, from_step={op_id!r}, if"
    " it may run again"
)


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """
    Where to fork, as the caller has it: at a step's name or id, behind an event, or where the run has failed.

    Attributes:
        step: The name of a step, or the op id of one call.
        event: The ``seq`` of an event.
        failed_step: The op id of the step whose failure has ended the run, if one has.
        semantics: Returns the ``semantics`` of the step with this name.
        reapply_payloads: Whether the fork gets what came to its hooks later.
    """

    step: str | None
    event: int | None
    failed_step: str | None
    semantics: Callable[[str], str]
    reapply_payloads: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class ForkPlan:
    """
    What a fork begins with.

    Attributes:
        log: Its log.
        before: What has come in before the fork and is not in the log, for its inbox.
        after: What has come in later and is kept.
        until: The ``seq`` of the last event before the fork, and its time.
        step: The op id of the call that is made again because the caller wants it.
        waits, hooks, children: What is open at the fork.
    """

    log: Sequence[Event]
    before: Sequence[Event]
    after: Sequence[Event]
    until: int
    until_at: int
    step: str | None
    waits: Sequence[events.WaitCreated]
    hooks: Sequence[events.HookCreated]
    children: Sequence[events.ChildCreated]


def plan_fork(run_id: str, log: Sequence[Event], inbox: Sequence[Event], point: ForkPoint) -> ForkPlan:
    """
    Plan a fork.

    Args:
        log: The whole log of the run.
        inbox: What waits in its inbox, oldest first.

    Raises:
        ForkRefused: There is no such point, or a fork there could not be right.
    """
    step, until = _find(run_id, log, point)
    whole = _last_end_of_turn(log, until)
    prefix, later = log[:whole], [*log[until:], *inbox]
    before = [event for event in log[whole:until] if _has_come_in(event) and not isinstance(event, _WRITTEN)]
    ended = {event.op_id for event in (*prefix, *before) if event.phase == "ended"}
    unended = {event.op_id: event for event in prefix if event.phase == "created" and event.op_id not in ended}
    outcomes = {
        event.op_id: event
        for event in later
        if event.op_id in unended and event.op_id != step and _is_kept(event, unended[event.op_id], point)
    }
    pending = [event for op_id, event in unended.items() if op_id not in outcomes]
    omitted = {event.op_id for event in pending if isinstance(event, events.StepCreated)}
    _check_calls(run_id, [event for event in pending if event.op_id != step], point)

    hooks = [event for event in pending if isinstance(event, events.HookCreated)]
    handed_over = {str(each["op_id"]) for event in log[:1] for each in getattr(event, "handed_over", ())}
    listening = {event.op_id for event in hooks} | (handed_over - ended)
    with_result = {op_id for op_id, event in outcomes.items() if isinstance(event, events.StepCompleted)}

    def is_taken_in(event: Event) -> bool:
        if isinstance(event, events.HookReceived):
            return point.reapply_payloads and event.op_id in listening
        if isinstance(event, events.AttributesSet | events.ValuePublished):
            return event.op_id in with_result
        return outcomes.get(event.op_id) is event

    return ForkPlan(
        log=[_omit(event) if event.op_id in omitted and _is_of_call(event) else event for event in prefix],
        before=[event for event in before if event.op_id not in omitted or not _is_of_call(event)],
        after=[event for event in later if is_taken_in(event)],
        until=until,
        until_at=log[until - 1].at,
        step=step,
        waits=[event for event in pending if isinstance(event, events.WaitCreated)],
        hooks=hooks,
        children=[event for event in pending if isinstance(event, events.ChildCreated)],
    )


def _find(run_id: str, log: Sequence[Event], point: ForkPoint) -> tuple[str | None, int]:
    """Return the call to make again, and how many events come before the fork; raise ForkRefused for none."""
    if not any(isinstance(event, events.RunStarted) for event in log):
        raise ForkRefused(run_id, "it has not begun, so there is nothing to fork.  Start a run with the same arguments")
    step, until = _find_place(run_id, log, point)
    if any(isinstance(event, events.RunCancelRequested) for event in log[:until]):
        raise ForkRefused(run_id, "it was asked to cancel before the fork, which would be cancelled too.  Fork earlier")
    return step, until


def _check_calls(run_id: str, pending: Sequence[Event], point: ForkPoint) -> None:
    """Raise ForkRefused if a step that must not work twice is among the calls that the fork makes again."""
    for event in pending:
        if isinstance(event, events.StepCreated) and point.semantics(event.name) in _ONCE:
            raise ForkRefused(run_id, _MAY_HAVE_WORKED.format(name=event.name, op_id=event.op_id))


def _find_place(run_id: str, log: Sequence[Event], point: ForkPoint) -> tuple[str | None, int]:
    end = next((event.seq - 1 for event in log if event.op_id == ROOT and event.phase == "ended"), len(log))
    if point.event is not None:
        if not 1 <= point.event <= end:
            raise ForkRefused(run_id, f"from_event is the seq of an event from 1 to {end}, and not {point.event}")
        until = point.event
        while until < end and not _has_come_in(log[until - 1]) and not _has_come_in(log[until]):
            until += 1
        return None, until
    wanted = point.step or point.failed_step
    if wanted is None:
        # The workflow's own code has failed: its last turn is taken again.
        return None, max(event.seq for event in log[:end] if _has_come_in(event))
    step = _call(run_id, log, wanted)
    ended = next((event.seq - 1 for event in log if event.op_id == step and event.phase == "ended"), end)
    return step, min(ended, end)


def _call(run_id: str, log: Sequence[Event], wanted: str) -> str:
    """Return the op id of the call of a step, by that id or by the step's name."""
    calls = [event for event in log if isinstance(event, events.StepCreated) and wanted in (event.op_id, event.name)]
    if len(calls) == 1:
        return calls[0].op_id
    if not calls:
        names = ", ".join(dict.fromkeys(event.name for event in log if isinstance(event, events.StepCreated)))
        raise ForkRefused(run_id, f"it has called no step {wanted!r}.  It has called: {names or 'none'}")
    ids = ", ".join(each.op_id for each in calls)
    raise ForkRefused(run_id, f"it has called {wanted} {len(calls)} times: name one of the calls {ids}")


def _last_end_of_turn(log: Sequence[Event], until: int) -> int:
    """Return the number of the last event, up to *until*, with which a turn has ended; 0 if none has."""
    while until and (_has_come_in(log[until - 1]) or (until < len(log) and not _has_come_in(log[until]))):
        until -= 1
    return until


def _has_come_in(event: Event) -> bool:
    """Whether an event has come from outside; the others are what the workflow has asked for."""
    if isinstance(event, events.AttributesSet | events.ValuePublished):
        return not any(mark in event.op_id for mark in _MARKS)
    if isinstance(event, events.ChildCancelled):
        return event.reason is not None
    if isinstance(event, events.EventOmitted):
        return event.was != events.EventKind.STEP_CREATED
    return not isinstance(event, _ASKED)


def _is_kept(event: Event, made: Event, point: ForkPoint) -> bool:
    """Whether an event after the fork is an outcome that the fork keeps."""
    if isinstance(event, events.StepFailedEvent):
        # It may not run once more, so it has failed for good.
        return point.semantics(getattr(made, "name", "")) == definitions.AT_MOST_ONCE
    return isinstance(event, events.StepCompleted | events.ChildCompleted | events.ChildFailed)


def _is_of_call(event: Event) -> bool:
    """Whether an event is of the call itself: what an attempt has set or published stays."""
    return isinstance(event, events.StepCreated | events.AttemptEnded)


def _omit(event: Event) -> Event:
    return events.EventOmitted(seq=event.seq, at=event.at, op_id=event.op_id, was=event.kind.value)
