"""
A run's log and its inbox.

The log is the run's history.  The inbox has the events that the next turn will move into the log.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, insert, select, text, update

from .. import codec
from ..events import Event, StepRetrying
from . import requests, vault
from .event_rows import from_row, load_large_values, outline, to_row
from .outbox import SendTimes
from .schema import events, inbox
from .statements import Prepared, array
from .vault import Vault

#: How many inbox items one turn reads, so that its memory and its transaction stay bounded.
TURN_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class InboxItem:
    """A row of the inbox: its id, the event without a number, and how often the sweep has sent a turn for it."""

    id: int
    event: Event
    sends: int = 0


_EVENT_TYPES = {"seq": "bigint", "at": "bigint"} | dict.fromkeys(("kind", "op_id", "phase", "data", "value"), "text")

#: SQL for PostgreSQL: the rows of ``event_parameters``, and the columns of the log that they are for.
NEW_EVENTS = f"unnest({', '.join(f'CAST(:new_{name} AS {kind}[])' for name, kind in _EVENT_TYPES.items())}) AS new"
EVENT_COLUMNS = f"run_id, {', '.join(_EVENT_TYPES)}"

_APPEND = Prepared(text(f"INSERT INTO durable_events ({EVENT_COLUMNS}) SELECT :run, new.* FROM {NEW_EVENTS}"))


def append(tx: Connection, run_id: str, new: Sequence[Event]) -> None:
    """Append events, which have their ``seq``; raises IntegrityError when another turn has been committed."""
    if new and tx.dialect.name == "postgresql":
        _APPEND.changed(tx, {"run": run_id} | event_parameters(tx, run_id, new))
    elif new:
        tx.execute(insert(events), [{"run_id": run_id, **to_row(tx, run_id, event)} for event in new])


def event_parameters(tx: Connection, run_id: str, new: Sequence[Event]) -> dict[str, str]:
    """The parameters of ``NEW_EVENTS``: one array for each column."""
    rows = [to_row(tx, run_id, event) for event in new]
    return {f"new_{name}": array(row[name] for row in rows) for name in _EVENT_TYPES}


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
    """The run's events with ``after < seq <= upto``, in order; large values stay references."""
    own_vault = vault.of(tx)
    return [_event(own_vault, run_id, row) for row in _READ.rows(tx, {"run": run_id, "after": after, "upto": upto})]


def page(
    tx: Connection, run_id: str, *, after: int, before: int, limit: int | None, newest_first: bool, values: bool
) -> list[Event]:
    """Up to *limit* events with ``after < seq < before``, from one end; without *values* each value is empty."""
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
    return load_large_values(tx, run_id, [_event(vault.of(tx), run_id, row) for row in rows])


def stored_log(tx: Connection, run_id: str) -> list[Event]:
    """The whole log, in order, its values as they are stored."""
    query = select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, events.c.value)
    query = query.where(events.c.run_id == run_id)
    return [outline(row) for row in tx.execute(query.order_by(events.c.seq))]


def outcome(tx: Connection, run_id: str, op_id: str) -> Event | None:
    """The event that ended an operation (``ROOT``: the run itself), large values loaded; None while it goes on."""
    return _phase(tx, run_id, op_id, "ended")


def creation(tx: Connection, run_id: str, op_id: str) -> Event | None:
    """The event that created an operation, large values loaded."""
    return _phase(tx, run_id, op_id, "created")


def creations(tx: Connection, run_id: str, op_ids: Collection[str]) -> list[Event]:
    """The events that created these operations, without their values."""
    columns = (events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data)
    value = case((events.c.value.is_not(None), "")).label("value")
    mine = (events.c.run_id == run_id, events.c.op_id.in_(op_ids), events.c.phase == "created")
    return [outline(row) for row in tx.execute(select(*columns, value).where(*mine))]


