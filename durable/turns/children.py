"""
Child runs, as their parents' turns write them: begun, cancelled, and their end told.

A child is a run like any other, with an inbox and turns of its own.  What is
between the two is news: a cancel from the parent, the end from the child.
Each function works in the transaction of a turn; what it returns are the ids
of the runs that have news now, to be driven after the commit.
"""

from __future__ import annotations

from sqlalchemy import Connection

from .. import events, registry
from ..engine import Engine
from ..replay import child_run_id, commands
from ..store import Run, RunStatus, run_log, runs, start_run
from .decision import Decision


def create(engine: Engine, tx: Connection, parent: Run, command: commands.CreateChild, now: int) -> list[str]:
    """The run that a call asks for, on the queue of its workflow."""
    workflow = registry.workflows.get(command.name)
    child = Run(
        id=command.run_id,
        name=command.name,
        status=RunStatus.PENDING,
        turn=0,
        seq=0,
        last_at=now,
        queue=None if workflow is None else workflow.options.get("queue"),
        priority=parent.priority if workflow is None else workflow.options.get("priority", parent.priority),
        digest=command.digest,
        idempotency_key=None,
        code_version=None if workflow is None else engine.code_version(workflow),
        python_version=None,
        parent_run_id=parent.id,
        parent_op_id=command.op_id,
        not_before=None,
        blocked=None,
        blocked_version=None,
        created_at=now,
        started_at=None,
        completed_at=None,
    )
    created = events.RunCreated(at=now, name=command.name, args=command.args)
    start_run.create(tx, child, created, engine.dispatch.plan(now))
    return [child.id]


def tell_parent(engine: Engine, tx: Connection, run: Run, ended: events.Event) -> list[str]:
    """The end of a run is news for the one that called it, if one did."""
    if run.parent_run_id is None or run.parent_op_id is None:
        return []
    at, op_id = ended.at, run.parent_op_id
    news: events.Event
    match ended:
        case events.RunCompleted(result=result):
            news = events.ChildCompleted(at=at, op_id=op_id, result=result)
        case events.RunFailedEvent(error=error):
            news = events.ChildFailed(at=at, op_id=op_id, error=error)
        case events.RunCancelledEvent(reason=reason):
            news = events.ChildCancelled(at=at, op_id=op_id, reason=reason)
        case _:
            raise AssertionError(f"{ended.kind} does not end a run")
    run_log.post(tx, run.parent_run_id, news, engine.dispatch.plan(at))
    return [run.parent_run_id]


def cancel(engine: Engine, tx: Connection, decision: Decision, now: int) -> list[str]:
    """A child that nobody awaits any more is cancelled: with its call, or with the run that called it."""
    if decision.is_cancelled:
        gone = [child.id for child in runs.open_children(tx, decision.run.id)]
        reason = "the run that called it was cancelled"
    else:
        gone = _withdrawn(decision)
        reason = "the run that called it gave the call up"
    for child_id in gone:
        news = events.RunCancelRequested(at=now, reason=reason)
        run_log.post(tx, child_id, news, engine.dispatch.plan(now))
    return gone


def _withdrawn(decision: Decision) -> list[str]:
    """Ids of the runs whose call was given up; one that this very turn has called never began."""
    withdrawn = [c.op_id for c in decision.commands if isinstance(c, commands.Withdraw) and c.kind == "child"]
    never_began = {c.op_id for c in decision.commands if isinstance(c, commands.CreateChild)}
    return [child_run_id(decision.run.id, op_id) for op_id in withdrawn if op_id not in never_began]


def drop(tx: Connection, decision: Decision) -> None:
    """What the workflow called and did not await when it was cancelled is given up with it."""
    known = [str(child.parent_op_id) for child in runs.open_children(tx, decision.run.id)]
    ended = run_log.ended_operations(tx, decision.run.id, known)
    going_on = [op_id for op_id in known if op_id not in ended]
    never_started = [c.op_id for c in decision.commands if isinstance(c, commands.CreateChild)]
    for op_id in decision.unended((*going_on, *never_started)):
        decision.add(events.ChildCancelled(at=decision.placing.at, op_id=op_id))
