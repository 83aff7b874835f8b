"""A recording of record_upgrades.py in a database of any kind, as it was when the old workers died."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from revisions import upgrade_to

from durable import Durable
from durable.store import VERSION_TABLE

RECORDED = Path(__file__).parent / "recorded"


def recording(revision: str) -> dict[str, Any]:
    """The recorded tables and messages of a revision."""
    found: dict[str, Any] = json.loads((RECORDED / f"{revision}.json").read_text())
    return found


def restore(engine: Durable, recorded: dict[str, Any]) -> None:
    """Make the schema of the recorded revision in an empty database, and fill it."""
    with engine.store.begin() as tx:
        upgrade_to(tx, recorded["revision"])
        metadata = sa.MetaData()
        metadata.reflect(tx, only=lambda name, _: name.startswith("durable_") and name != VERSION_TABLE)
        # A migration may have put rows there.
        for table in metadata.sorted_tables:
            tx.execute(table.delete())
        for name, rows in recorded["tables"].items():
            table = metadata.tables[name]
            values = [dict(zip(rows["columns"], map(_value, row), strict=True)) for row in rows["rows"]]
            tx.execute(table.insert(), values)
            if tx.dialect.name == "postgresql" and table.autoincrement_column is not None:
                _advance(tx, table)


def _value(plain: Any) -> Any:
    return base64.b64decode(plain["base64"]) if isinstance(plain, dict) else plain


def _advance(tx: sa.Connection, table: sa.Table) -> None:
    """Have PostgreSQL draw numbers that no row has, as it did when it drew those of the rows."""
    column = table.autoincrement_column
    assert column is not None
    sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
    tx.execute(sa.select(sa.func.setval(sequence, sa.select(sa.func.max(column)).scalar_subquery())))


def send(engine: Durable, recorded: dict[str, Any]) -> None:
    """Put the recorded messages into the default queue of an engine whose broker is in memory."""
    with engine.celery.connection() as connection:
        channel = connection.default_channel
        for name, messages in recorded["messages"].items():
            queue = engine.celery.conf.task_default_queue if name == "celery" else name
            for message in messages:
                channel._put(queue, message)
