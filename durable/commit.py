"""
One turn's writing: a decision in one transaction, and what has to be sent after it.

The fence comes first: it moves the run on from the turn that was read, and
fails when another turn was here.  Then hooks (their rows lock out whoever is
about to put a payload in), then all else.  Locks are taken in the order run,
step, hook.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from . import commands, events, registry
from .engine import Engine
from .http import Response, problem
from .store import hooks, log, requests, runs, steps, waits
from .store.runs import Run
from .store.steps import StepRow
from .store.waits import WaitRow
from .turn import Decision


class Overtaken(Exception):
    """Raised when another turn, or a payload, was faster: nothing is written, think again."""


@dataclass(kw_only=True)
class Aftermath:
    """What to send once the transaction has committed."""

    steps: list[StepRow] = field(default_factory=list)
    waits: list[WaitRow] = field(default_factory=list)
    #: Other runs that have news now: children and parents.
    drives: list[str] = field(default_factory=list)
    #: Whom to tell of answers: (process, request id).
    hints: list[tuple[str, str]] = field(default_factory=list)


_REFUSED = problem(410, "webhook-closed", "Gone", "The workflow stopped listening before it took this request.")
_NOT_SENT = problem(
    500,
    "webhook-response-not-sent",
    "Response not sent",
    "The workflow took this request, and its run ended without answering it.",
)
_CANCELLED = problem(503, "run-cancelled", "Run cancelled", "The run was cancelled before it answered this request.")


def commit(engine: Engine, decision: Decision) -> Aftermath:
    """Write *decision*; Overtaken: somebody else was here, and nothing is written."""
    after = Aftermath()
    try:
        with engine.store.begin() as tx:
            _write(engine, tx, decision, after)
    except IntegrityError as error:
        raise Overtaken(str(error.orig)) from error
    return after


def _write(engine: Engine, tx: Connection, decision: Decision, after: Aftermath) -> None:
    now = engine.store.now()
    if decision.fault is not None:
        _block(engine, tx, decision)
        return
    _fence(engine, tx, decision)
    _withdraw(tx, decision)
    _cancel_children(engine, tx, decision, after, now)
    _hooks(tx, decision, now)
    if decision.outcome is not None and not decision.run.ended:
        _end(engine, tx, decision, after, now)
    log.append(tx, decision.run.id, decision.events)
    log.drained(tx, decision.run.id, decision.drained)
    _create(engine, tx, decision, after, now)
    _answer(tx, decision.refused, _REFUSED, now, after)


def _block(engine: Engine, tx: Connection, decision: Decision) -> None:
    """Keep the log as it is: the run goes on with code that matches it."""
    version = current_code_version(engine, decision.run)
    if not runs.advance(tx, decision.run, status="blocked", blocked=str(decision.fault), blocked_version=version):
        raise Overtaken("another turn came first")


def current_code_version(engine: Engine, run: Run) -> str | None:
    """The version of the workflow's code in this process, None when it does not know the workflow."""
    known = registry.workflows.get(run.name)
    return None if known is None else engine.code_version(known)


def _fence(engine: Engine, tx: Connection, decision: Decision) -> None:
    run = decision.run
    changes: dict[str, Any] = {}
    if not run.ended:
        changes = {"status": "running", "blocked": None, "blocked_version": None}
        if run.started_at is None:
            started = [e.at for e in decision.events if isinstance(e, events.RunStarted)]
            changes |= {"started_at": started[0] if started else None, "python_version": platform.python_version()}
    if decision.outcome is not None and not run.ended:
        changes["status"] = decision.outcome.status
    if not runs.advance(tx, run, seq=decision.placing.seq, last_at=decision.placing.at, **changes):
        raise Overtaken("another turn came first")


def _withdraw(tx: Connection, decision: Decision) -> None:
    gone = [c for c in decision.commands if isinstance(c, commands.Withdraw)]
    steps.withdraw(tx, decision.run.id, [c.op_id for c in gone if c.kind == "step"])
    waits.withdraw(tx, decision.run.id, [c.op_id for c in gone if c.kind == "wait"])


def _hooks(tx: Connection, decision: Decision, now: int) -> None:
    """Close before creating: a token may go from one hook to the next within a turn."""
    closed = {c.op_id for c in decision.commands if isinstance(c, commands.CloseHook)}
    hooks.close(tx, decision.run.id, now, closed)
    conflicted = {e.op_id for e in decision.events if isinstance(e, events.HookConflicted)}
    for command in decision.commands:
        if isinstance(command, commands.CreateHook) and command.op_id not in conflicted:
            hooks.create(tx, decision.run.id, command, now, closed=command.op_id in closed)


def _create(engine: Engine, tx: Connection, decision: Decision, after: Aftermath, now: int) -> None:
    run = decision.run
    if decision.outcome is not None and decision.outcome.status == "cancelled":
        return
    for command in decision.commands:
        if isinstance(command, commands.CreateChild):
            _create_child(engine, tx, run, command, now)
            after.drives.append(command.run_id)
    new_steps = [c for c in decision.commands if isinstance(c, commands.CreateStep)]
    new_waits = [c for c in decision.commands if isinstance(c, commands.CreateWait)]
    steps.create(
        tx,
        [{"run_id": run.id, "op_id": c.op_id, "name": c.name, "not_before": 0} for c in new_steps],
        send_at=now + engine.settings.resend_after,
    )
    after.steps += [StepRow(run.id, c.op_id, c.name, 1, 0, run.queue, run.priority) for c in new_steps]
    if decision.outcome is not None:
        return
    waits.create(
        tx,
        [
            {"run_id": run.id, "op_id": c.op_id, "due_at": c.due_at}
            | {"next_send_at": engine.dispatch.first_send_at(c.due_at, now)}
            for c in new_waits
        ],
    )
    after.waits += [WaitRow(run.id, c.op_id, c.due_at, run.queue, run.priority) for c in new_waits]


