"""
Plain turns: most turns write only the log, the run's row, waits, a few steps, and an attempt or a wait that ends.

On PostgreSQL such a turn is one statement, and turns of several runs go in one transaction.
"""

from __future__ import annotations

from typing import Any

from .. import events
from ..client import run_limits
from ..engine import Engine
from ..replay import commands
from ..store import Claim, event_rows, turns, vault
from . import new_steps, new_waits, run_end
from .decision import CommitResult, Decision, NewEvents
from .offers import LEAST
from .run_row import row_after


def is_plain(engine: Engine, decision: Decision) -> bool:
    """Return whether the turn writes only the log, the run's row, waits, a few steps, and an attempt that ends."""
    if decision.fault is not None or decision.refused or decision.limits:
        return False
    if engine.run_handlers.wants(decision.becomes):
        return False
    if not all(map(_is_of_plain_turn, decision.commands)):
        return False
    new_steps_count = sum(isinstance(each, commands.CreateStep) for each in decision.commands)
    if new_steps_count > (LEAST if decision.outcome is None else 0):
        return False
    # Attributes, published values and large values have rows in other tables.
    if any(isinstance(event, events.AttributesSet | events.ValuePublished) for event in decision.events):
        return False
    if event_rows.has_large(decision.events) or decision.run.status not in ("pending", "running"):
        return False
    if decision.outcome is None:
        return bool(decision.events)
    # A parent, a child, a hook, a request or the next generation may need to learn of the end.
    ends_alone = decision.is_plain_end and decision.run.parent_run_id is None
    ends_alone = ends_alone and not decision.is_cancelled and not decision.is_continued
    return ends_alone and not run_limits.has_limits(decision.run) and not vault.is_large(decision.outcome.value)


def _is_of_plain_turn(command: commands.Command) -> bool:
    if isinstance(command, commands.Withdraw):
        return command.kind == "wait"
    return isinstance(command, commands.CreateStep | commands.CreateWait)


def plain_turn(engine: Engine, decision: Decision, begins: Claim | None, result: CommitResult) -> turns.PlainTurn:
    """Return what a plain turn writes, and add to *result* what is left to do then."""
    new = NewEvents(decision.seq, decision.at)
    if decision.outcome is not None:
        new.add(run_end.end_event(decision, max(engine.store.now(), new.at)))
    after = row_after(decision, new.seq, new.at)
    if decision.outcome is None:
        result.run = after
    result.log = [*decision.events, *new.events]
    begun = None if begins is None else begins.op_id
    wanted = [c for c in decision.commands if isinstance(c, commands.CreateStep) and c.op_id != begun]
    creates, result.steps = new_steps.of_plain_turn(engine, decision.run, wanted)
    created, withdraws = new_waits.wanted(decision), new_waits.withdrawn(decision)
    rows: list[dict[str, Any]] = []
    if created:
        with engine.store.read() as tx:
            rows, result.waits = new_waits.plan(engine, tx, decision.run, created, engine.store.now())
    return turns.PlainTurn(
        before=decision.run,
        after=after,
        new=result.log,
        drained=decision.drained,
        ends=decision.ends,
        is_unread=decision.is_unread,
        releases=decision.releases,
        begins=begins,
        creates=creates,
        waits=rows,
        withdraws=withdraws,
        sending=engine.dispatch.plan(engine.store.now()),
        worker_id=engine.process_id,
    )
