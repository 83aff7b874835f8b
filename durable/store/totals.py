"""
Totals: the sums of what all processes have measured.

They never go down: a process adds what it has counted since its last heartbeat, and no row is ever deleted.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from ..measures import Key
from .schema import totals
from .upsert import upsert


def add(tx: Connection, deltas: Mapping[Key, int]) -> None:
    """Add to the totals.  Rows are locked in the order of their keys, so that two processes never wait in a circle."""
    rows = [
        {"name": name, "label": label, "detail": detail, "value": value}
        for (name, label, detail), value in sorted(deltas.items())
    ]
    upsert(tx, totals, rows, lambda new: {"value": totals.c.value + new.value})


def read(tx: Connection) -> dict[Key, int]:
    """Every total; durations are microseconds."""
    return {(row.name, row.label, row.detail): int(row.value) for row in tx.execute(select(totals))}
