"""
One turn's writing: a decision in one transaction, and what has to be sent after it.

The fence comes first: it moves the run on from the turn that was read, and
fails when another turn was here.  Then hooks (their rows lock out whoever is
about to put a payload in), then all else.  Locks are taken in the order run,
step, hook.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from .. import events, registry
from ..engine import Engine
from ..replay import commands
from ..store import (
    Run,
    RunStatus,
    StepRow,
    WaitRow,
    attributes,
    event_rows,
    hooks,
    is_contention,
    is_unavailable,
    retry_until_available,
    run_log,
    runs,
    steps,
    turns,
    vault,
    waits,
)
from . import children, run_end
from .decision import CommitResult, Decision, Overtaken


def commit(engine: Engine, decision: Decision) -> CommitResult:
    """Write *decision*; Overtaken: somebody else was here, and nothing is written."""
    after = CommitResult()
    _stow_ahead(engine, decision)
    try:
        if _is_plain(decision):
            _write_plain(engine, decision)
        else:
            with engine.store.begin() as tx:
                _write(engine, tx, decision, after)
    except DBAPIError as error:
        if isinstance(error, IntegrityError) or is_contention(error):
            raise Overtaken(str(error.orig)) from error
        if not _is_written(engine, decision, error):
            raise
    after.ended = None if decision.outcome is None else decision.run.id
    return after


def _stow_ahead(engine: Engine, decision: Decision) -> None:
    """Store large values outside of the database before the transaction: it would keep locks meanwhile."""
    kept, run = engine.store.vault, decision.run
    if not kept.payloads.is_outside:
        return
    event_rows.store_early(kept, run.id, decision.events)
    for run_id in (run.id, run.parent_run_id):
        if run_id is not None and decision.outcome is not None:
            kept.store_early(run_id, [decision.outcome.value])
    for command in decision.commands:
        if isinstance(command, commands.CreateChild):
            kept.store_early(command.run_id, [command.args])


def _is_written(engine: Engine, decision: Decision, error: DBAPIError) -> bool:
    """Whether only the acknowledgement of a commit was lost, where it would cost the step an attempt not to know."""
    here = decision.continues
    if here is None or not is_unavailable(error):
        return False

    def look() -> bool:
        with engine.store.read() as tx:
            held = steps.claimed(tx, here.run_id, here.op_id)
        return held is not None and held.claim == here.claim

    return retry_until_available(look)


def _is_plain(decision: Decision) -> bool:
    """Whether the log, the run's row, and at most one attempt that ends and one that begins here are all there is."""
    here = [] if decision.continues is None else [decision.continues.op_id]
    if decision.fault is not None or decision.refused or [each.op_id for each in decision.commands] != here:
        return False
    if len(decision.events) > turns.MOST or len(decision.drained) > turns.MOST or not _changes_only_the_log(decision):
        return False
    return bool(decision.events) if decision.outcome is None else _ends_quietly(decision)


def _changes_only_the_log(decision: Decision) -> bool:
    """Whether no event has rows elsewhere, as large values have, and the run goes on from where it was."""
    elsewhere = any(isinstance(event, events.AttributesSet) for event in decision.events)
    elsewhere = elsewhere or event_rows.has_large(decision.events)
    return not elsewhere and decision.run.status in (RunStatus.PENDING, RunStatus.RUNNING)


def _ends_quietly(decision: Decision) -> bool:
    """Whether the run ends and nobody else has to hear of it, since it had steps and nothing else."""
    if decision.outcome is None or vault.is_large(decision.outcome.value) or decision.is_cancelled:
        return False
    return decision.has_only_steps and decision.run.parent_run_id is None


def _write_plain(engine: Engine, decision: Decision) -> None:
    if decision.outcome is not None:
        decision.add(run_end.ended(decision, engine.store.now()))
    turn = turns.PlainTurn(
        before=decision.run,
        after=advanced(decision),
        new=decision.events,
        drained=decision.drained,
        ends=decision.ends,
        begins=decision.continues,
        worker_id=engine.process_id,
    )
    if not turns.commit(engine.store, turn):
        raise Overtaken("another turn came first, there is news, or the attempt was given up")


def _write(engine: Engine, tx: Connection, decision: Decision, after: CommitResult) -> None:
    now = engine.store.now()
    if decision.fault is not None:
        _block(engine, tx, decision)
        return
    _fence(tx, decision)
    _end_attempt(tx, decision)
    _withdraw(tx, decision)
    _hooks(tx, decision, now)
    if decision.outcome is not None and not decision.run.ended:
        run_end.end(engine, tx, decision, after, now)
    run_log.append(tx, decision.run.id, decision.events)
    attributes.write(
        tx, decision.run.id, [e.attributes for e in decision.events if isinstance(e, events.AttributesSet)]
    )
    run_log.delete_inbox_items(tx, decision.run.id, decision.drained)
    _create(engine, tx, decision, after, now)
    after.drives += children.cancel(engine, tx, decision, now)
    run_end.refuse(tx, decision.refused, now, after)


