"""
What is there now: open runs, waiting work and live processes, for metrics.

Every query uses an index.  Those of waiting work read at most ``MOST_WAITING`` rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from .schema import inbox, leases, runs, steps, waits, workers
from .transitions import RunStatus, StepStatus

#: The most rows of each work list that are counted; a longer backlog counts as this many.
MOST_WAITING = 100_000

_OPEN = (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.BLOCKED)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for the workers of a queue (as the row names it), and since when the oldest of it waits."""

    queue: str | None
    waiting: int
    since: int


@dataclass(frozen=True, slots=True)
class SweepLease:
    """The lease of the process that sweeps: whether a process has it, and until when."""

    is_held: bool
    expires_at: int


def open_runs(tx: Connection) -> dict[str, int]:
    """How many runs have not ended, by status; also the statuses without a run."""
    query = select(runs.c.status, func.count()).where(runs.c.status.in_(_OPEN)).group_by(runs.c.status)
    return {str(status): 0 for status in _OPEN} | {str(status): int(count) for status, count in tx.execute(query)}


def live_workers(tx: Connection, since: int) -> int:
    """How many processes that run steps have sent a heartbeat since then."""
    return int(tx.execute(select(func.count()).where(workers.c.beat_at >= since)).scalar_one())


def deaf_workers(tx: Connection, since: int) -> int:
    """How many of them belong to a worker that takes no messages."""
    deaf = select(func.count()).where(workers.c.beat_at >= since, workers.c.deaf_since.is_not(None))
    return int(tx.execute(deaf).scalar_one())


def running_attempts(tx: Connection) -> int:
    """How many attempts processes have claimed and not ended."""
    # Every process's id is greater than the empty text; written like this, every database uses the index.
    claimed = (steps.c.worker_id > "", steps.c.status == StepStatus.CLAIMED)
    return int(tx.execute(select(func.count()).where(*claimed)).scalar_one())


def waiting_steps(tx: Connection, now: int) -> list[Backlog]:
    """Attempts that could run now and wait for a worker, by the queue of their last message."""
    # A step without a message waits since the sweep checked it first: the broker is away, or the step is offered.
    checked_at = case((steps.c.next_send_at > now, now), else_=steps.c.next_send_at)
    since = func.coalesce(steps.c.sent_at, checked_at).label("since")
    some = (
        select(steps.c.queue, since)
        .where(steps.c.next_send_at.is_not(None), steps.c.not_before <= now)
        .order_by(steps.c.next_send_at)
        .limit(MOST_WAITING)
        .subquery()
    )
    query = select(some.c.queue, func.count(), func.min(some.c.since)).group_by(some.c.queue)
    return [Backlog(queue, int(count), int(oldest)) for queue, count, oldest in tx.execute(query)]


def waiting_turns(tx: Connection, now: int) -> list[Backlog]:
    """Runs whose inbox has something for a turn now, by the queue of their start; none that a limit holds."""
    some = (
        select(inbox.c.run_id, inbox.c.at)
        .where(inbox.c.at <= now, inbox.c.next_send_at.is_not(None))
        .order_by(inbox.c.id)
        .limit(MOST_WAITING)
        .subquery()
    )
    is_due = (runs.c.not_before.is_(None)) | (runs.c.not_before <= now)
    query = (
        select(runs.c.queue, func.count(runs.c.id.distinct()), func.min(some.c.at))
        .join(some, some.c.run_id == runs.c.id)
        .where(runs.c.status.in_((RunStatus.PENDING, RunStatus.RUNNING)), is_due)
        .group_by(runs.c.queue)
    )
    return [Backlog(queue, int(count), int(oldest)) for queue, count, oldest in tx.execute(query)]


def oldest_overdue_timer(tx: Connection, now: int) -> int | None:
    """When the sleep or timeout was due that is most overdue; None when none is."""
    # A timer's check by the sweep is never before it is due, except to give its message to a worker early.
    overdue = (waits.c.next_send_at <= now, waits.c.due_at <= now)
    found = tx.execute(select(func.min(waits.c.due_at)).where(*overdue)).scalar_one_or_none()
    return None if found is None else int(found)


def sweep_lease(tx: Connection, name: str) -> SweepLease | None:
    """The lease of the process that sweeps; None when no process has ever swept."""
    row = tx.execute(select(leases.c.owner, leases.c.expires_at).where(leases.c.name == name)).one_or_none()
    return None if row is None else SweepLease(row.owner is not None, int(row.expires_at))
