"""Waits to come: the row is the sleep, a message only its alarm clock."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from ..schema import runs, waits
from .sending import growing


@dataclass(frozen=True, slots=True)
class WaitRow:
    """What a message about a wait is made from."""

    run_id: str
    op_id: str
    due_at: int
    queue: str | None
    priority: int | None


def create(tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert waits, each ``{run_id, op_id, due_at, next_send_at}``."""
    if rows:
        tx.execute(insert(waits), [{"sends": 0} | row for row in rows])


def end(tx: Connection, run_id: str, op_id: str, now: Any) -> int | None:
    """Take a wait that is due by *now* off the list: its due time, None when there is none."""
    mine = (waits.c.run_id == run_id, waits.c.op_id == op_id, waits.c.due_at <= now)
    due_at = tx.execute(select(waits.c.due_at).where(*mine)).scalar_one_or_none()
    if due_at is None or tx.execute(delete(waits).where(*mine)).rowcount != 1:
        return None
    return int(due_at)


def due_at(tx: Connection, run_id: str, op_id: str) -> int | None:
    """When a pending wait is due."""
    return tx.execute(
        select(waits.c.due_at).where(waits.c.run_id == run_id, waits.c.op_id == op_id)
    ).scalar_one_or_none()


def pending(tx: Connection, run_id: str) -> list[str]:
    """The operations of a run that wait."""
    return list(tx.execute(select(waits.c.op_id).where(waits.c.run_id == run_id).order_by(waits.c.op_id)).scalars())


def end_early(tx: Connection, run_id: str, op_id: str) -> bool:
    """Take a wait off the list before its time; False when it is over."""
    gone = tx.execute(delete(waits).where(waits.c.run_id == run_id, waits.c.op_id == op_id))
    return gone.rowcount == 1


def withdraw(tx: Connection, run_id: str, op_ids: Collection[str] | None = None) -> None:
    """Nobody sleeps there any more: these, or all of the run's."""
    mine = [waits.c.run_id == run_id]
    if op_ids is not None:
        mine.append(waits.c.op_id.in_(op_ids))
    if op_ids is None or op_ids:
        tx.execute(delete(waits).where(*mine))


def due(tx: Connection, now: int, limit: int) -> list[WaitRow]:
    """Waits whose alarm clock should be set (again), longest overdue first."""
    rows = tx.execute(
        select(waits.c.run_id, waits.c.op_id, waits.c.due_at, runs.c.queue, runs.c.priority)
        .join(runs, runs.c.id == waits.c.run_id)
        .where(waits.c.next_send_at <= now)
        .order_by(waits.c.next_send_at)
        .limit(limit)
    )
    return [WaitRow(*row) for row in rows]


def sent(tx: Connection, row: WaitRow, now: int, delay: int) -> None:
    """Look again after its due time, with a delay that grows."""
    tx.execute(
        update(waits)
        .where(waits.c.run_id == row.run_id, waits.c.op_id == row.op_id, waits.c.next_send_at <= now)
        .values(next_send_at=max(now, row.due_at) + growing(waits.c.sends, delay), sends=waits.c.sends + 1)
    )
