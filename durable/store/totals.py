"""
Totals: the sums of what all processes have measured.

They never go down: a process adds what it has counted since its last heartbeat, and no row is ever deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from ..measures import Key
from .schema import totals


def add(tx: Connection, deltas: Mapping[Key, int]) -> None:
    """Add to the totals.  Rows are locked in the order of their keys, so that two processes never wait in a circle."""
    rows = [
        {"name": name, "label": label, "detail": detail, "value": value}
        for (name, label, detail), value in sorted(deltas.items())
    ]
    if rows:
        tx.execute(_upsert(tx.dialect.name), rows)


def _upsert(dialect: str) -> Any:
    # A process imports only its own dialect of SQLAlchemy: each of them takes long to import.
    if dialect in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        new = mysql.insert(totals)
        return new.on_duplicate_key_update(value=totals.c.value + new.inserted.value)
    added: Any
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        added = postgresql.insert(totals)
    else:
        from sqlalchemy.dialects import sqlite

        added = sqlite.insert(totals)
    summed = {"value": totals.c.value + added.excluded.value}
    return added.on_conflict_do_update(index_elements=["name", "label", "detail"], set_=summed)


def read(tx: Connection) -> dict[Key, int]:
    """Every total; durations are microseconds."""
    return {(row.name, row.label, row.detail): int(row.value) for row in tx.execute(select(totals))}
