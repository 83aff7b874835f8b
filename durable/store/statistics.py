"""
Numbers for the dashboard: ended runs by workflow, durations and throughput, and the backlog of each queue.

Each query reads at most ``SAMPLE`` rows, the newest ones, by an index.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Subquery, case, func, select

from .backlog import BOUND
from .schema import runs, steps, waits
from .transitions import RunStatus, StepStatus

#: How many ended runs the numbers of a time window are made from at most.
SAMPLE = 100_000


@dataclass(frozen=True, slots=True)
class Ended:
    """How many runs of a workflow ended with a status in one slice of a time window."""

    name: str
    status: str
    slice: int
    count: int


@dataclass(frozen=True, slots=True)
class Durations:
    """The 50th and 95th percentile of how long completed runs of a workflow took, in microseconds."""

    p50: int
    p95: int


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    """Steps of one queue that wait for a worker now, and since when the oldest does; None is the default queue."""

    queue: str | None
    count: int
    oldest: int


def sampled_since(tx: Connection, since: int, limit: int = SAMPLE) -> int:
    """The time from which the newest *limit* ended runs are; *since* when there are fewer since then."""
    query = select(runs.c.completed_at).where(runs.c.completed_at >= since).order_by(runs.c.completed_at.desc())
    first = tx.execute(query.offset(limit).limit(1)).scalar_one_or_none()
    return since if first is None else int(first) + 1


def ended(tx: Connection, since: int, until: int, begin: int, slices: int) -> list[Ended]:
    """
    Runs that ended since then, by workflow, status and slice of the time.

    Args:
        begin: The beginning of the window, which the slices divide up to *until*.
    """
    width = max(1, -(-(until - begin) // slices))
    number = ((runs.c.completed_at - begin) // width).label("slice")
    found = select(runs.c.name, runs.c.status, number)
    inner = found.where(runs.c.completed_at >= since, runs.c.completed_at < until).subquery()
    query = select(inner.c.name, inner.c.status, inner.c.slice, func.count())
    rows = tx.execute(query.group_by(inner.c.name, inner.c.status, inner.c.slice))
    return [Ended(name, status, int(at), count) for name, status, at, count in rows]


def durations(tx: Connection, since: int) -> dict[str, Durations]:
    """How long the runs took that completed since then, by workflow."""
    ranked = _ranked(since)
    middle, most = _rank(ranked, 50), _rank(ranked, 95)
    query = select(
        ranked.c.name,
        func.min(case((ranked.c.number == middle, ranked.c.took))),
        func.min(case((ranked.c.number == most, ranked.c.took))),
    ).where((ranked.c.number == middle) | (ranked.c.number == most))
    return {name: Durations(int(p50), int(p95)) for name, p50, p95 in tx.execute(query.group_by(ranked.c.name))}


def _ranked(since: int) -> Subquery:
    took = runs.c.completed_at - func.coalesce(runs.c.started_at, runs.c.created_at)
    return (
        select(
            runs.c.name,
            took.label("took"),
            func.row_number().over(partition_by=runs.c.name, order_by=took).label("number"),
            func.count().over(partition_by=runs.c.name).label("total"),
        )
        .where(runs.c.completed_at >= since, runs.c.status == RunStatus.COMPLETED)
        .subquery()
    )


def _rank(ranked: Subquery, percent: int) -> ColumnElement[int]:
    """The number of the row at a percentile: the nearest rank."""
    return (ranked.c.total * percent + 99) // 100


def open_by_name(tx: Connection) -> dict[tuple[str, str], int]:
    """How many open runs each workflow has, by ``(name, status)``; of each status the oldest ``BOUND``."""
    found = {}
    for status in (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.BLOCKED):
        some = select(runs.c.name).where(runs.c.status == status).limit(BOUND).subquery()
        for name, count in tx.execute(select(some.c.name, func.count()).group_by(some.c.name)):
            found[name, status.value] = int(count)
    return found


def backlog_by_queue(tx: Connection, now: int) -> list[QueueBacklog]:
    """By queue, the steps that could run now and wait for a worker; at most ``BOUND`` steps, the longest overdue."""
    some = (
        select(steps.c.queue, steps.c.not_before, steps.c.sent_at, steps.c.next_send_at)
        .where(steps.c.status == StepStatus.PENDING, steps.c.not_before <= now, steps.c.next_send_at.is_not(None))
        .order_by(steps.c.next_send_at)
        .limit(BOUND)
        .subquery()
    )
    since = case((some.c.not_before > func.coalesce(some.c.sent_at, 0), some.c.not_before), else_=some.c.sent_at)
    query = select(some.c.queue, func.count(), func.min(func.coalesce(since, some.c.next_send_at)))
    return [QueueBacklog(*row) for row in tx.execute(query.group_by(some.c.queue).order_by(some.c.queue))]


def overdue_timers(tx: Connection, now: int, late: int, limit: int) -> tuple[int, list[tuple[str, str, int]]]:
    """How many waits are overdue by more than *late*, counted up to ``BOUND``, and the first: run, operation, due."""
    overdue = select(waits.c.run_id, waits.c.op_id, waits.c.due_at).where(
        waits.c.next_send_at <= now, waits.c.due_at < now - late
    )
    count = tx.execute(select(func.count()).select_from(overdue.limit(BOUND).subquery())).scalar_one()
    rows = tx.execute(overdue.order_by(waits.c.next_send_at).limit(limit))
    return int(count), [(row.run_id, row.op_id, row.due_at) for row in rows]
