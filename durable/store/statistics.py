"""
Numbers for the dashboard: ended runs by workflow, durations and throughput, and the backlog of each queue.

Each query reads at most ``SAMPLE`` entries of an index, the newest ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, case, func, literal_column, select

from .backlog import BOUND
from .schema import runs, steps, waits
from .transitions import RunStatus, StepStatus

#: How many ended runs the numbers of a time window are made from at most.
SAMPLE = 100_000

#: Durations are counted in ranges of which each is 19 % longer than the one before: from 1 ms to 50 days.
_RANGES = tuple(int(1_000 * 2 ** (number / 4)) for number in range(128))
#: The number of the range of a run that has not completed.
_NO_RANGE = 999


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
class Window:
    """
    The runs that ended in a time window.

    Attributes:
        since: From when on they were counted: later than the window begins if there are too many.
        durations: By workflow.
    """

    since: int
    ended: list[Ended]
    durations: Mapping[str, Durations]


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    """Steps of one queue that wait for a worker now, and since when the oldest does; None is the default queue."""

    queue: str | None
    count: int
    oldest: int


def _range_of(took: str, low: int = 0, high: int = len(_RANGES)) -> str:
    """SQL for the number of the range of a duration: a binary search, so that each run costs seven comparisons."""
    if low == high:
        return str(low)
    middle = (low + high) // 2
    below, above = _range_of(took, low, middle), _range_of(took, middle + 1, high)
    return f"CASE WHEN {took} < {_RANGES[middle]} THEN {below} ELSE {above} END"


_RANGE = f"CASE WHEN status = '{RunStatus.COMPLETED.value}' THEN {_range_of('(completed_at - started_at)')} END"


def ended(tx: Connection, begin: int, until: int, slices: int, limit: int = SAMPLE) -> Window:
    """
    The runs that ended from *begin* up to *until*, the newest *limit* of them, in one scan of one index.

    A percentile is the mean of the range of durations that it falls into: exact for few runs, and off by less than
    10 % for many.

    Args:
        slices: How many equal slices the window is divided into.
    """
    width = max(1, -(-(until - begin) // slices))
    slice_number = (runs.c.completed_at - begin) // width
    # One number for both: PostgreSQL then expects few groups, and counts them in memory without sorting the runs.
    group = (slice_number * 1_000 + func.coalesce(literal_column(_RANGE), _NO_RANGE)).label("group_number")
    newest = (
        select(runs.c.name, runs.c.status, group, runs.c.completed_at, runs.c.started_at)
        .where(runs.c.completed_at >= begin, runs.c.completed_at < until)
        .order_by(runs.c.completed_at.desc())
        .limit(limit + 1)
        .subquery()
    )
    took = func.sum(newest.c.completed_at - newest.c.started_at)
    key = (newest.c.name, newest.c.status, newest.c.group_number)
    rows = tx.execute(select(*key, func.count(), took, func.min(newest.c.completed_at)).group_by(*key)).all()
    counts: dict[tuple[str, str, int], int] = defaultdict(int)
    lengths: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for name, status, number, count, micros, _ in rows:
        at, range_number = divmod(int(number), 1_000)
        counts[name, status, at] += count
        if range_number != _NO_RANGE and micros is not None:
            known = lengths[name].get(range_number, (0, 0))
            lengths[name][range_number] = (known[0] + count, known[1] + int(micros))
    is_cut = sum(counts.values()) > limit
    return Window(
        since=min(first for *_, first in rows) if is_cut else begin,
        ended=[Ended(*key, count) for key, count in counts.items()],
        durations={name: Durations(_percentile(each, 50), _percentile(each, 95)) for name, each in lengths.items()},
    )


def _percentile(lengths: Mapping[int, tuple[int, int]], percent: int) -> int:
    """The mean of the range with the run at the nearest rank; *lengths* has the count and the sum of each range."""
    rank = -(-sum(count for count, _ in lengths.values()) * percent // 100)
    for _, (count, micros) in sorted(lengths.items()):
        rank -= count
        if rank <= 0:
            return micros // count
    raise ValueError("there is no run")


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
    checked_at = case((some.c.next_send_at > now, now), else_=some.c.next_send_at)
    query = select(some.c.queue, func.count(), func.min(func.coalesce(since, checked_at)))
    return [QueueBacklog(*row) for row in tx.execute(query.group_by(some.c.queue).order_by(some.c.queue))]


def overdue_timers(tx: Connection, now: int, late: int, limit: int) -> tuple[int, list[tuple[str, str, int]]]:
    """How many waits are overdue by more than *late*, counted up to ``BOUND``, and the first: run, operation, due."""
    overdue = select(waits.c.run_id, waits.c.op_id, waits.c.due_at).where(
        waits.c.next_send_at <= now, waits.c.due_at < now - late
    )
    count = tx.execute(select(func.count()).select_from(overdue.limit(BOUND).subquery())).scalar_one()
    rows = tx.execute(overdue.order_by(waits.c.next_send_at).limit(limit))
    return int(count), [(row.run_id, row.op_id, row.due_at) for row in rows]
