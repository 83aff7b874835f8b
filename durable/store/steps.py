"""Steps to run: a row from the call of a step until its outcome is in the inbox."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from ..schema import events, runs, steps, workers
from .sending import growing


@dataclass(frozen=True, slots=True)
class StepRow:
    """What a message about a step is made from."""

    run_id: str
    op_id: str
    name: str
    attempt: int
    not_before: int
    queue: str | None
    priority: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """An attempt that this process runs, and what it needs for it."""

    claim: str
    run_id: str
    op_id: str
    name: str
    attempt: int
    started_at: int
    claimed_at: int
    args: str
    run_name: str
    run_started_at: int


@dataclass(frozen=True, slots=True)
class Held:
    """A claimed attempt, and the process that claimed it (host None: its row is gone)."""

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


def create(tx: Connection, rows: Sequence[dict[str, Any]], *, send_at: int) -> None:
    """Insert first attempts, each ``{run_id, op_id, name, not_before}``."""
    if rows:
        common = {"attempt": 1, "status": "pending", "cancelled": False, "sends": 0, "next_send_at": send_at}
        tx.execute(insert(steps), [common | row for row in rows])


def claim(
    tx: Connection,
    run_id: str,
    op_id: str,
    attempt: int,
    *,
    by: str,
    worker_id: str,
    message_id: str | None,
    now: Any,
) -> Claim | None:
    """Take an attempt that is due; None when there is nothing to take."""
    taken = tx.execute(
        update(steps)
        .where(
            steps.c.run_id == run_id,
            steps.c.op_id == op_id,
            steps.c.attempt == attempt,
            steps.c.status == "pending",
            steps.c.not_before <= now,
        )
        .values(
            status="claimed",
            claim=by,
            worker_id=worker_id,
            message_id=message_id,
            claimed_at=now,
            started_at=func.coalesce(steps.c.started_at, now),
            next_send_at=None,
        )
    )
    return _claimed(tx, run_id, op_id) if taken.rowcount == 1 else None


def not_before(tx: Connection, run_id: str, op_id: str, attempt: int) -> int | None:
    """When a pending attempt may start."""
    return tx.execute(
        select(steps.c.not_before).where(
            steps.c.run_id == run_id,
            steps.c.op_id == op_id,
            steps.c.attempt == attempt,
            steps.c.status == "pending",
        )
    ).scalar_one_or_none()


def _claimed(tx: Connection, run_id: str, op_id: str) -> Claim:
    row = (
        tx.execute(
            select(
                steps.c.claim,
                steps.c.run_id,
                steps.c.op_id,
                steps.c.name,
                steps.c.attempt,
                steps.c.started_at,
                steps.c.claimed_at,
                events.c.value.label("args"),
                runs.c.name.label("run_name"),
                func.coalesce(runs.c.started_at, runs.c.created_at).label("run_started_at"),
            )
            .join(events, (events.c.run_id == steps.c.run_id) & (events.c.op_id == steps.c.op_id))
            .join(runs, runs.c.id == steps.c.run_id)
            .where(steps.c.run_id == run_id, steps.c.op_id == op_id, events.c.phase == "created")
        )
        .mappings()
        .one()
    )
    return Claim(**row)


def end(tx: Connection, held: Claim | Held) -> bool:
    """Take the attempt off the list; False when it was given up before: its outcome counts for nothing."""
    gone = tx.execute(
        delete(steps).where(steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim)
    )
    return gone.rowcount == 1


def again(tx: Connection, held: Claim | Held, *, counted: bool, not_before: int, send_at: int) -> bool:
    """Make the attempt pending again, as the next one if *counted*; False when it was given up before."""
    changed = tx.execute(
        update(steps)
        .where(steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim)
        .values(
            status="pending",
            attempt=held.attempt + (1 if counted else 0),
            claim=None,
            worker_id=None,
            message_id=None,
            claimed_at=None,
            not_before=not_before,
            next_send_at=send_at,
            sends=0,
        )
    )
    return changed.rowcount == 1


def is_held(tx: Connection, held: Claim) -> bool:
    """Whether the attempt is still this one's; keeps it from being given up until the transaction ends."""
    row = tx.execute(
        select(steps.c.attempt)
        .where(steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim)
        .with_for_update()
    ).one_or_none()
    return row is not None


def withdraw(tx: Connection, run_id: str, op_ids: Collection[str]) -> None:
    """Nobody wants these outcomes: drop what is not claimed, mark what runs."""
    if not op_ids:
        return
    mine = (steps.c.run_id == run_id, steps.c.op_id.in_(op_ids))
    tx.execute(delete(steps).where(*mine, steps.c.status == "pending"))
    tx.execute(update(steps).where(*mine).values(cancelled=True))


def pending_of(tx: Connection, run_id: str) -> list[str]:
    """The run's attempts that nobody has claimed."""
    rows = tx.execute(
        select(steps.c.op_id).where(steps.c.run_id == run_id, steps.c.status == "pending").order_by(steps.c.op_id)
    )
    return [row.op_id for row in rows]


_ROW = select(
    steps.c.run_id,
    steps.c.op_id,
    steps.c.name,
    steps.c.attempt,
    steps.c.not_before,
    runs.c.queue,
    runs.c.priority,
).join(runs, runs.c.id == steps.c.run_id)


def due(tx: Connection, now: int, limit: int) -> list[StepRow]:
    """Attempts whose message should be sent (again), longest overdue first."""
    query = _ROW.where(steps.c.next_send_at <= now).order_by(steps.c.next_send_at).limit(limit)
    return [StepRow(*row) for row in tx.execute(query)]


def sent(tx: Connection, row: StepRow, now: int, delay: int) -> None:
    """Look again at a step that was sent, after a delay that grows."""
    tx.execute(
        update(steps)
        .where(steps.c.run_id == row.run_id, steps.c.op_id == row.op_id, steps.c.next_send_at <= now)
        .values(next_send_at=now + growing(steps.c.sends, delay), sends=steps.c.sends + 1)
    )


_HELD = select(
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
).outerjoin(workers, workers.c.id == steps.c.worker_id)


def held(tx: Connection, run_id: str, op_id: str) -> Held | None:
    """Who runs this step now, if anybody does."""
    row = tx.execute(
        _HELD.where(steps.c.run_id == run_id, steps.c.op_id == op_id, steps.c.status == "claimed")
    ).one_or_none()
    return None if row is None else Held(*row)


def held_by(tx: Connection, worker_ids: Collection[str], limit: int) -> list[Held]:
    """What these processes run."""
    query = _HELD.where(steps.c.worker_id.in_(worker_ids), steps.c.status == "claimed").limit(limit)
    return [Held(*row) for row in tx.execute(query)]


def held_by_nobody(tx: Connection, before: int, limit: int) -> list[Held]:
    """What processes without a row have run since *before*: they were buried, or went without a word."""
    query = _HELD.where(
        steps.c.status == "claimed",
        steps.c.worker_id.is_not(None),
        steps.c.claimed_at < before,
        workers.c.id.is_(None),
    )
    return [Held(*row) for row in tx.execute(query.limit(limit))]
