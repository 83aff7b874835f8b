"""Attributes of runs: one row for each, with an index that finds runs by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from ..attributes import Changes, merged
from ..events import AttributesSet
from .schema import attributes, inbox


def read(tx: Connection, run_id: str) -> dict[str, str]:
    """The run's attributes, by name."""
    rows = tx.execute(
        select(attributes.c.name, attributes.c.value).where(attributes.c.run_id == run_id).order_by(attributes.c.name)
    )
    return {row.name: row.value for row in rows}


def read_ahead(tx: Connection, run_id: str) -> dict[str, str]:
    """The run's attributes with the changes that are still in its inbox."""
    rows = tx.execute(
        select(inbox.c.data).where(inbox.c.run_id == run_id, inbox.c.kind == AttributesSet.kind).order_by(inbox.c.id)
    )
    return merged(read(tx, run_id), *(json.loads(row.data).get("attributes", {}) for row in rows))


def write(tx: Connection, run_id: str, created_at: int, changes: Sequence[Changes]) -> None:
    """
    Merge *changes* into the run's rows, in their order, in a transaction that has passed the fence.

    Args:
        created_at: When the run was created.
    """
    if not changes:
        return
    before = read(tx, run_id)
    after = merged(before, *changes)
    mine = attributes.c.run_id == run_id
    removed = before.keys() - after.keys()
    if removed:
        tx.execute(delete(attributes).where(mine, attributes.c.name.in_(removed)))
    for name in after.keys() & before.keys():
        if after[name] != before[name]:
            tx.execute(update(attributes).where(mine, attributes.c.name == name).values(value=after[name]))
    row = {"run_id": run_id, "created_at": created_at}
    new = [row | {"name": name, "value": after[name]} for name in after if name not in before]
    if new:
        tx.execute(insert(attributes), new)


def matching(run_id: Any, wanted: Mapping[str, str]) -> list[Any]:
    """Conditions that a run has each of these attributes; the index of names and values answers them."""
    return [
        run_id.in_(select(attributes.c.run_id).where(attributes.c.name == name, attributes.c.value == value))
        for name, value in wanted.items()
    ]
