"""The waits that a turn creates, and those that it withdraws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from ..engine import Engine
from ..replay import commands
from ..store import DueWait, Run, WaitRow
from .decision import Decision


def wanted(decision: Decision) -> list[commands.CreateWait]:
    """Return the waits to create: none that the same turn has given up, and none when the run ends."""
    if decision.outcome is not None:
        return []
    given_up = {each.op_id for each in decision.commands if isinstance(each, commands.Withdraw)}
    asked = (each for each in decision.commands if isinstance(each, commands.CreateWait))
    return [each for each in asked if each.op_id not in given_up]


def withdrawn(decision: Decision) -> list[str]:
    """Return the operations of waits that the turn withdraws, without the wait whose end it records."""
    given_up = [c.op_id for c in decision.commands if isinstance(c, commands.Withdraw) and c.kind == "wait"]
    ended = decision.ends.op_id if isinstance(decision.ends, DueWait) else None
    return [op_id for op_id in (*given_up, *decision.open_waits) if op_id != ended]


def plan(
    engine: Engine, tx: Connection, run: Run, created: Sequence[commands.CreateWait], now: int
) -> tuple[list[dict[str, Any]], list[WaitRow]]:
    """Return the rows of new waits, and what their messages are made from."""
    planned = [(each, engine.dispatch.plan_at(tx, now, each.due_at)) for each in created]
    rows = [{"run_id": run.id, "op_id": c.op_id, "due_at": c.due_at} | plan.values() for c, plan in planned]
    messages = [
        WaitRow(
            run.id,
            c.op_id,
            c.due_at,
            run.queue,
            run.priority,
            is_deferred=plan.is_deferred,
            trace_context=run.trace_context,
        )
        for c, plan in planned
    ]
    return rows, messages
