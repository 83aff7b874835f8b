"""INSERT, or UPDATE where the key is there already, as each database says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Table

#: The most rows of one statement.
_ROWS = 500


def upsert(
    tx: Connection, table: Table, rows: Sequence[Mapping[str, Any]], changes: Callable[[Any], Mapping[str, Any]]
) -> None:
    """
    Insert rows, or change those that are there already by their primary keys.

    Args:
        rows: With different keys.
        changes: Returns the values of the columns to change, from the columns of the row that was not inserted.
    """
    is_mysql = tx.dialect.name in ("mysql", "mariadb")
    # Here, since each dialect takes a while to import, and a process needs one of them.
    dialect: Any = import_module(f"sqlalchemy.dialects.{'mysql' if is_mysql else tx.dialect.name}")
    for first in range(0, len(rows), _ROWS):
        # Not by executemany, since PyMySQL knows no parameters after VALUES there.
        new = dialect.insert(table).values(list(rows[first : first + _ROWS]))
        if is_mysql:
            tx.execute(new.on_duplicate_key_update(dict(changes(new.inserted))))
        else:
            tx.execute(
                new.on_conflict_do_update(index_elements=list(table.primary_key), set_=dict(changes(new.excluded)))
            )
