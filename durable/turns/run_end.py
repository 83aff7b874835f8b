"""The last turn of a run: hooks close, late inbox items go into the log, and open webhook requests are answered."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from .. import events
from ..client import run_limits
from ..engine import Engine
from ..http import Response, problem
from ..replay import Command, commands, response_of
from ..store import hooks, requests, run_log, runs, start_run, steps, waits
from ..store import run_limits as limits_of_runs
from . import children, generations
from .decision import CommitResult, Decision, NewEvents, Overtaken

_REFUSED = problem(410, "webhook-closed", "Gone", "The workflow stopped listening before it took this request.")
_NOT_SENT = problem(
    500,
    "webhook-response-not-sent",
    "Response not sent",
    "The workflow took this request, and its run ended without answering it.",
)
#: What goes into the log though the turn that ends the run has not seen it.
_KEPT = (events.HookReceived, events.AttributesSet, events.ValuePublished)

_CANCELLED = problem(503, "run-cancelled", "Run cancelled", "The run was cancelled before it answered this request.")


def end(
    engine: Engine, tx: Connection, decision: Decision, new: NewEvents, result: CommitResult, now: int
) -> list[int]:
    """
    End the run in the transaction of its last turn.

    Args:
        new: Gets the events that the decision does not have, since they depend on rows which this transaction locks.

    Returns:
        The ids of the inbox items that went into *new*, or to the next generation.
    """
    run = decision.run
    # Nothing comes in after this.  What came in since the turn read the inbox goes into the log all the same.
    hooks.close(tx, run.id, now)
    seen = set(decision.drained)
    late = [item for item in run_log.read_inbox(tx, run.id, limit=None) if item.id not in seen]
    if any(isinstance(item.event, events.RunCancelRequested) for item in late):
        raise Overtaken("a cancel came first")
    following = None
    if decision.is_continued:
        following = generations.begin_next(engine, tx, decision, late, start_run.new_run_id(now), max(now, new.at))
        result.to_drive.append(following.run_id)
    moved = {item.id for item in following.taken_along} if following else set()
    taken_in = [item for item in late if isinstance(item.event, _KEPT) and item.id not in moved]
    for item in taken_in:
        new.add(item.event)

    waits.withdraw(tx, run.id)
    if decision.is_cancelled:
        pending = steps.withdraw(tx, run.id)
        never_sent = [c.op_id for c in decision.commands if isinstance(c, commands.CreateStep)]
        for op_id in decision.unended((*pending, *never_sent)):
            new.add(events.StepCancelled(at=new.at, op_id=op_id))
        children.record_cancelled(tx, decision, new)
    last = new.add(end_event(decision, max(now, new.at), None if following is None else following.run_id))
    if following is None:
        result.to_drive += children.report_end(engine, tx, run, last)
        if run_limits.has_limits(run):
            limits_of_runs.leave(tx, run.id)
            result.left = run.id
    runs.record_end(tx, run.id, seq=new.seq, at=new.at)

    unanswered = requests.unanswered(tx, run.id)
    if decision.is_cancelled:
        _answer(tx, unanswered, _CANCELLED, now, result)
    else:
        _answer(tx, (r for r in unanswered if r in decision.taken), _NOT_SENT, now, result)
        refuse(tx, (r for r in unanswered if r not in decision.taken), now, result)
    return [*(item.id for item in taken_in), *moved]


def end_event(decision: Decision, at: int, next_run_id: str | None = None) -> events.Event:
    """Return the event that ends the run."""
    assert decision.outcome is not None
    value = decision.outcome.value
    match decision.outcome.status:
        case "completed":
            return events.RunCompleted(at=at, result=value or "null")
        case "failed":
            return events.RunFailedEvent(at=at, error=value or "null")
        case "continued":
            return events.RunContinued(at=at, args=value or "{}", run_id=str(next_run_id))
        case _:
            return events.RunCancelledEvent(at=at, error=value, reason=decision.reason)


def reply(tx: Connection, asked: Iterable[Command], now: int, result: CommitResult) -> None:
    """Send the workflow's replies to questions.  Before the end of the run, which answers what has no answer."""
    for command in asked:
        if isinstance(command, commands.SendReply):
            _answer(tx, [command.request_id], response_of(command.value), now, result)


def refuse(tx: Connection, ids: Iterable[str], now: int, result: CommitResult) -> None:
    """Answer requests that came to a hook which the workflow has closed."""
    _answer(tx, ids, _REFUSED, now, result)


def _answer(tx: Connection, ids: Iterable[str], response: Response, now: int, result: CommitResult) -> None:
    for request_id in ids:
        holder = requests.answer(tx, request_id, response, now)
        if holder:
            result.answered.append((holder, request_id))
