"""The steps that a turn creates and that wait for a process."""

from __future__ import annotations

from collections.abc import Sequence

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
    rows = [
        {"run_id": run.id, "op_id": c.op_id, "name": c.name, "not_before": 0, "queue": queues[c.name]}
        | {"offered_seq": seqs[c.op_id] if c.op_id in offered else None}
        for c in wanted
    ]
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
        StepRow(
            run.id,
            c.op_id,
            c.name,
            1,
            0,
            run.queue,
            run.priority,
            args=c.args,
            trace_context=run.trace_context,
            has_offers=bool(offered),
        )
        for c in wanted
        if c.op_id not in offered and c.op_id not in keys
    ]


def _priority(run: Run, command: commands.CreateStep) -> int | None:
    """Return the priority of a step: its own, else that of its run."""
    step = registry.steps.get(command.name)
    own = None if step is None else step.options.get("priority")
    return run.priority if own is None else own