def retried_attempts(tx: Connection, run_id: str, op_id: str, limit: int) -> list[StepRetrying]:
    """
    The latest attempts of a step that another one has followed, oldest first, with their errors.

    Raises:
        PayloadMissing, DecryptionError: An error cannot be read here.
    """
    found: list[Event] = []
    # The inbox first: a turn that runs meanwhile moves an event to the log, and none is missed.
    for table, order in ((inbox, inbox.c.id), (events, events.c.seq)):
        columns = (table.c.kind, table.c.at, table.c.op_id, table.c.data, table.c.value)
        mine = (table.c.run_id == run_id, table.c.op_id == op_id, table.c.kind == StepRetrying.kind)
        rows = tx.execute(select(*columns).where(*mine).order_by(order.desc()).limit(limit))
        found += [
            from_row(vault.of(tx), run_id, row.kind, seq=0, at=row.at, op_id=op_id, data=row.data, value=row.value)
            for row in rows
        ]
    by_attempt = {each.attempt: each for each in found if isinstance(each, StepRetrying)}
    latest = [by_attempt[number] for number in sorted(by_attempt)[-limit:]]
    return [each for each in load_large_values(tx, run_id, latest) if isinstance(each, StepRetrying)]


def ended_operations(tx: Connection, run_id: str, op_ids: Collection[str]) -> set[str]:
    """Those of these operations that have ended."""
    query = select(events.c.op_id).where(
        events.c.run_id == run_id, events.c.op_id.in_(op_ids), events.c.phase == "ended"
    )
    return set(tx.execute(query).scalars())


def _phase(tx: Connection, run_id: str, op_id: str, phase: str) -> Event | None:
    row = tx.execute(
        select(events).where(events.c.run_id == run_id, events.c.op_id == op_id, events.c.phase == phase)
    ).one_or_none()
    return None if row is None else load_large_values(tx, run_id, [_event(vault.of(tx), run_id, row)])[0]


def _event(own_vault: Vault, run_id: str, row: Any) -> Event:
    return from_row(
        own_vault, run_id, row.kind, seq=row.seq, at=row.at, op_id=row.op_id, data=row.data, value=row.value
    )


def post(tx: Connection, run_id: str, event: Event, sending: SendTimes) -> int:
    """
    Add an event to the run's inbox, and return the item's id.

    Args:
        sending: For the message of the turn that the event needs.
    """
    row = {"run_id": run_id, **sending.values(), **to_row(tx, run_id, event)}
    new = {name: row[name] for name in _INBOX_COLUMNS}
    if tx.dialect.name == "postgresql":
        item_id = _POST.rows(tx, new)[0].id
    else:
        item_id = tx.execute(insert(inbox), new).inserted_primary_key[0]  # type: ignore[index]
    value = getattr(event, event.value_field) if event.value_field else None
    requests.record_references(tx, run_id, codec.request_ids(value or ""))
    return int(item_id)


def post_all(tx: Connection, new: Iterable[tuple[str, Event, SendTimes]]) -> None:
    """Add events to inboxes, in this order, each with its run's id; without their references to requests."""
    rows = [{"run_id": run_id, **sending.values(), **to_row(tx, run_id, event)} for run_id, event, sending in new]
    if rows:
        tx.execute(insert(inbox), [{name: row[name] for name in _INBOX_COLUMNS} for row in rows])


def is_in_inbox(tx: Connection, item_id: int) -> bool:
    """Whether no turn has taken this item in yet."""
    return tx.execute(select(inbox.c.id).where(inbox.c.id == item_id)).first() is not None


_INBOX_COLUMNS = ("run_id", "at", "kind", "op_id", "data", "value", "next_send_at", "sent_at", "sends")
_POST = Prepared(
    text(
        f"INSERT INTO durable_inbox ({', '.join(_INBOX_COLUMNS)})"
        f" VALUES ({', '.join(f':{name}' for name in _INBOX_COLUMNS)}) RETURNING id"
    )
)
_NUMBERS = frozenset({"at", "next_send_at", "sent_at", "sends"})


