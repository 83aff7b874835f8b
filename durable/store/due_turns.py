"""
The turns that runs need because their inboxes hold something, and what their messages are made from.

``run_log.py`` has the inbox itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, exists, func, select, update

from ..events import RunCancelRequested
from .outbox import MessageGroup, growing_delay, unsent_or_lost
from .schema import inbox, runs, turn_leases
from .statements import Prepared


@dataclass(frozen=True, slots=True)
class DriveRow:
    """What the message for a turn is made from."""

    run_id: str
    queue: str | None
    priority: int | None
    #: Whether a message was sent before and is lost.
    is_lost: bool = False
    trace_context: str | None = None


_DRIVES = select(runs.c.id, runs.c.queue, runs.c.priority, runs.c.trace_context)
_DRIVE = Prepared(_DRIVES.where(runs.c.id == bindparam("run")))


def drives(tx: Connection, run_ids: Collection[str]) -> list[DriveRow]:
    """What the messages for turns of these runs are made from; at most ``run_log.TURN_LIMIT`` runs."""
    if len(run_ids) == 1:
        rows: Sequence[Any] = _DRIVE.rows(tx, {"run": next(iter(run_ids))})
    else:
        rows = tx.execute(_DRIVES.where(runs.c.id.in_(run_ids))).all()
    return [DriveRow(row.id, row.queue, row.priority, trace_context=row.trace_context) for row in rows]


_WAITING = Prepared(
    select(runs.c.id.label("run_id"), runs.c.queue, runs.c.priority, runs.c.trace_context).where(
        runs.c.id == bindparam("run"),
        runs.c.paused_at.is_(None),
        exists().where(inbox.c.run_id == runs.c.id),
        ~exists().where(turn_leases.c.run_id == runs.c.id, turn_leases.c.expires_at > bindparam("now")),
    )
)


def waiting_drive(tx: Connection, run_id: str, now: int) -> DriveRow | None:
    """The turn that the run's inbox needs; None when it is empty, or a process that reads it later has the lease."""
    row = _WAITING.one(tx, {"run": run_id, "now": now})
    return None if row is None else DriveRow(row.run_id, row.queue, row.priority, trace_context=row.trace_context)


def groups_due(tx: Connection, now: int) -> list[MessageGroup]:
    """The queues and priorities of the runs whose inbox items the sweep has to check now."""
    query = select(runs.c.queue, runs.c.priority).join(inbox, inbox.c.run_id == runs.c.id)
    return [(row.queue, row.priority) for row in tx.execute(query.where(inbox.c.next_send_at <= now).distinct())]


def due_drives(
    tx: Connection,
    now: int,
    names: Collection[str],
    limit: int,
    *,
    lost_before: Mapping[MessageGroup, int],
) -> list[DriveRow]:
    """
    Runs to send a turn for, longest overdue first: their inbox items should have been read by now.

    Only runs of workflows with these names, and runs to cancel, which may not need their code.

    Args:
        lost_before: By the run's queue and priority, as ``outbox.unsent_or_lost`` takes it.
    """
    drivable = runs.c.name.in_(names) | (inbox.c.kind == RunCancelRequested.kind)
    first = func.min(inbox.c.next_send_at).label("first")
    # The last message that was sent drives a turn which reads all of the items.
    latest = case((func.count(inbox.c.sent_at) == func.count(), func.max(inbox.c.sent_at)))
    rows = tx.execute(
        select(
            runs.c.id,
            runs.c.queue,
            runs.c.priority,
            func.min(runs.c.trace_context).label("trace_context"),
            first,
            latest.label("latest"),
        )
        .join(inbox, runs.c.id == inbox.c.run_id)
        .where(inbox.c.next_send_at <= now, drivable)
        .group_by(runs.c.id, runs.c.queue, runs.c.priority)
        .having(unsent_or_lost(latest, runs.c.queue, runs.c.priority, lost_before))
        .order_by("first")
        .limit(limit)
    )
    return [
        DriveRow(row.id, row.queue, row.priority, is_lost=row.latest is not None, trace_context=row.trace_context)
        for row in rows
    ]


def sent_drives(tx: Connection, run_ids: Collection[str], now: int, delay: int) -> None:
    """Record that turns of these runs were sent; the sweep checks again after a delay that grows with each send."""
    tx.execute(
        update(inbox)
        .where(inbox.c.run_id.in_(run_ids), inbox.c.next_send_at <= now)
        .values(next_send_at=now + growing_delay(inbox.c.sends, delay), sent_at=now, sends=inbox.c.sends + 1)
    )
