"""
Fires schedules: in one transaction a schedule moves to its next planned time, and the runs of this one start.

The row's version is the fence between two processes, and the idempotency key of the run is the schedule's name with
the planned time: whatever dies, a planned time starts one run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from .. import duration, events, failpoints, registry
from ..client import run as client_run
from ..client import start as client_start
from ..engine import Engine
from ..sandbox import log_records
from ..store import DriveRow, Run, RunStatus, ScheduledRun, ScheduleRow, reason, schedules, start_run
from .plan import SchedulePlan, decide

#: How many schedules one transaction fires.
BATCH = 50
#: When a schedule that cannot be fired is tried again.
_RETRY_AFTER = 60_000_000

log = log_records.get("durable.schedules")


@dataclass(frozen=True, slots=True)
class StartedRuns:
    """What a transaction has started and cancelled; messages follow its commit."""

    runs: list[Run] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)


def fire_due(engine: Engine) -> bool:
    """Fire the schedules whose time has come.  Returns whether there may be more."""
    now = engine.now()
    with engine.store.read() as tx:
        due = schedules.due(tx, now, BATCH)
    if not due:
        return False
    # In one order in every process, so that two of them wait for each other and do not deadlock.
    due.sort(key=lambda row: row.name)
    try:
        started = engine.store.write(lambda tx: _fire(engine, tx, due, now))
    except IntegrityError:
        # Another process has started a run under one of the keys meanwhile: the next round sees it.
        return True
    send(engine, started)
    return len(due) == BATCH


def _fire(engine: Engine, tx: Connection, due: Sequence[ScheduleRow], now: int) -> StartedRuns:
    """Move each schedule on, and start its runs, in the caller's transaction."""
    started = StartedRuns()
    latest = schedules.latest_runs(tx, [row.name for row in due])
    plans = {row.name: plan for row in due if (plan := _plan(engine, tx, row, now, latest[row.name])) is not None}
    keys = {key(name, planned) for name, plan in plans.items() for planned in plan.starts}
    used = schedules.keys_in_use(tx, keys) if keys else set()
    for row in due:
        plan = plans.get(row.name)
        if plan is None or not _move(tx, row, plan):
            continue
        for run_id in plan.cancels:
            client_run.post_cancel(engine, tx, run_id, f"schedule {row.name} starts its next run")
            started.cancelled.append(run_id)
        for planned in plan.starts:
            if key(row.name, planned) not in used:
                started.runs.append(start(engine, tx, row, planned, key(row.name, planned)))
        schedules.forget_runs(tx, row.name, latest[row.name])
    return started


def _plan(
    engine: Engine, tx: Connection, row: ScheduleRow, now: int, known: Collection[ScheduledRun]
) -> SchedulePlan | None:
    """What the schedule does; None when this process cannot fire it, which is logged and tried again later."""
    try:
        schedules.arguments_of(engine.store.vault, row)
        return decide(row, now, [run.run_id for run in known if run.is_open])
    except Exception as error:
        # One schedule must not keep the others waiting: its key is missing, or a newer release has written it.
        log.error("Schedule %s cannot be fired (%s); it is tried again in a minute.", row.name, reason(error))
        schedules.change(tx, row, fire_at=now + _RETRY_AFTER)
        return None


def _move(tx: Connection, row: ScheduleRow, plan: SchedulePlan) -> bool:
    position = plan.position
    return schedules.move(
        tx,
        row,
        planned_at=position.planned_at,
        fire_at=position.fire_at,
        is_held=plan.is_held,
        skipped=row.skipped + plan.skipped,
    )


def start(engine: Engine, tx: Connection, row: ScheduleRow, planned: int, idempotency_key: str | None) -> Run:
    """Start a run of the schedule for a planned time, in a transaction that has passed the schedule's fence."""
    now = engine.now()
    digest, args = schedules.arguments_of(engine.store.vault, row)
    # The process with the sweep's lease may be one that does not have the workflow.
    workflow = registry.workflows.get(row.workflow)
    run = Run(
        id=client_start.new_run_id(now),
        name=row.workflow,
        status=RunStatus.PENDING,
        turn=0,
        seq=0,
        last_at=now,
        queue=row.queue,
        priority=row.priority,
        digest=digest,
        idempotency_key=idempotency_key,
        code_version=None if workflow is None else engine.code_version(workflow),
        python_version=None,
        parent_run_id=None,
        parent_op_id=None,
        not_before=None,
        blocked=None,
        blocked_version=None,
        created_at=now,
        started_at=None,
        completed_at=None,
        scheduled_for=planned,
    )
    with engine.tracing.start(run.name, run.id) as trace_context:
        run = replace(run, trace_context=trace_context)
        created = events.RunCreated(at=now, name=run.name, args=args, scheduled_for=planned)
        start_run.create(tx, run, created, engine.dispatch.plan(now))
    schedules.add_run(tx, row.name, run.id, planned)
    return run


def send(engine: Engine, started: StartedRuns) -> None:
    """Send the messages of what was committed; the sweep sends those that are lost."""
    if started.runs:
        failpoints.hit("schedule.fired")
        rows = [DriveRow(run.id, run.queue, run.priority, trace_context=run.trace_context) for run in started.runs]
        engine.dispatch.send_turns(rows)
    if started.cancelled:
        engine.wake(*started.cancelled)


def key(name: str, planned: int) -> str:
    """The idempotency key of a schedule's run."""
    return f"schedule:{name}:{duration.iso(planned)}"
