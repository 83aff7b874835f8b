"""
A run's end, as its last turn writes it: all doors are closed, what came through them meanwhile is taken in, and who
still waits is answered.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from .. import events
from ..engine import Engine
from ..http import Response, problem
from ..replay import commands
from ..store import hooks, requests, run_log, runs, steps, waits
from . import children
from .decision import CommitResult, Decision, Overtaken

_REFUSED = problem(410, "webhook-closed", "Gone", "The workflow stopped listening before it took this request.")
_NOT_SENT = problem(
    500,
    "webhook-response-not-sent",
    "Response not sent",
    "The workflow took this request, and its run ended without answering it.",
)
_CANCELLED = problem(503, "run-cancelled", "Run cancelled", "The run was cancelled before it answered this request.")


def end(engine: Engine, tx: Connection, decision: Decision, after: CommitResult, now: int) -> None:
    """Close all doors, take in what came through them meanwhile, and answer who still waits."""
    assert decision.outcome is not None
    run = decision.run
    hooks.close(tx, run.id, now)
    _take_in_latecomers(tx, decision)
    waits.withdraw(tx, run.id)
    if decision.is_cancelled:
        _drop_pending_steps(tx, decision)
        children.drop(tx, decision)
    last = decision.add(ended(decision, now))
    after.drives += children.tell_parent(engine, tx, run, last)
    runs.record_end(tx, run.id, seq=decision.placing.seq, at=decision.placing.at)
    _answer_all(tx, decision, after, now)


def _take_in_latecomers(tx: Connection, decision: Decision) -> None:
    """What was accepted since the inbox was read is in the log all the same; a cancel makes it think again."""
    drained = set(decision.drained)
    # All of it, however much: after the end nobody would take it in.
    late = [item for item in run_log.read_inbox(tx, decision.run.id, limit=None) if item.id not in drained]
    if any(isinstance(item.event, events.RunCancelRequested) for item in late):
        raise Overtaken("a cancel came first")
    taken = [item for item in late if isinstance(item.event, events.HookReceived | events.AttributesSet)]
    for item in taken:
        decision.add(item.event)
    decision.drained = [*decision.drained, *(item.id for item in taken)]


def _drop_pending_steps(tx: Connection, decision: Decision) -> None:
    pending = steps.withdraw(tx, decision.run.id)
    never_sent = [c.op_id for c in decision.commands if isinstance(c, commands.CreateStep)]
    for op_id in decision.unended((*pending, *never_sent)):
        decision.add(events.StepCancelled(at=decision.placing.at, op_id=op_id))


def ended(decision: Decision, now: int) -> events.Event:
    """The log's last event but for what runs on."""
    assert decision.outcome is not None
    at, value = max(now, decision.placing.at), decision.outcome.value
    match decision.outcome.status:
        case "completed":
            return events.RunCompleted(at=at, result=value or "null")
        case "failed":
            return events.RunFailedEvent(at=at, error=value or "null")
        case _:
            return events.RunCancelledEvent(at=at, error=value, reason=decision.reason)


def refuse(tx: Connection, ids: Iterable[str], now: int, after: CommitResult) -> None:
    """Answer requests that came to a hook which the workflow has closed."""
    _answer(tx, ids, _REFUSED, now, after)


def _answer_all(tx: Connection, decision: Decision, after: CommitResult, now: int) -> None:
    assert decision.outcome is not None
    waiting = requests.unanswered(tx, decision.run.id)
    if decision.is_cancelled:
        _answer(tx, waiting, _CANCELLED, now, after)
        return
    _answer(tx, (r for r in waiting if r in decision.taken), _NOT_SENT, now, after)
    refuse(tx, (r for r in waiting if r not in decision.taken), now, after)


def _answer(tx: Connection, ids: Iterable[str], response: Response, now: int, after: CommitResult) -> None:
    for request_id in ids:
        holder = requests.answer(tx, request_id, response, now)
        if holder:
            after.hints.append((holder, request_id))
