"""
Child runs, as the turns of their parents and their own last turn write them.

A child is a run like any other, with an inbox and turns of its own.  Parent and child talk through their inboxes: the
parent posts a cancel, the child posts its end.  Each function works in the transaction of a turn.  Those that return
ids return the runs that have to be woken after the commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from .. import events, registry
from ..client import child_report, make_row, run_limits
from ..engine import Engine
from ..replay import child_run_id, commands
from ..store import Run, RunLimit, fork_run, run_log, runs, start_run
from .decision import CommitResult, Decision, NewEvents


def create(
    engine: Engine,
    tx: Connection,
    decision: Decision,
    wanted: Sequence[commands.CreateChild],
    result: CommitResult,
    now: int,
) -> None:
    """Create the runs that these calls ask for.  Those with limits are woken once they are admitted."""
    for place, command in enumerate(wanted, 1 - len(wanted)):
        limits = [run_limits.as_run_limit(*each) for each in decision.limits.get(command.op_id, ())]
        # Those that may wait are a microsecond apart, so that they begin in the order of their calls.
        child_id = _create(engine, tx, decision.run, command, now + place if limits else now, limits)
        result.run_limit_keys.update(each.key for each in limits)
        result.to_drive += [] if limits else [child_id]


def _create(
    engine: Engine,
    tx: Connection,
    parent: Run,
    command: commands.CreateChild,
    now: int,
    limits: Sequence[RunLimit],
) -> str:
    """Create the run that a call asks for, on the queue of its workflow, and return its id."""
    workflow = registry.workflows.get(command.name)
    trace_context = runs.trace_context(engine.store.vault, parent.id, parent.trace_context)
    child = make_row(
        engine,
        command.name,
        run_id=command.run_id,
        digest=command.digest,
        now=now,
        queue=None if workflow is None else workflow.options.get("queue"),
        priority=parent.priority if workflow is None else workflow.options.get("priority", parent.priority),
        parent_run_id=parent.id,
        parent_op_id=command.op_id,
        trace_context=engine.tracing.for_child(parent, trace_context),
    )
    created = events.RunCreated(at=now, name=command.name, args=command.args)
    return start_run.create(tx, child, created, engine.dispatch.plan(now), limits=limits)


def report_end(engine: Engine, tx: Connection, run: Run, ended: events.Event) -> list[str]:
    """Post the end of a run to the inboxes of its parent, if it has one, and of the parent's forks."""
    if run.parent_run_id is None or run.parent_op_id is None:
        return []
    report = child_report.of(ended, run.parent_op_id)
    forks = fork_run.waiting_for_child(tx, run.parent_run_id, run.parent_op_id, run.first_run_id or run.id)
    awaiting = [run.parent_run_id, *(fork.id for fork in forks)]
    for run_id in awaiting:
        run_log.post(tx, run_id, report, engine.dispatch.plan(ended.at))
    return awaiting


def cancel(engine: Engine, tx: Connection, decision: Decision, now: int) -> list[str]:
    """Cancel the children that nobody awaits any more: all when the run is cancelled, else those it gave up."""
    run = decision.run
    if decision.is_cancelled:
        to_cancel = [child.id for child in runs.open_children(tx, run.id)]
        reason = "the run that called it was cancelled"
    else:
        # A child that this very turn both calls and gives up is never created.
        given_up = [c.op_id for c in decision.commands if isinstance(c, commands.Withdraw) and c.kind == "child"]
        never_created = {c.op_id for c in decision.commands if isinstance(c, commands.CreateChild)}
        to_cancel = [child_run_id(run.id, op_id) for op_id in given_up if op_id not in never_created]
        if run.forked_from is not None:
            # The children of its origin are not its own.
            own = {child.id for child in runs.open_children(tx, run.id)}
            to_cancel = [child_id for child_id in to_cancel if child_id in own]
        reason = "the run that called it gave the call up"
    for child_id in to_cancel:
        request = events.RunCancelRequested(at=now, reason=reason)
        run_log.post(tx, child_id, request, engine.dispatch.plan(now))
    return to_cancel


def record_cancelled(tx: Connection, decision: Decision, new: NewEvents) -> None:
    """Record that a cancelled run gives up the children which it has called and not awaited."""
    open_calls = [str(child.parent_op_id) for child in runs.open_children(tx, decision.run.id)]
    ended = run_log.ended_operations(tx, decision.run.id, open_calls)
    going_on = [op_id for op_id in open_calls if op_id not in ended]
    never_started = [c.op_id for c in decision.commands if isinstance(c, commands.CreateChild)]
    for op_id in decision.unended((*going_on, *never_started)):
        new.add(events.ChildCancelled(at=new.at, op_id=op_id))
