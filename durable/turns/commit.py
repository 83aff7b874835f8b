"""
Writes a decision in one transaction.

The fence comes first: it moves the run's row on from the turn that was read, and fails when another turn was faster.
Then come hooks, whose rows lock out a process that is about to put a payload in, then all else.  Locks are taken in
the order run, step, hook.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from .. import events, measures
from ..engine import CALL_TIME, Engine, count_emitted
from ..errors import WorkflowCodeError
from ..replay import commands
from ..store import (
    Claim,
    DueWait,
    RunStatus,
    attributes,
    claimed_attempts,
    event_rows,
    hooks,
    is_contention,
    is_unavailable,
    published,
    retry_until_available,
    run_log,
    runs,
    steps,
    turn_leases,
    turns,
    vault,
    waits,
)
from . import admission, children, generations, new_items, new_steps, new_waits, run_end, run_row
from .decision import CommitResult, Decision, NewEvents, Overtaken
from .plain_turn import is_plain, plain_turn


def commit(engine: Engine, decision: Decision, begins: Claim | None = None) -> CommitResult:
    """
    Write *decision*, and return what is left to do.

    Args:
        begins: The claim of the one step that the decision asks for, if this process runs it next.

    Raises:
        Overtaken: Another turn or a new inbox item came first.  Nothing is written.
    """
    result = CommitResult()
    _store_large_values(engine, decision)
    admission.declare(engine, decision.limits)
    try:
        if is_plain(engine, decision):
            if not turns.commit(engine.store, plain_turn(engine, decision, begins, result)):
                raise Overtaken("another turn came first, the inbox has a new item, or the attempt was given up")
        else:
            with engine.store.begin() as tx:
                _write(engine, tx, decision, begins, result)
    except DBAPIError as error:
        if isinstance(error, IntegrityError) or is_contention(error):
            raise Overtaken(str(error.orig)) from error
        if not (is_unavailable(error) and _is_claimed(engine, begins)):
            raise
        # The transaction was committed, and only the acknowledgement was lost.
    _note(engine, decision, result)
    return result


def commit_together(engine: Engine, decided: Sequence[tuple[Decision, Claim | None]]) -> list[CommitResult | None]:
    """
    Write the plain turns of several runs, in the order of their ids, in one transaction.

    Return the result of each; None for a turn that was overtaken, of which nothing is written.
    """
    results = [CommitResult() for _ in decided]
    plain = [plain_turn(engine, *each, result) for each, result in zip(decided, results, strict=True)]
    written = turns.commit_all(engine.store, plain)
    for (decision, _), result, is_written in zip(decided, results, written, strict=True):
        if is_written:
            _note(engine, decision, result)
    return [result if is_written else None for result, is_written in zip(results, written, strict=True)]


def _note(engine: Engine, decision: Decision, result: CommitResult) -> None:
    """Note who may wait for what a committed turn has written, and count it."""
    has_emitted = any(isinstance(each, commands.EmitItem) for each in decision.commands)
    if decision.outcome is not None or has_emitted or any(map(_is_awaited, result.log)):
        result.awaited = decision.run.id
    count(engine, decision)
    count_emitted(engine.measures, "workflow", *result.emitted)


#: What counts the runs that get a status.
_COUNTERS = {
    RunStatus.COMPLETED: measures.RUNS_COMPLETED,
    RunStatus.FAILED: measures.RUNS_FAILED,
    RunStatus.CANCELLED: measures.RUNS_CANCELLED,
    RunStatus.BLOCKED: measures.RUNS_BLOCKED,
    RunStatus.CONTINUED: measures.RUNS_CONTINUED,
}


def count(engine: Engine, decision: Decision) -> None:
    """Count what a committed turn has changed of its run's status."""
    run = decision.run
    if decision.fault is None and run.started_at is None and run_row.started_at(decision) is not None:
        engine.measures.count(measures.RUNS_STARTED, run.name)
    if decision.becomes is not None:
        engine.measures.count(_COUNTERS[decision.becomes], run.name)


def _store_large_values(engine: Engine, decision: Decision) -> None:
    """Store large values outside of the database before the transaction, which would hold its locks meanwhile."""
    values, run = engine.store.vault, decision.run
    if not values.payloads.is_outside:
        return
    event_rows.store_early(values, run.id, decision.events)
    for run_id in (run.id, None if decision.is_continued else run.parent_run_id):
        if run_id is not None and decision.outcome is not None:
            values.store_early(run_id, [decision.outcome.value])
    for command in decision.commands:
        if isinstance(command, commands.CreateChild):
            values.store_early(command.run_id, [command.args])
        elif isinstance(command, commands.SendReply):
            values.store_early(run.id, [command.value])


def _is_claimed(engine: Engine, begins: Claim | None) -> bool:
    """Return whether the commit's claim is in the database.  Not to know that would cost the step an attempt."""
    if begins is None:
        return False

    def check() -> bool:
        with engine.store.read() as tx:
            held = claimed_attempts.find(tx, begins.run_id, begins.op_id)
        return held is not None and held.claim == begins.claim

    return retry_until_available(check)


def _is_awaited(event: events.Event) -> bool:
    """Return whether a caller may wait for this: a published value, or a payload that is no webhook request."""
    if isinstance(event, events.HookReceived):
        return event.request_id is None
    return isinstance(event, events.ValuePublished)


