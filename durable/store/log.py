"""Events and the inbox: a run's log, and the news that its next turn will write into it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from ..events import Event, from_row, to_row
from ..schema import events, inbox
from .sending import growing

#: How many inbox rows one turn drains: its memory and its transaction stay bounded.
TURN_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class News:
    """An inbox row: its id, and the event without its place in the log."""

    id: int
    event: Event


def append(tx: Connection, run_id: str, new: Sequence[Event]) -> None:
    """Add events that have their ``seq``.  IntegrityError: another turn was here."""
    if new:
        tx.execute(insert(events), [{"run_id": run_id, **to_row(event)} for event in new])


_READ = (
    select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, events.c.value)
    .where(
        events.c.run_id == bindparam("run"),
        events.c.seq > bindparam("after"),
        events.c.seq <= bindparam("upto"),
    )
    .order_by(events.c.seq)
)


def read(tx: Connection, run_id: str, *, after: int = 0, upto: int = 2**62) -> list[Event]:
    """The run's events with ``after < seq <= upto``, in order."""
    return [_event(row) for row in tx.execute(_READ, {"run": run_id, "after": after, "upto": upto})]


def outcome(tx: Connection, run_id: str, op_id: str) -> Event | None:
    """The event that ended an operation (``ROOT``: the run itself), None while it goes on."""
    return _phase(tx, run_id, op_id, "ended")


def creation(tx: Connection, run_id: str, op_id: str) -> Event | None:
    """The event that created an operation."""
    return _phase(tx, run_id, op_id, "created")


def _phase(tx: Connection, run_id: str, op_id: str, phase: str) -> Event | None:
    row = tx.execute(
        select(events).where(events.c.run_id == run_id, events.c.op_id == op_id, events.c.phase == phase)
    ).one_or_none()
    return None if row is None else _event(row)


def _event(row: Any) -> Event:
    return from_row(row.kind, seq=row.seq, at=row.at, op_id=row.op_id, data=row.data, value=row.value)


def post(tx: Connection, run_id: str, news: Event, *, send_at: int | None) -> None:
    """Put an event into the run's inbox.  The sweep drives the run at *send_at*, if nothing did before."""
    row = to_row(news)
    del row["phase"], row["seq"]
    tx.execute(insert(inbox), {"run_id": run_id, "next_send_at": send_at, "sends": 0, **row})


_DRAIN = select(inbox).where(inbox.c.run_id == bindparam("run")).order_by(inbox.c.id)


def drain(tx: Connection, run_id: str, limit: int | None = TURN_LIMIT) -> list[News]:
    """What waits in the run's inbox, oldest first.  It stays there until ``drained``."""
    rows = tx.execute(_DRAIN.limit(limit), {"run": run_id})
    return [
        News(row.id, from_row(row.kind, seq=0, at=row.at, op_id=row.op_id, data=row.data, value=row.value))
        for row in rows
    ]


def drained(tx: Connection, run_id: str, ids: Sequence[int]) -> None:
    """Delete what a turn has written into the log, in statements of bounded size."""
    for first in range(0, len(ids), TURN_LIMIT):
        some = ids[first : first + TURN_LIMIT]
        tx.execute(delete(inbox).where(inbox.c.run_id == run_id, inbox.c.id.in_(some)))


def has_news(run_id: Any) -> Any:
    """An EXISTS over the run's inbox, for the one query of a turn that finds nothing."""
    return exists().where(inbox.c.run_id == run_id)


def due_drives(tx: Connection, now: int, limit: int) -> list[str]:
    """Runs whose news should have been driven by now, longest overdue first."""
    rows = tx.execute(
        select(inbox.c.run_id, func.min(inbox.c.next_send_at).label("first"))
        .where(inbox.c.next_send_at <= now)
        .group_by(inbox.c.run_id)
        .order_by("first")
        .limit(limit)
    )
    return [row.run_id for row in rows]


def sent_drives(tx: Connection, run_ids: Collection[str], now: int, delay: int) -> None:
    """Look again at these runs' news after a delay that doubles with each send, up to 64 times."""
    tx.execute(
        update(inbox)
        .where(inbox.c.run_id.in_(run_ids), inbox.c.next_send_at <= now)
        .values(next_send_at=now + growing(inbox.c.sends, delay), sends=inbox.c.sends + 1)
    )
