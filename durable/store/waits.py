"""Waits to come: the row is the sleep, a message only its alarm clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from .outbox import Kind, growing, later, these, unsent_or_lost
from .schema import runs, waits


@dataclass(frozen=True, slots=True)
class WaitRow:
    """What a message about a wait is made from."""

    run_id: str
    op_id: str
    due_at: int
    queue: str | None
    priority: int | None
    #: Whether no message is sent before it is due.
    is_deferred: bool = False


def create(tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert waits, each ``{run_id, op_id, due_at}`` with the values of its ``Sending``."""
    if rows:
        tx.execute(insert(waits), list(rows))


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


def of_run(tx: Connection, run_id: str, limit: int) -> list[tuple[str, int]]:
    """The run's waits and when they are due, the next one first."""
    query = select(waits.c.op_id, waits.c.due_at).where(waits.c.run_id == run_id)
    return [(row.op_id, row.due_at) for row in tx.execute(query.order_by(waits.c.due_at).limit(limit))]


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


def groups_due(tx: Connection, now: int) -> list[Kind]:
    """The queues and the priorities of the runs whose waits the sweep should look at now."""
    query = select(runs.c.queue, runs.c.priority).join(waits, waits.c.run_id == runs.c.id)
    return [(row.queue, row.priority) for row in tx.execute(query.where(waits.c.next_send_at <= now).distinct())]


def due(tx: Connection, now: int, limit: int, *, lost_before: Mapping[Kind, int], since: int = 0) -> list[WaitRow]:
    """
    Waits whose alarm clock should be set (again), and should not before *since*; longest overdue first.

    Args:
        lost_before: By the run's queue and priority, as ``sending.unsent_or_lost`` takes it.
    """
    rows = tx.execute(
        select(waits.c.run_id, waits.c.op_id, waits.c.due_at, runs.c.queue, runs.c.priority)
        .join(runs, runs.c.id == waits.c.run_id)
        .where(waits.c.next_send_at <= now, waits.c.next_send_at > since)
        .where(unsent_or_lost(waits.c.sent_at, runs.c.queue, runs.c.priority, lost_before))
        .order_by(waits.c.next_send_at)
        .limit(limit)
    )
    return [WaitRow(*row) for row in rows]


def sent(tx: Connection, rows: Collection[WaitRow], now: int, delay: int) -> None:
    """Look again at waits whose alarm clock was set, after their due time, with a delay that grows."""
    sent_at = later(now, waits.c.due_at)
    tx.execute(
        update(waits)
        .where(these(waits, rows), waits.c.next_send_at <= now)
        .values(next_send_at=sent_at + growing(waits.c.sends, delay), sent_at=sent_at, sends=waits.c.sends + 1)
    )


def postpone(tx: Connection, rows: Collection[WaitRow]) -> None:
    """Set no alarm clock for these: they are looked at again when they are due."""
    tx.execute(update(waits).where(these(waits, rows), waits.c.sent_at.is_(None)).values(next_send_at=waits.c.due_at))
