"""Events and the inbox: a run's log, and the news that its next turn will write into it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update

from .. import codec
from ..events import Event, RunCancelRequested
from . import requests, vault
from .event_rows import fetched, from_row, outline, to_row
from .outbox import Kind, SendTimes, growing, unsent_or_lost
from .schema import events, inbox, runs
from .statements import Prepared
from .vault import Vault

#: How many inbox rows one turn drains: its memory and its transaction stay bounded.
TURN_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class InboxItem:
    """An inbox row: its id, the event without its place in the log, and how often the sweep sent a turn for it."""

    id: int
    event: Event
    sends: int = 0


@dataclass(frozen=True, slots=True)
class DriveRow:
    """What a message about a turn is made from."""

    run_id: str
    queue: str | None
    priority: int | None


def append(tx: Connection, run_id: str, new: Sequence[Event]) -> None:
    """Add events that have their ``seq``.  IntegrityError: another turn was here."""
    if new:
        tx.execute(insert(events), [{"run_id": run_id, **to_row(tx, run_id, event)} for event in new])


_READ = Prepared(
    select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, events.c.value)
    .where(
        events.c.run_id == bindparam("run"),
        events.c.seq > bindparam("after"),
        events.c.seq <= bindparam("upto"),
    )
    .order_by(events.c.seq)
)


def read(tx: Connection, run_id: str, *, after: int = 0, upto: int = 2**62) -> list[Event]:
    """The run's events with ``after < seq <= upto``, in order; large values are references."""
    kept = vault.of(tx)
    return [_event(kept, run_id, row) for row in _READ.rows(tx, {"run": run_id, "after": after, "upto": upto})]


def page(
    tx: Connection, run_id: str, *, after: int, before: int, limit: int | None, newest_first: bool, values: bool
) -> list[Event]:
    """Up to *limit* of the events with ``after < seq < before``, from one end.  *values* False: they are empty text."""
    value = events.c.value if values else case((events.c.value.is_not(None), "")).label("value")
    query = (
        select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, value)
        .where(events.c.run_id == run_id, events.c.seq > after, events.c.seq < before)
        .order_by(events.c.seq.desc() if newest_first else events.c.seq)
        .limit(limit)
    )
    rows = tx.execute(query).all()
    if not values:
        return [outline(row) for row in rows]
    return fetched(tx, run_id, [_event(vault.of(tx), run_id, row) for row in rows])


def outcome(tx: Connection, run_id: str, op_id: str) -> Event | None:
    """The event that ended an operation (``ROOT``: the run itself), its value whole; None while it goes on."""
    return _phase(tx, run_id, op_id, "ended")


def creation(tx: Connection, run_id: str, op_id: str) -> Event | None:
    """The event that created an operation, its value whole."""
    return _phase(tx, run_id, op_id, "created")


def ended(tx: Connection, run_id: str, op_ids: Collection[str]) -> set[str]:
    """Those of these operations whose end the log has."""
    query = select(events.c.op_id).where(
        events.c.run_id == run_id, events.c.op_id.in_(op_ids), events.c.phase == "ended"
    )
    return set(tx.execute(query).scalars())


def _phase(tx: Connection, run_id: str, op_id: str, phase: str) -> Event | None:
    row = tx.execute(
        select(events).where(events.c.run_id == run_id, events.c.op_id == op_id, events.c.phase == phase)
    ).one_or_none()
    return None if row is None else fetched(tx, run_id, [_event(vault.of(tx), run_id, row)])[0]


def _event(kept: Vault, run_id: str, row: Any) -> Event:
    return from_row(kept, run_id, row.kind, seq=row.seq, at=row.at, op_id=row.op_id, data=row.data, value=row.value)


def post(tx: Connection, run_id: str, news: Event, sending: SendTimes) -> None:
    """Put an event into the run's inbox; *sending* is the turn's that it needs."""
    row = to_row(tx, run_id, news)
    del row["phase"], row["seq"]
    tx.execute(insert(inbox), {"run_id": run_id, **sending.values(), **row})
    value = getattr(news, news.value_field) if news.value_field else None
    requests.refer(tx, run_id, codec.request_ids(value or ""))


_NEWS = ("run_id", "at", "kind", "op_id", "data", "value", "next_send_at", "sent_at", "sends")
_NUMBERS = frozenset({"at", "next_send_at", "sent_at", "sends"})


def posting(source: str, *, not_before: str | None = None) -> str:
    """
    The part of a statement of PostgreSQL that posts news if *source* has a row; its parameters are ``posted``.

    Args:
        not_before: A column of *source*: the news are of that moment if they are of an earlier one.
    """
    values = {name: f"CAST(:news_{name} AS {'bigint' if name in _NUMBERS else 'text'})" for name in _NEWS}
    if not_before is not None:
        values["at"] = f"GREATEST({values['at']}, {source}.{not_before})"
    return f"INSERT INTO durable_inbox ({', '.join(_NEWS)}) SELECT {', '.join(values.values())} FROM {source}"