def _create_child(engine: Engine, tx: Connection, run: Run, command: commands.CreateChild, now: int) -> None:
    workflow = registry.workflows.get(command.name)
    child = Run(
        id=command.run_id,
        name=command.name,
        status="pending",
        turn=0,
        seq=0,
        last_at=now,
        queue=None if workflow is None else workflow.options.get("queue"),
        priority=run.priority if workflow is None else workflow.options.get("priority", run.priority),
        digest=command.digest,
        idempotency_key=None,
        code_version=None if workflow is None else engine.code_version(workflow),
        python_version=None,
        parent_run_id=run.id,
        parent_op_id=command.op_id,
        not_before=None,
        blocked=None,
        blocked_version=None,
        created_at=now,
        started_at=None,
        completed_at=None,
    )
    runs.create(tx, child)
    created = events.RunCreated(at=now, name=command.name, args=command.args)
    log.post(tx, child.id, created, send_at=now + engine.settings.resend_after)


def _tell_parent(engine: Engine, tx: Connection, ended: events.Event, run: Run, after: Aftermath) -> None:
    """A child's end is news for the run that awaits it."""
    if run.parent_run_id is None or run.parent_op_id is None:
        return
    at, op_id = ended.at, run.parent_op_id
    news: events.Event
    match ended:
        case events.RunCompleted(result=result):
            news = events.ChildCompleted(at=at, op_id=op_id, result=result)
        case events.RunFailed(error=error):
            news = events.ChildFailed(at=at, op_id=op_id, error=error)
        case events.RunCancelled(reason=reason):
            news = events.ChildCancelled(at=at, op_id=op_id, reason=reason)
        case _:
            raise AssertionError(f"{ended.kind} does not end a run")
    log.post(tx, run.parent_run_id, news, send_at=at + engine.settings.resend_after)
    after.drives.append(run.parent_run_id)


def _cancel_children(engine: Engine, tx: Connection, decision: Decision, after: Aftermath, now: int) -> None:
    """A child that nobody awaits any more is cancelled with the call."""
    for command in decision.commands:
        if isinstance(command, commands.Withdraw) and command.kind == "child":
            created = log.creation(tx, decision.run.id, command.op_id)
            assert isinstance(created, events.ChildCreated)
            news = events.RunCancelRequested(at=now, reason="the run that awaited it gave it up")
            log.post(tx, created.run_id, news, send_at=now + engine.settings.resend_after)
            after.drives.append(created.run_id)


def _end(engine: Engine, tx: Connection, decision: Decision, after: Aftermath, now: int) -> None:
    """Close all doors, take in what came through them meanwhile, and answer who still waits."""
    assert decision.outcome is not None
    run, outcome = decision.run, decision.outcome
    hooks.close(tx, run.id, now)
    _take_in_latecomers(tx, decision)
    waits.withdraw(tx, run.id)
    if outcome.status == "cancelled":
        _drop_pending_steps(tx, decision)
    ended = decision.add(_ended(decision, now))
    _tell_parent(engine, tx, ended, run, after)
    runs.ended(tx, run.id, seq=decision.placing.seq, at=decision.placing.at)
    _answer_all(tx, decision, after, now)


def _take_in_latecomers(tx: Connection, decision: Decision) -> None:
    """What was accepted since the inbox was read is in the log all the same; a cancel makes it think again."""
    drained = set(decision.drained)
    # All of it, however much: after the end nobody would take it in.
    late = [item for item in log.drain(tx, decision.run.id, limit=None) if item.id not in drained]
    if any(isinstance(item.event, events.RunCancelRequested) for item in late):
        raise Overtaken("a cancel came first")
    taken = [item for item in late if isinstance(item.event, events.HookReceived)]
    for item in taken:
        decision.add(item.event)
    decision.drained = [*decision.drained, *(item.id for item in taken)]


def _drop_pending_steps(tx: Connection, decision: Decision) -> None:
    pending = steps.pending_of(tx, decision.run.id)
    steps.withdraw(tx, decision.run.id, pending)
    never_sent = [c.op_id for c in decision.commands if isinstance(c, commands.CreateStep)]
    for op_id in (*pending, *never_sent):
        decision.add(events.StepCancelled(at=decision.placing.at, op_id=op_id))


def _ended(decision: Decision, now: int) -> events.Event:
    assert decision.outcome is not None
    at, value = max(now, decision.placing.at), decision.outcome.value
    match decision.outcome.status:
        case "completed":
            return events.RunCompleted(at=at, result=value or "null")
        case "failed":
            return events.RunFailed(at=at, error=value or "null")
        case _:
            return events.RunCancelled(at=at, error=value, reason=decision.reason)


def _answer_all(tx: Connection, decision: Decision, after: Aftermath, now: int) -> None:
    assert decision.outcome is not None
    waiting = requests.unanswered(tx, decision.run.id)
    if decision.outcome.status == "cancelled":
        _answer(tx, waiting, _CANCELLED, now, after)
        return
    _answer(tx, (r for r in waiting if r in decision.taken), _NOT_SENT, now, after)
    _answer(tx, (r for r in waiting if r not in decision.taken), _REFUSED, now, after)


def _answer(tx: Connection, ids: Iterable[str], response: Response, now: int, after: Aftermath) -> None:
    for request_id in ids:
        holder = requests.answer(tx, request_id, response, now)
        if holder:
            after.hints.append((holder, request_id))
