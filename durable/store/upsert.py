"""INSERT, or UPDATE where the key is there already, as each database says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Table


def upsert(dialect: str, table: Table, changes: Callable[[Any], Mapping[str, Any]]) -> Any:
    """
    A statement that inserts a row, or changes the one with the same primary key.

    Args:
        changes: Returns the values of the columns to change, from the columns of the row that was not inserted.
    """
    # A process imports only its own dialect of SQLAlchemy: each of them takes long to import.
    if dialect in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        new = mysql.insert(table)
        return new.on_duplicate_key_update(dict(changes(new.inserted)))
    added: Any
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql

        added = postgresql.insert(table)
    else:
        from sqlalchemy.dialects import sqlite

        added = sqlite.insert(table)
    return added.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(changes(added.excluded)))
