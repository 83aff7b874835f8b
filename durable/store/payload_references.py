"""Which payloads runs refer to."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Column, Connection, LargeBinary, Table, func, literal, select

from .schema import events, hooks, inbox, requests, runs, steps, values
from .vault import REFERENCE, Reference

#: Every column that may contain a reference.
_COLUMNS: list[tuple[Table, Column[str]]] = [
    (events, events.c.value),
    (inbox, inbox.c.value),
    (steps, steps.c.heartbeat),
    (hooks, hooks.c.config),
    (hooks, hooks.c.metadata),
    (requests, requests.c.body),
    (requests, requests.c.answer_body),
    (runs, runs.c.blocked),
    (values, values.c.value),
]


def to_payloads(tx: Connection, run_ids: Collection[str]) -> set[tuple[str, str]]:
    """The payloads that these runs refer to, as ``(run_id, digest)``."""
    found: set[tuple[str, str]] = set()
    for table, column in _COLUMNS:
        run_id = table.c.id if table is runs else table.c.run_id
        mark: str | bytes = REFERENCE.encode("ascii") if isinstance(column.type, LargeBinary) else REFERENCE
        begins = func.substr(column, 1, len(mark)) == literal(mark, column.type)
        for row in tx.execute(select(run_id, column).where(run_id.in_(run_ids), begins)):
            digest = _digest(row[1])
            if digest is not None:
                found.add((row[0], digest))
    return found


def _digest(value: str | bytes) -> str | None:
    """The digest in a reference; None for a request's body that only begins like one."""
    try:
        return Reference.parse(value if isinstance(value, str) else value.decode("ascii")).digest
    except ValueError:
        return None
