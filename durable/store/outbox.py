"""
What work lists have in common: when a row's message is sent, and sent again.

``sent_at`` is when the row's message was sent, or is due where a worker holds it until then; NULL: it was not sent.
``next_send_at`` is when the sweep looks at the row (again); NULL: there is nothing to send.
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

#: The tables whose rows wait for a message.
WORK_LISTS = (steps, waits, inbox)

#: What tells in which line a row's message stands: a queue, and the name of a step, or the priority of a run.
Kind = tuple[str | None, Any]


@dataclass(frozen=True, slots=True)
class SendTimes:
    """What a new row says of its message."""

    next_send_at: int
    sent_at: int | None

    @property
    def is_deferred(self) -> bool:
        """Whether the message is left to the sweep, and not sent after the commit."""
        return self.sent_at is None

    def values(self) -> dict[str, Any]:
        """As columns of a work list's row."""
        return {"next_send_at": self.next_send_at, "sent_at": self.sent_at, "sends": 0}


def growing(sends: ColumnElement[int], delay: int) -> Any:
    """*delay* microseconds, doubled with each time that the message was sent, up to 64 times."""
    # BIGINT, or psycopg would have PostgreSQL add the sum up as INTEGER, where no moment fits.
    return literal(delay, BigInteger) * case({0: 1, 1: 2, 2: 4, 3: 8, 4: 16, 5: 32}, value=sends, else_=64)


def unsent_or_lost(
    sent_at: ColumnElement[Any], queue: ColumnElement[Any], what: ColumnElement[Any], lost_before: Mapping[Kind, int]
) -> ColumnElement[bool]:
    """
    Whether a message was not sent, or is lost by now.

    Args:
        lost_before: By kind: what was sent until then, and is still there to be taken, is lost.  What is of a kind
            that is not named is not lost.
    """
    alike: dict[tuple[str | None, int], list[Any]] = defaultdict(list)
    for (name, value), before in lost_before.items():
        alike[name, before].append(value)
    lost = [
        and_(_is_one(queue, [name]), _is_one(what, values), sent_at <= before)
        for (name, before), values in alike.items()
    ]
    return or_(sent_at.is_(None), *lost)


def _is_one(column: ColumnElement[Any], values: Collection[Any]) -> ColumnElement[bool]:
    is_none = [column.is_(None)] if None in values else []
    known = [value for value in values if value is not None]
    return or_(*is_none, *([column.in_(known)] if known else []))


def later(now: int, due: Any = None) -> Any:
    """The later of *now* and a column's moment, in SQL."""
    return literal(now, BigInteger) if due is None else case((due > now, due), else_=literal(now, BigInteger))


def count_held_until_due(tx: Connection, table: Table, now: int, until: int, bound: int) -> int | None:
    """
    How many messages of a work list wait in workers until they are due.

    Args:
        until: The sweep looks at their rows by then.
        bound: So many rows are read; None when there are more.
    """
    ahead = (table.c.next_send_at > now, table.c.next_send_at <= until)
    some = select(table.c.sent_at).where(*ahead).order_by(table.c.next_send_at).limit(bound).subquery()
    query = select(func.count(), func.count(case((some.c.sent_at > now, 1)))).select_from(some)
    read, held = tx.execute(query).one()
    return None if read == bound else int(held)


def unsend_held(tx: Connection, table: Table, lost_at: int, until: int) -> None:
    """
    Of a work list, what workers were to hold until later than *lost_at* counts as not sent; it is never much.

    Args:
        until: The sweep was to look at these rows by then.
    """
    held = (table.c.next_send_at > lost_at, table.c.next_send_at <= until, table.c.sent_at > lost_at)
    tx.execute(update(table).where(*held).values(next_send_at=lost_at, sent_at=None))


def unsend(tx: Connection, table: Table, lost_at: int, after: Sequence[Any], limit: int) -> Sequence[Any] | None:
    """
    Of a work list, what was sent by *lost_at* counts as not sent: the next so many rows, in the order of their keys.

    Args:
        after: The key that the last call returned; empty for the first.

    Returns:
        The key to go on after; None when there is nothing more.
    """
    key = list(table.primary_key.columns)
    sent = (table.c.next_send_at.is_not(None), table.c.sent_at <= lost_at)
    rows = tx.execute(select(*key).where(*sent, *_beyond(key, after)).order_by(*key).limit(limit)).all()
    if rows:
        soon = case((table.c.next_send_at > lost_at, lost_at), else_=table.c.next_send_at)
        some = tuple_(*key).in_([tuple(row) for row in rows])
        tx.execute(update(table).where(some, *sent).values(next_send_at=soon, sent_at=None))
    return tuple(rows[-1]) if len(rows) == limit else None


def _beyond(key: Sequence[ColumnElement[Any]], after: Sequence[Any]) -> list[ColumnElement[bool]]:
    """Whether a key comes after another one, in words in which every database looks into the index."""
    # No key is empty, and no number 0.
    known = after or [0 if column.type.python_type is int else "" for column in key]
    if len(key) == 1:
        return [key[0] > known[0]]
    (first, second), (value, next_value) = key, known
    return [first >= value, or_(first > value, second > next_value)]


def these(table: Table, rows: Collection[Any]) -> ColumnElement[bool]:
    """Whether a row of a work list is one of these, by run and operation."""
    return tuple_(table.c.run_id, table.c.op_id).in_([(row.run_id, row.op_id) for row in rows])
