"""
The outbox columns of the work lists: when a row's message was sent, and when it is sent again.

``sent_at`` is the time at which the message was sent; where a worker holds the message until it is due, the due time.
NULL means that no message was sent.  ``next_send_at`` is the time at which the sweep checks the row (again).  NULL
means that there is nothing to send.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Table,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from .schema import inbox, steps, waits

#: The tables with outbox columns.
WORK_LISTS = (steps, waits, inbox)

#: Messages that workers take in the order of sending: a queue, and a step's name or a run's priority.
MessageGroup = tuple[str | None, Any]


@dataclass(frozen=True, slots=True)
class SendTimes:
    """The outbox columns of a new row."""

    next_send_at: int | None
    sent_at: int | None

    @property
    def is_deferred(self) -> bool:
        """Whether the sweep sends the message, rather than the process that commits the row."""
        return self.sent_at is None

    def values(self) -> dict[str, Any]:
        """The columns by name."""
        return {"next_send_at": self.next_send_at, "sent_at": self.sent_at, "sends": 0}


def growing_delay(sends: ColumnElement[int], delay: int) -> Any:
    """*delay* microseconds, doubled for each time that the message was sent, up to 64-fold."""
    # BIGINT: otherwise PostgreSQL computes the sum as INTEGER, which is too small for a time in microseconds.
    return literal(delay, BigInteger) * case({0: 1, 1: 2, 2: 4, 3: 8, 4: 16, 5: 32}, value=sends, else_=64)


def unsent_or_lost(
    sent_at: ColumnElement[Any],
    queue: ColumnElement[Any],
    what: ColumnElement[Any],
    lost_before: Mapping[MessageGroup, int],
) -> ColumnElement[bool]:
    """
    Whether a row's message was not sent, or is lost.

    Args:
        what: The column that forms a message group with the queue: a step's name or a run's priority.
        lost_before: By message group: messages sent until then whose rows are still there are lost.  In groups that are
            not named no message is lost.
    """
    groups: dict[tuple[str | None, int], list[Any]] = defaultdict(list)
    for (name, value), before in lost_before.items():
        groups[name, before].append(value)
    lost = [
        and_(_is_in(queue, [name]), _is_in(what, values), sent_at <= before)
        for (name, before), values in groups.items()
    ]
    return or_(sent_at.is_(None), *lost)


def _is_in(column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
    is_none = [column.is_(None)] if None in values else []
    others = [value for value in values if value is not None]
    return or_(*is_none, *([column.in_(others)] if others else []))


def later(now: int, due: Any = None) -> Any:
    """The later of *now* and a column's time, as SQL."""
    return literal(now, BigInteger) if due is None else case((due > now, due), else_=literal(now, BigInteger))


def count_held_until_due(tx: Connection, table: Table, now: int, until: int, bound: int) -> int | None:
    """
    How many messages of a work list workers hold until they are due; None when there are too many rows to count.

    Args:
        until: Only rows that the sweep checks by then.
        bound: How many rows to read.
    """
    ahead = (table.c.next_send_at > now, table.c.next_send_at <= until)
    some = select(table.c.sent_at).where(*ahead).order_by(table.c.next_send_at).limit(bound).subquery()
    query = select(func.count(), func.count(case((some.c.sent_at > now, 1)))).select_from(some)
    read, held = tx.execute(query).one()
    return None if read == bound else int(held)


def mark_held_unsent(tx: Connection, table: Table, lost_at: int, until: int) -> int:
    """
    Mark messages as unsent that workers would still hold at *lost_at*, and return how many there are: never many.

    Args:
        until: Only rows that the sweep checks by then.
    """
    held = (table.c.next_send_at > lost_at, table.c.next_send_at <= until, table.c.sent_at > lost_at)
    return tx.execute(update(table).where(*held).values(next_send_at=lost_at, sent_at=None)).rowcount


def mark_unsent(
    tx: Connection, table: Table, lost_at: int, after: Sequence[Any], limit: int
) -> tuple[int, Sequence[Any] | None]:
    """
    Mark messages as unsent that were sent until *lost_at*: the next *limit* rows in the order of their keys.

    Args:
        after: The key that the last call returned; empty for the first call.

    Returns:
        How many messages were marked, and the key to continue after; None when all rows are done.
    """
    key = list(table.primary_key.columns)
    sent = (table.c.next_send_at.is_not(None), table.c.sent_at <= lost_at)
    rows = tx.execute(select(*key).where(*sent, *_beyond(key, after)).order_by(*key).limit(limit)).all()
    if rows:
        soon = case((table.c.next_send_at > lost_at, lost_at), else_=table.c.next_send_at)
        some = tuple_(*key).in_([tuple(row) for row in rows])
        tx.execute(update(table).where(some, *sent).values(next_send_at=soon, sent_at=None))
    return len(rows), tuple(rows[-1]) if len(rows) == limit else None


def _beyond(key: Sequence[ColumnElement[Any]], after: Sequence[Any]) -> list[ColumnElement[bool]]:
    """Conditions that a key comes after another one, written so that every database uses the index."""
    # Every key is greater than the empty text and than 0.
    last = after or [0 if column.type.python_type is int else "" for column in key]
    if len(key) == 1:
        return [key[0] > last[0]]
    (first, second), (value, next_value) = key, last
    return [first >= value, or_(first > value, second > next_value)]


def is_one_of(table: Table, rows: Collection[Any]) -> ColumnElement[bool]:
    """Whether a row of a work list is one of *rows*, by run and operation."""
    return tuple_(table.c.run_id, table.c.op_id).in_([(row.run_id, row.op_id) for row in rows])
