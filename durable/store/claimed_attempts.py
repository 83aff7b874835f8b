"""
Claimed attempts, as other processes see them: which process runs the attempt of a step.

``claims.py`` is how a process claims an attempt and keeps it.  This file finds the attempts of processes that may be
gone, and of those that take too long.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, select

from .schema import steps, workers
from .transitions import StepStatus


@dataclass(frozen=True, slots=True)
class ClaimedAttempt:
    """A claimed attempt and the process that claimed it; ``host`` is None when the process has no row."""

    run_id: str
    op_id: str
    name: str
    attempt: int
    claim: str
    claimed_at: int
    worker_id: str
    host: str | None
    boot_id: str | None
    pid: int | None
    pid_started: int | None
    semantics: str | None = None
    heartbeat_at: int | None = None


_CLAIMED = select(
    steps.c.run_id,
    steps.c.op_id,
    steps.c.name,
    steps.c.attempt,
    steps.c.claim,
    steps.c.claimed_at,
    steps.c.worker_id,
    workers.c.host,
    workers.c.boot_id,
    workers.c.pid,
    workers.c.pid_started,
    steps.c.semantics,
    steps.c.heartbeat_at,
).outerjoin(workers, workers.c.id == steps.c.worker_id)


def find(tx: Connection, run_id: str, op_id: str) -> ClaimedAttempt | None:
    """The claimed attempt of this step; None when no process runs it."""
    row = tx.execute(
        _CLAIMED.where(steps.c.run_id == run_id, steps.c.op_id == op_id, steps.c.status == StepStatus.CLAIMED)
    ).one_or_none()
    return None if row is None else ClaimedAttempt(*row)


def of_run(tx: Connection, run_id: str, limit: int) -> list[ClaimedAttempt]:
    """The claimed attempts of a run."""
    query = _CLAIMED.where(steps.c.run_id == run_id, steps.c.status == StepStatus.CLAIMED).limit(limit)
    return [ClaimedAttempt(*row) for row in tx.execute(query)]


def of_workers(tx: Connection, worker_ids: Collection[str], limit: int) -> list[ClaimedAttempt]:
    """The claimed attempts of these processes."""
    query = _CLAIMED.where(steps.c.worker_id.in_(worker_ids), steps.c.status == StepStatus.CLAIMED).limit(limit)
    return [ClaimedAttempt(*row) for row in tx.execute(query)]


def of_unknown_workers(tx: Connection, before: int, limit: int) -> list[ClaimedAttempt]:
    """Attempts claimed before *before* by processes that have no row, and without a heartbeat since."""
    query = _CLAIMED.where(
        steps.c.status == StepStatus.CLAIMED,
        # True for every process; written like this, SQLite uses the index.
        steps.c.worker_id > "",
        steps.c.claimed_at < before,
        (steps.c.heartbeat_at < before) | steps.c.heartbeat_at.is_(None),
        workers.c.id.is_(None),
    )
    return [ClaimedAttempt(*row) for row in tx.execute(query.limit(limit))]


def past_deadline(tx: Connection, moment: int, limit: int) -> list[ClaimedAttempt]:
    """Claimed attempts whose deadline was before *moment*, earliest deadline first."""
    query = _CLAIMED.where(steps.c.deadline_at < moment, steps.c.status == StepStatus.CLAIMED)
    return [ClaimedAttempt(*row) for row in tx.execute(query.order_by(steps.c.deadline_at).limit(limit))]