def insert_into_inbox(source: str, *, not_before: str | None = None) -> str:
    """
    SQL for PostgreSQL: an INSERT into the inbox for each row of *source*, with the parameters of ``inbox_parameters``.

    Args:
        not_before: A column of *source*; an event with an earlier time gets this time.
    """
    values = {name: f"CAST(:item_{name} AS {'bigint' if name in _NUMBERS else 'text'})" for name in _INBOX_COLUMNS}
    if not_before is not None:
        values["at"] = f"GREATEST({values['at']}, {source}.{not_before})"
    return f"INSERT INTO durable_inbox ({', '.join(_INBOX_COLUMNS)}) SELECT {', '.join(values.values())} FROM {source}"


def inbox_parameters(tx: Connection, run_id: str, event: Event, sending: SendTimes) -> dict[str, Any]:
    """The parameters of ``insert_into_inbox``."""
    row = {**to_row(tx, run_id, event), **sending.values(), "run_id": run_id}
    return {f"item_{name}": row[name] for name in _INBOX_COLUMNS}


_READ_INBOX = select(inbox).where(inbox.c.run_id == bindparam("run")).order_by(inbox.c.id)
_OLDEST = Prepared(_READ_INBOX.limit(1))
_ALL_ITEMS = Prepared(_READ_INBOX)


def read_inbox(tx: Connection, run_id: str, limit: int | None = TURN_LIMIT) -> list[InboxItem]:
    """The run's inbox items, oldest first, large values as references; ``delete_inbox_items`` removes them."""
    found = {"run": run_id}
    rows = _ALL_ITEMS.rows(tx, found) if limit is None else tx.execute(_READ_INBOX.limit(limit), found)
    return [inbox_item(tx, run_id, row) for row in rows]


def inbox_item(tx: Connection, run_id: str, row: Any, prefix: str = "") -> InboxItem:
    """The item of a row whose column names begin with *prefix*."""
    at, kind, op_id, data, value = (getattr(row, prefix + name) for name in ("at", "kind", "op_id", "data", "value"))
    event = from_row(vault.of(tx), run_id, kind, seq=0, at=at, op_id=op_id, data=data, value=value)
    return InboxItem(getattr(row, f"{prefix}id"), event, getattr(row, f"{prefix}sends"))


_DELETE_ITEMS = Prepared(text("DELETE FROM durable_inbox WHERE run_id = :run AND id = ANY (CAST(:ids AS bigint[]))"))


def delete_inbox_items(tx: Connection, run_id: str, ids: Sequence[int]) -> None:
    """Delete items that a turn has moved into the log; except on PostgreSQL, in statements of bounded size."""
    if ids and tx.dialect.name == "postgresql":
        _DELETE_ITEMS.changed(tx, {"run": run_id, "ids": array(ids)})
        return
    for first in range(0, len(ids), TURN_LIMIT):
        batch = ids[first : first + TURN_LIMIT]
        tx.execute(delete(inbox).where(inbox.c.run_id == run_id, inbox.c.id.in_(batch)))


def first_inbox_item(tx: Connection, run_id: str) -> int | None:
    """The time of the run's oldest inbox item; None when the inbox is empty."""
    query = select(inbox.c.at).where(inbox.c.run_id == run_id).order_by(inbox.c.id).limit(1)
    return tx.execute(query).scalar_one_or_none()


def oldest_inbox_item(tx: Connection, run_id: str) -> Event | None:
    """The event of the run's oldest inbox item, its value as it is stored."""
    row = _OLDEST.one(tx, {"run": run_id})
    return None if row is None else outline(row)


def set_send_times(tx: Connection, run_id: str, sending: SendTimes) -> None:
    """Record when the turn for the run's inbox items is sent, and when the sweep checks them."""
    times = {"next_send_at": sending.next_send_at, "sent_at": sending.sent_at}
    tx.execute(update(inbox).where(inbox.c.run_id == run_id).values(times))
