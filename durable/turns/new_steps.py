"""The steps that a turn creates and that wait for a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from .. import registry
from ..engine import Engine
from ..replay import commands
from ..store import Run, SendTimes, StepRow, limit_lines, limits, runs, steps
from .decision import CommitResult, Decision
from .offers import choose_offers


def create(
    engine: Engine,
    tx: Connection,
    decision: Decision,
    wanted: Sequence[commands.CreateStep],
    result: CommitResult,
    now: int,
) -> None:
    """Create the steps that wait for a process: some are sent, some offered, and those with limits wait for room."""
    run = decision.run
    keys = {c.op_id: [each.as_key for each in decision.limits[c.op_id]] for c in wanted if c.op_id in decision.limits}
    queues = {name: engine.dispatch.find_queue_of_step(name) for name in {c.name for c in wanted}}
    offered = choose_offers(engine, tx, run, wanted, queues)
    seqs = {event.op_id: event.seq for event in decision.events if event.phase == "created"} if offered else {}
    rows = [_row(run, c, queues[c.name], seqs[c.op_id] if c.op_id in offered else None) for c in wanted]
    sent_later = SendTimes(now + engine.settings.resend_after, None)
    sent_now = [row for row in rows if row["offered_seq"] is None and row["op_id"] not in keys]
    steps.create(tx, sent_now, engine.dispatch.plan(now))
    steps.create(tx, [row for row in rows if row["offered_seq"] is not None], sent_later)
    steps.create(tx, [row for row in rows if row["op_id"] in keys], limits.NOT_SENT)
    if keys:
        calls = [limit_lines.LimitedCall(c.op_id, keys[c.op_id], _priority(run, c)) for c in wanted if c.op_id in keys]
        limit_lines.wait(tx, run.id, runs.root_of(tx, run), calls, now)
    result.limit_keys.update(key for each in keys.values() for key in each)
    result.steps += [
        _to_send(run, c, has_offers=bool(offered)) for c in wanted if c.op_id not in offered and c.op_id not in keys
    ]


def of_plain_turn(
    engine: Engine, run: Run, wanted: Sequence[commands.CreateStep]
) -> tuple[list[dict[str, Any]], list[StepRow]]:
    """Return the rows of steps that are all sent, and what their messages are made from."""
    rows = [_row(run, command, engine.dispatch.find_queue_of_step(command.name)) for command in wanted]
    return rows, [_to_send(run, command) for command in wanted]


def _row(run: Run, command: commands.CreateStep, queue: str | None, offered_seq: int | None = None) -> dict[str, Any]:
    row = {"run_id": run.id, "op_id": command.op_id, "name": command.name, "not_before": 0, "queue": queue}
    return row | {"offered_seq": offered_seq}


def _to_send(run: Run, command: commands.CreateStep, *, has_offers: bool = False) -> StepRow:
    """Return what the message of a step's first attempt is made from."""
    return StepRow(
        run.id,
        command.op_id,
        command.name,
        1,
        0,
        run.queue,
        run.priority,
        args=command.args,
        trace_context=run.trace_context,
        has_offers=has_offers,
    )


def _priority(run: Run, command: commands.CreateStep) -> int | None:
    """Return the priority of a step: its own, else that of its run."""
    step = registry.steps.get(command.name)
    own = None if step is None else step.options.get("priority")
    return run.priority if own is None else own
