"""
Published values: the latest of each name, one row for each.

The log has all of them.  A value that a step has published waits in the run's inbox until the next turn, and counts
from the moment it is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from ..events import ValuePublished
from . import vault
from .event_rows import outline
from .runs import Run
from .schema import inbox, values
from .upsert import upsert


@dataclass(frozen=True, slots=True)
class PublishedValue:
    """
    The latest value of a name.

    Attributes:
        at: When it was published.
        place: What it is encrypted for; see ``Vault.seal``.
        stored: The encoded value as it is stored.
    """

    name: str
    at: int
    place: str
    stored: str


def write(tx: Connection, run_id: str, published: Iterable[ValuePublished]) -> None:
    """Write what a turn adds to the log, in its order, in a transaction that has passed the fence."""
    rows = {each.name: _row(tx, run_id, each.name, each.at, each.value) for each in published}
    latest = [rows[name] for name in sorted(rows)]
    upsert(tx, values, latest, lambda new: {"value": new.value, "published_at": new.published_at})


def read(tx: Connection, run: Run, name: str | None = None) -> dict[str, PublishedValue]:
    """The latest values of a run by name; of one name alone if *name* is given."""
    # The inbox first: a turn that runs meanwhile moves a value to its row, and none is missed.  What a step publishes
    # after the run's end comes into the inbox too, and is dropped.
    new = [] if run.ended else _in_inbox(tx, run.id)
    return _rows(tx, run.id, name) | {each.name: _found(each) for each in new if name in (None, each.name)}


def load(tx: Connection, run_id: str, found: PublishedValue) -> str:
    """
    The encoded value.

    Raises:
        DecryptionError: This process does not have the key.
        PayloadMissing: A large value is gone, or is not what was stored.
    """
    own_vault = vault.of(tx)
    return own_vault.fetch(tx, run_id, own_vault.unseal(run_id, found.place, found.stored)) or "null"


def hand_over(tx: Connection, run_id: str, next_run_id: str, new: Iterable[ValuePublished]) -> None:
    """Copy the values of a run to its next generation; *new* are those that its last turn is about to write."""
    latest = _rows(tx, run_id) | {each.name: _found(each) for each in new}
    rows = [_row(tx, next_run_id, each.name, each.at, load(tx, run_id, each)) for each in latest.values()]
    if rows:
        tx.execute(insert(values), rows)


def copy(tx: Connection, run_id: str, fork_id: str, new: Iterable[ValuePublished], until: int) -> None:
    """Copy to a fork what its origin had published by *until*; *new* are those in the fork's log."""
    earlier = {name: each for name, each in _rows(tx, run_id).items() if each.at <= until}
    rows = {each.name: _row(tx, fork_id, each.name, each.at, load(tx, run_id, each)) for each in earlier.values()}
    rows |= {each.name: _row(tx, fork_id, each.name, each.at, each.value) for each in new}
    if rows:
        tx.execute(insert(values), list(rows.values()))


def _in_inbox(tx: Connection, run_id: str) -> list[ValuePublished]:
    columns = (inbox.c.kind, inbox.c.at, inbox.c.op_id, inbox.c.data, inbox.c.value)
    mine = (inbox.c.run_id == run_id, inbox.c.kind == ValuePublished.kind)
    found = [outline(row) for row in tx.execute(select(*columns).where(*mine).order_by(inbox.c.id))]
    return [each for each in found if isinstance(each, ValuePublished)]


def _rows(tx: Connection, run_id: str, name: str | None = None) -> dict[str, PublishedValue]:
    query = select(values.c.name, values.c.published_at, values.c.value).where(values.c.run_id == run_id)
    if name is not None:
        query = query.where(values.c.name == name)
    return {
        row.name: PublishedValue(row.name, row.published_at, _place(row.name), row.value)
        for row in tx.execute(query.order_by(values.c.name))
    }


def _found(event: ValuePublished) -> PublishedValue:
    return PublishedValue(event.name, event.at, event.op_id, event.value)


def _row(tx: Connection, run_id: str, name: str, at: int, value: str) -> dict[str, Any]:
    sealed = vault.of(tx).seal(tx, run_id, _place(name), value)
    return {"run_id": run_id, "name": name, "published_at": at, "value": sealed}


def _place(name: str) -> str:
    return f"value {name}"