def _block(engine: Engine, tx: Connection, decision: Decision) -> None:
    """Keep the log as it is: the run goes on with code that matches it."""
    version = current_code_version(engine, decision.run)
    why = vault.of(tx).seal(tx, decision.run.id, "blocked", str(decision.fault))
    if not runs.advance(tx, decision.run, status=RunStatus.BLOCKED, blocked=why, blocked_version=version):
        raise Overtaken("another turn came first")


def current_code_version(engine: Engine, run: Run) -> str | None:
    """The version of the workflow's code in this process, None when it does not know the workflow."""
    known = registry.workflows.get(run.name)
    return None if known is None else engine.code_version(known)


def _fence(tx: Connection, decision: Decision) -> None:
    advance = runs.advance if decision.ends is None else runs.advance_unseen
    if not advance(tx, decision.run, **_changes(decision)):
        raise Overtaken("another turn came first")


def _end_attempt(tx: Connection, decision: Decision) -> None:
    """Of a turn that records an attempt's outcome itself: only that attempt's own claim allows it."""
    if decision.ends is not None and not steps.end(tx, decision.ends):
        raise Overtaken("the attempt was given up")


def _changes(decision: Decision) -> dict[str, Any]:
    """What becomes of the run's row."""
    run = decision.run
    changes: dict[str, Any] = {"seq": decision.placing.seq, "last_at": decision.placing.at}
    if run.ended:
        return changes
    changes |= {"status": decision.outcome.status if decision.outcome else RunStatus.RUNNING}
    changes |= {"blocked": None, "blocked_version": None}
    if run.started_at is None:
        changes |= {"started_at": started_at(decision), "python_version": platform.python_version()}
    return changes


def started_at(decision: Decision) -> int | None:
    """When the run began, by what the decision writes."""
    started = (event.at for event in decision.events if isinstance(event, events.RunStarted))
    return decision.run.started_at or next(started, None)


def advanced(decision: Decision) -> Run:
    """The run's row once the decision is committed."""
    if decision.after is None:
        run = decision.run
        completed_at = run.completed_at if decision.outcome is None else decision.placing.at
        changes = _changes(decision) | {"completed_at": completed_at}
        decision.after = replace(run, turn=run.turn + 1, turn_tries=None, turn_tried=None, **changes)
    return decision.after


def _withdraw(tx: Connection, decision: Decision) -> None:
    gone = [c for c in decision.commands if isinstance(c, commands.Withdraw)]
    steps.withdraw(tx, decision.run.id, [c.op_id for c in gone if c.kind == "step"])
    waits.withdraw(tx, decision.run.id, [c.op_id for c in gone if c.kind == "wait"])


def _hooks(tx: Connection, decision: Decision, now: int) -> None:
    """Close before creating: a token may go from one hook to the next within a turn."""
    closed = {c.op_id for c in decision.commands if isinstance(c, commands.CloseHook)}
    hooks.close(tx, decision.run.id, now, closed)
    conflicted = {e.op_id for e in decision.events if isinstance(e, events.HookConflicted)}
    mine = [c for c in decision.commands if isinstance(c, commands.CreateHook) and c.op_id not in conflicted]
    for place, command in enumerate(mine):
        # A microsecond apart, so that they are listed in the order of their creation.
        hooks.create(tx, decision.run.id, command, now + place, closed=command.op_id in closed)


def _create(engine: Engine, tx: Connection, decision: Decision, after: CommitResult, now: int) -> None:
    run = decision.run
    if decision.is_cancelled:
        return
    given_up = {c.op_id for c in decision.commands if isinstance(c, commands.Withdraw)}
    wanted = [c for c in decision.commands if c.op_id not in given_up]
    for command in wanted:
        if isinstance(command, commands.CreateChild):
            after.drives += children.create(engine, tx, run, command, now)
    new_steps = [c for c in wanted if isinstance(c, commands.CreateStep)]
    here = decision.continues
    if here is not None:
        steps.create_claimed(tx, here, engine.process_id)
        new_steps = [c for c in new_steps if c.op_id != here.op_id]
    queues = {name: engine.dispatch.known_queue_of_step(name) for name in {c.name for c in new_steps}}
    new_waits = [c for c in wanted if isinstance(c, commands.CreateWait)]
    steps.create(
        tx,
        [
            {"run_id": run.id, "op_id": c.op_id, "name": c.name, "not_before": 0, "queue": queues[c.name]}
            for c in new_steps
        ],
        engine.dispatch.plan(now),
    )
    after.steps += [StepRow(run.id, c.op_id, c.name, 1, 0, run.queue, run.priority) for c in new_steps]
    if decision.outcome is not None:
        return
    planned = [(c, engine.dispatch.plan_at(tx, now, c.due_at)) for c in new_waits]
    waits.create(tx, [{"run_id": run.id, "op_id": c.op_id, "due_at": c.due_at} | plan.values() for c, plan in planned])
    after.waits += [
        WaitRow(run.id, c.op_id, c.due_at, run.queue, run.priority, is_deferred=plan.is_deferred) for c, plan in planned
    ]
