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
from ..client import make_row, run_limits
from ..client import run as client_run
from ..engine import Engine
from ..sandbox import log_records
from ..store import DriveRow, LimitKey, Run, RunLimit, ScheduledRun, ScheduleRow, reason, schedules, start_run
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
    #: By run, the keys of the limits that it waits for.
    limit_keys: dict[str, list[LimitKey]] = field(default_factory=dict)

    def add(self, run: Run, limits: Sequence[RunLimit]) -> None:
        """Note a run that was started."""
        self.runs.append(run)
        self.limit_keys[run.id] = [each.key for each in limits]


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
    limits: dict[str, list[RunLimit]] = {}
    plans = {
        row.name: plan for row in due if (plan := _plan(engine, tx, row, now, latest[row.name], limits)) is not None
    }
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
                run = start(engine, tx, row, planned, key(row.name, planned), limits[row.name])
                started.add(run, limits[row.name])
        schedules.forget_runs(tx, row.name, latest[row.name])
    return started


def _plan(
    engine: Engine,
    tx: Connection,
    row: ScheduleRow,
    now: int,
    known: Collection[ScheduledRun],
    limits: dict[str, list[RunLimit]],
) -> SchedulePlan | None:
    """
    What the schedule does; None when this process cannot fire it, which is logged and tried again later.

    Args:
        limits: Gets the limits of its runs.
    """
    try:
        limits[row.name] = limits_of(engine, tx, row)
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


def limits_of(engine: Engine, tx: Connection, row: ScheduleRow) -> list[RunLimit]:
    """Return the limits of a schedule's runs, which this declares.  Raises what a key function raises."""
    workflow = registry.workflows.get(row.workflow)
    _, args = schedules.arguments_of(engine.store.vault, row)
    found = run_limits.of_call(workflow, args)
    if workflow is not None and found:
        run_limits.declare(engine, workflow.limits, tx)
    return found


def start(
    engine: Engine,
    tx: Connection,
    row: ScheduleRow,
    planned: int,
    idempotency_key: str | None,
    limits: Sequence[RunLimit],
) -> Run:
    """Start a run of the schedule for a planned time, in a transaction that has passed the schedule's fence."""
    now = engine.now()
    digest, args = schedules.arguments_of(engine.store.vault, row)
    run = make_row(
        engine,
        row.workflow,
        run_id=start_run.new_run_id(now),
        digest=digest,
        now=now,
        queue=row.queue,
        priority=row.priority,
        idempotency_key=idempotency_key,
        scheduled_for=planned,
    )
    with engine.tracing.start(run.name, run.id) as trace_context:
        run = replace(run, trace_context=trace_context)
        created = events.RunCreated(at=now, name=run.name, args=args, scheduled_for=planned)
        start_run.create(tx, run, created, engine.dispatch.plan(now), limits=limits)
    schedules.add_run(tx, row.name, run.id, planned)
    return run


def send(engine: Engine, started: StartedRuns) -> None:
    """Send the messages of what was committed; the sweep sends those that are lost."""
    if started.runs:
        failpoints.hit("schedule.fired")
        rows = [
            DriveRow(run.id, run.queue, run.priority, trace_context=run.trace_context)
            for run in started.runs
            if not started.limit_keys[run.id]
        ]
        engine.dispatch.send_turns(rows)
        run_limits.admit(engine, {each for keys in started.limit_keys.values() for each in keys})
    if started.cancelled:
        engine.send_turns(*started.cancelled)


def key(name: str, planned: int) -> str:
    """The idempotency key of a schedule's run."""
    return f"schedule:{name}:{duration.iso(planned)}"
