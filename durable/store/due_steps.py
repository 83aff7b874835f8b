"""Steps whose messages the sweep sends: those that were deferred, and those that are lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, or_, select, update

from .outbox import MessageGroup, growing_delay, is_one_of, later, unsent_or_lost
from .schema import steps
from .steps import ROW, StepRow


def groups_due(tx: Connection, now: int) -> list[MessageGroup]:
    """The queues and step names of the attempts that the sweep has to check now."""
    query = select(steps.c.queue, steps.c.name).where(steps.c.next_send_at <= now).distinct()
    return [(row.queue, row.name) for row in tx.execute(query)]


def due(
    tx: Connection,
    now: int,
    names: Collection[str],
    limit: int,
    *,
    lost_before: Mapping[MessageGroup, int],
    idle: Collection[str] = (),
    since: int = 0,
) -> list[StepRow]:
    """
    Attempts of steps with these names to send (again), longest overdue first.

    Args:
        lost_before: By queue and step name, as ``outbox.unsent_or_lost`` takes it.
        idle: The queues without messages.  Only their offered steps are due.
        since: Only attempts that have become due after this moment.
    """
    overdue = (steps.c.next_send_at <= now, steps.c.next_send_at > since, steps.c.name.in_(names))
    lost = unsent_or_lost(steps.c.sent_at, steps.c.queue, steps.c.name, lost_before)
    is_left = or_(steps.c.offered_seq.is_(None), steps.c.queue.in_(idle))
    query = (
        ROW.add_columns(steps.c.sent_at.is_not(None).label("is_lost"))
        .where(*overdue, lost, is_left)
        .order_by(steps.c.next_send_at)
        .limit(limit)
    )
    rows = tx.execute(query).mappings()
    return [StepRow(**{**row, "is_lost": bool(row["is_lost"])}, has_offers=True) for row in rows]


def sent(tx: Connection, rows: Collection[StepRow], now: int, delay: int) -> None:
    """Record that these messages were sent; the sweep checks the rows again after a delay that grows with each send."""
    sent_at = later(now, steps.c.not_before)
    tx.execute(
        update(steps)
        .where(is_one_of(steps, rows), steps.c.next_send_at <= now)
        .values(
            next_send_at=sent_at + growing_delay(steps.c.sends, delay),
            sent_at=sent_at,
            sends=steps.c.sends + 1,
            offered_seq=None,
        )
    )


def postpone(tx: Connection, rows: Collection[StepRow]) -> None:
    """Leave these to the sweep, which sends them once they are due."""
    mine = (is_one_of(steps, rows), steps.c.sent_at.is_(None), steps.c.next_send_at.is_not(None))
    tx.execute(update(steps).where(*mine).values(next_send_at=steps.c.not_before))
