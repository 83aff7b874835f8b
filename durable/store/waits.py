"""
Rows of waits: pending sleeps and timeouts.

A message only makes a worker look at the row; the row and the database's clock decide whether the wait is over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, text, update

from .outbox import MessageGroup, growing_delay, is_one_of, later, unsent_or_lost
from .schema import runs, waits
from .statements import Prepared, array


@dataclass(frozen=True, slots=True)
class WaitRow:
    """What the message for a wait is made from."""

    run_id: str
    op_id: str
    due_at: int
    queue: str | None
    priority: int | None
    #: Whether only the sweep sends the message, once it is due.
    is_deferred: bool = False
    #: Whether a message was sent before and is lost.
    is_lost: bool = False
    trace_context: str | None = None


@dataclass(frozen=True, slots=True)
class DueWait:
    """A wait whose time has come, by the clock of the process that ends it."""

    run_id: str
    op_id: str


_ROW_TYPES = {"op_id": "text", "due_at": "bigint", "next_send_at": "bigint", "sent_at": "bigint"}


def insert_new(source: str) -> str:
    """SQL for PostgreSQL: an INSERT of the waits of ``new_parameters`` for the run ``:run``, if *source* has a row."""
    rows = ", ".join(f"CAST(:wait_{name} AS {kind}[])" for name, kind in _ROW_TYPES.items())
    return (
        f"INSERT INTO durable_waits (run_id, {', '.join(_ROW_TYPES)}, sends)"
        f" SELECT :run, wait.*, 0 FROM {source}, unnest({rows}) AS wait"
    )


def new_parameters(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The parameters of ``insert_new``; rows as ``create`` takes them."""
    return {f"wait_{name}": array([row[name] for row in rows]) for name in _ROW_TYPES}


def create(tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert waits; each row is ``{run_id, op_id, due_at}`` with the values of its ``SendTimes``."""
    if rows:
        tx.execute(insert(waits), list(rows))


def end(tx: Connection, run_id: str, op_id: str, now: Any) -> int | None:
    """Delete a wait that is due by *now*, and return its due time; None when there is none."""
    mine = (waits.c.run_id == run_id, waits.c.op_id == op_id, waits.c.due_at <= now)
    due_at = tx.execute(select(waits.c.due_at).where(*mine)).scalar_one_or_none()
    if due_at is None or tx.execute(delete(waits).where(*mine)).rowcount != 1:
        return None
    return int(due_at)


def due_at(tx: Connection, run_id: str, op_id: str) -> int | None:
    """When a pending wait is due; None when it is over."""
    return tx.execute(
        select(waits.c.due_at).where(waits.c.run_id == run_id, waits.c.op_id == op_id)
    ).scalar_one_or_none()


def pending(tx: Connection, run_id: str) -> list[str]:
    """The operations of the run's pending waits."""
    return list(tx.execute(select(waits.c.op_id).where(waits.c.run_id == run_id).order_by(waits.c.op_id)).scalars())


def of_run(tx: Connection, run_id: str, limit: int) -> list[tuple[str, int]]:
    """The run's waits and their due times, earliest first."""
    query = select(waits.c.op_id, waits.c.due_at).where(waits.c.run_id == run_id)
    return [(row.op_id, row.due_at) for row in tx.execute(query.order_by(waits.c.due_at).limit(limit))]


def end_early(tx: Connection, run_id: str, op_id: str) -> bool:
    """Delete a wait before it is due; False when it is already over."""
    deleted = tx.execute(delete(waits).where(waits.c.run_id == run_id, waits.c.op_id == op_id))
    return deleted.rowcount == 1


def withdraw(tx: Connection, run_id: str, op_ids: Collection[str] | None = None) -> None:
    """Delete these waits of the run, or all of them."""
    if op_ids is None:
        _WITHDRAW_ALL.changed(tx, {"run": run_id})
    elif op_ids:
        tx.execute(delete(waits).where(waits.c.run_id == run_id, waits.c.op_id.in_(op_ids)))


_WITHDRAW_ALL = Prepared(text("DELETE FROM durable_waits WHERE run_id = :run"))


def groups_due(tx: Connection, now: int) -> list[MessageGroup]:
    """The queues and priorities of the runs whose waits the sweep has to check now."""
    query = select(runs.c.queue, runs.c.priority).join(waits, waits.c.run_id == runs.c.id)
    return [(row.queue, row.priority) for row in tx.execute(query.where(waits.c.next_send_at <= now).distinct())]


def due(
    tx: Connection, now: int, limit: int, *, lost_before: Mapping[MessageGroup, int], since: int = 0
) -> list[WaitRow]:
    """
    Waits to send a message for (again), longest overdue first.

    Args:
        lost_before: By the run's queue and priority, as ``outbox.unsent_or_lost`` takes it.
        since: Only waits that have become due after this moment.
    """
    rows = tx.execute(
        select(
            waits.c.run_id,
            waits.c.op_id,
            waits.c.due_at,
            runs.c.queue,
            runs.c.priority,
            waits.c.sent_at.is_not(None).label("is_lost"),
            runs.c.trace_context,
        )
        .join(runs, runs.c.id == waits.c.run_id)
        .where(waits.c.next_send_at <= now, waits.c.next_send_at > since)
        .where(unsent_or_lost(waits.c.sent_at, runs.c.queue, runs.c.priority, lost_before))
        .order_by(waits.c.next_send_at)
        .limit(limit)
    )
    return [WaitRow(**{**row, "is_lost": bool(row["is_lost"])}) for row in rows.mappings()]


def sent(tx: Connection, rows: Collection[WaitRow], now: int, delay: int) -> None:
    """Record that these messages were sent; the sweep checks again a growing delay after they are due."""
    sent_at = later(now, waits.c.due_at)
    tx.execute(
        update(waits)
        .where(is_one_of(waits, rows), waits.c.next_send_at <= now)
        .values(next_send_at=sent_at + growing_delay(waits.c.sends, delay), sent_at=sent_at, sends=waits.c.sends + 1)
    )


def postpone(tx: Connection, rows: Collection[WaitRow]) -> None:
    """Leave these to the sweep, which sends them once they are due."""
    tx.execute(
        update(waits).where(is_one_of(waits, rows), waits.c.sent_at.is_(None)).values(next_send_at=waits.c.due_at)
    )