def _write(engine: Engine, tx: Connection, decision: Decision, begins: Claim | None, result: CommitResult) -> None:
    now, run = engine.store.now(), decision.run
    if decision.becomes is not None:
        engine.run_handlers.plan(tx, run.id, decision.becomes, now + CALL_TIME)
    if decision.fault is not None:
        _block(engine, tx, decision)
        return

    # The fence.  A turn that did not read the run's row must find it as the kept replay knows it.
    advance = runs.advance_unseen if decision.is_unread else runs.advance
    if not advance(tx, run, **run_row.changes(decision, decision.seq, decision.at)):
        raise Overtaken("another turn came first")
    # A turn that records the outcome of an attempt or a wait itself needs the attempt's own claim, or the wait's row.
    match decision.ends:
        case Claim() as held if not steps.end(tx, held):
            raise Overtaken("the attempt was given up")
        case DueWait() as wait if waits.end(tx, run.id, wait.op_id, engine.store.sql_now) is None:
            raise Overtaken("the wait is over, or not due yet")

    given_up = [c for c in decision.commands if isinstance(c, commands.Withdraw)]
    withdrawn = steps.withdraw(tx, run.id, [c.op_id for c in given_up if c.kind == "step"])
    result.withdrawn_from = run.id if withdrawn or decision.is_cancelled else None
    waits.withdraw(tx, run.id, [c.op_id for c in given_up if c.kind == "wait"])

    _move_hooks(tx, decision, result, now)
    run_end.reply(tx, decision.commands, now, result)
    new, drained = NewEvents(decision.seq, decision.at), list(decision.drained)
    if decision.outcome is not None and not run.ended:
        drained += run_end.end(engine, tx, decision, new, result, now)
    result.log = [*decision.events, *new.events]
    run_log.append(tx, run.id, result.log)
    changes = [event.attributes for event in result.log if isinstance(event, events.AttributesSet)]
    attributes.write(tx, run.id, run.created_at, changes)
    published.write(tx, run.id, [event for event in result.log if isinstance(event, events.ValuePublished)])
    result.emitted = new_items.write(tx, decision, max(now, new.at))
    run_log.delete_inbox_items(tx, run.id, drained)

    _create(engine, tx, decision, begins, result, now)
    result.to_drive += children.cancel(engine, tx, decision, now)
    run_end.refuse(tx, decision.refused, now, result)
    if decision.releases is not None:
        turn_leases.RELEASE.changed(tx, {"run": run.id, "holder": decision.releases})
    for event in decision.forwarded:
        result.to_drive += generations.forward(engine, tx, run, event, now)
    if decision.outcome is None and not run.ended:
        result.run = run_row.row_after(decision, new.seq, new.at)


def _move_hooks(tx: Connection, decision: Decision, result: CommitResult, now: int) -> None:
    """Close hooks, then create hooks: a token may go from one hook to the next within a turn."""
    run = decision.run
    closed = {c.op_id for c in decision.commands if isinstance(c, commands.CloseHook)}
    hooks.close(tx, run.id, now, closed)
    conflicted = {e.op_id for e in decision.events if isinstance(e, events.HookConflicted)}
    created = [c for c in decision.commands if isinstance(c, commands.CreateHook) and c.op_id not in conflicted]
    for place, command in enumerate(created):
        if command.is_handed_over:
            hooks.open_again(tx, run.id, command)
            continue
        # A microsecond apart, so that they are listed in the order of their creation.
        hooks.create(tx, run.id, command, now + place, closed=command.op_id in closed)
    result.opened = [command.token for command in created if not command.drawn and command.op_id not in closed]


def _block(engine: Engine, tx: Connection, decision: Decision) -> None:
    """Block the run.  Its log stays as it is, so that the run goes on with code that matches it."""
    reason = vault.of(tx).seal(tx, decision.run.id, "blocked", str(decision.fault))
    changes: dict[str, Any] = {"status": RunStatus.BLOCKED, "blocked": reason}
    changes |= {"blocked_version": run_row.current_code_version(engine, decision.run)}
    changes |= {"mistake_at": engine.now() if isinstance(decision.fault, WorkflowCodeError) else None}
    if not runs.advance(tx, decision.run, **changes):
        raise Overtaken("another turn came first")


def _create(
    engine: Engine, tx: Connection, decision: Decision, begins: Claim | None, result: CommitResult, now: int
) -> None:
    """Create the child runs, steps and waits that the workflow asks for."""
    run = decision.run
    if decision.is_cancelled:
        return
    given_up = {c.op_id for c in decision.commands if isinstance(c, commands.Withdraw)}
    wanted = [c for c in decision.commands if c.op_id not in given_up]
    children.create(engine, tx, decision, [c for c in wanted if isinstance(c, commands.CreateChild)], result, now)

    wanted_steps = [c for c in wanted if isinstance(c, commands.CreateStep)]
    if begins is not None:
        steps.create_claimed(tx, begins, engine.process_id)
        wanted_steps = [c for c in wanted_steps if c.op_id != begins.op_id]
    new_steps.create(engine, tx, decision, wanted_steps, result, now)
    rows, result.waits = new_waits.plan(engine, tx, run, new_waits.wanted(decision), now)
    waits.create(tx, rows)