def posted(tx: Connection, run_id: str, news: Event, sending: SendTimes) -> dict[str, Any]:
    """The parameters of ``posting``."""
    row = {**to_row(tx, run_id, news), **sending.values(), "run_id": run_id}
    return {f"news_{name}": row[name] for name in _NEWS}


_DRAIN = select(inbox).where(inbox.c.run_id == bindparam("run")).order_by(inbox.c.id)
_OLDEST = Prepared(_DRAIN.limit(1))


def drain(tx: Connection, run_id: str, limit: int | None = TURN_LIMIT) -> list[InboxItem]:
    """What waits in the run's inbox, oldest first, large values as references.  It stays there until ``drained``."""
    return [news(tx, run_id, row) for row in tx.execute(_DRAIN.limit(limit), {"run": run_id})]


def news(tx: Connection, run_id: str, row: Any, prefix: str = "") -> InboxItem:
    """An inbox row, whose columns' names begin with *prefix*."""
    at, kind, op_id, data, value = (getattr(row, prefix + name) for name in ("at", "kind", "op_id", "data", "value"))
    event = from_row(vault.of(tx), run_id, kind, seq=0, at=at, op_id=op_id, data=data, value=value)
    return InboxItem(getattr(row, f"{prefix}id"), event, getattr(row, f"{prefix}sends"))


def drained(tx: Connection, run_id: str, ids: Sequence[int]) -> None:
    """Delete what a turn has written into the log, in statements of bounded size."""
    for first in range(0, len(ids), TURN_LIMIT):
        some = ids[first : first + TURN_LIMIT]
        tx.execute(delete(inbox).where(inbox.c.run_id == run_id, inbox.c.id.in_(some)))


def drives(tx: Connection, run_ids: Collection[str]) -> list[DriveRow]:
    """What messages about turns of these runs are made from, of no more than ``TURN_LIMIT`` runs."""
    rows = tx.execute(select(runs.c.id, runs.c.queue, runs.c.priority).where(runs.c.id.in_(run_ids)))
    return [DriveRow(row.id, row.queue, row.priority) for row in rows]


def first_inbox_item(tx: Connection, run_id: str) -> int | None:
    """Since when the oldest of the run's news waits for a turn; None when there is none."""
    query = select(inbox.c.at).where(inbox.c.run_id == run_id).order_by(inbox.c.id).limit(1)
    return tx.execute(query).scalar_one_or_none()


def oldest_inbox_item(tx: Connection, run_id: str) -> Event | None:
    """The news that have waited longest for a turn, without their value."""
    row = _OLDEST.one(tx, {"run": run_id})
    return None if row is None else outline(row)


def groups_due(tx: Connection, now: int) -> list[Kind]:
    """The queues and the priorities of the runs whose news the sweep should look at now."""
    query = select(runs.c.queue, runs.c.priority).join(inbox, inbox.c.run_id == runs.c.id)
    return [(row.queue, row.priority) for row in tx.execute(query.where(inbox.c.next_send_at <= now).distinct())]


def due_drives(
    tx: Connection,
    now: int,
    names: Collection[str],
    limit: int,
    *,
    lost_before: Mapping[Kind, int],
) -> list[DriveRow]:
    """
    Runs whose news should have been driven by now, longest overdue first.

    Only those of workflows of these names, and those that are to be cancelled, which may need no code.

    Args:
        lost_before: By the run's queue and priority, as ``sending.unsent_or_lost`` takes it.
    """
    drivable = runs.c.name.in_(names) | (inbox.c.kind == RunCancelRequested.kind)
    first = func.min(inbox.c.next_send_at).label("first")
    # A turn that was sent later than the first takes all of the news.
    latest = case((func.count(inbox.c.sent_at) == func.count(), func.max(inbox.c.sent_at)))
    rows = tx.execute(
        select(runs.c.id, runs.c.queue, runs.c.priority, first)
        .join(inbox, runs.c.id == inbox.c.run_id)
        .where(inbox.c.next_send_at <= now, drivable)
        .group_by(runs.c.id, runs.c.queue, runs.c.priority)
        .having(unsent_or_lost(latest, runs.c.queue, runs.c.priority, lost_before))
        .order_by("first")
        .limit(limit)
    )
    return [DriveRow(row.id, row.queue, row.priority) for row in rows]


def sent_drives(tx: Connection, run_ids: Collection[str], now: int, delay: int) -> None:
    """Look again at these runs' news after a delay that doubles with each send, up to 64 times."""
    tx.execute(
        update(inbox)
        .where(inbox.c.run_id.in_(run_ids), inbox.c.next_send_at <= now)
        .values(next_send_at=now + growing(inbox.c.sends, delay), sent_at=now, sends=inbox.c.sends + 1)
    )
