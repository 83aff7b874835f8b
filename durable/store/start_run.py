"""A run's beginning: its row and its first news, on PostgreSQL in one statement."""

from __future__ import annotations

from sqlalchemy import Connection, text

from .. import codec
from ..events import RunCreated
from . import requests, run_log, runs
from .outbox import SendTimes
from .runs import Run
from .schema import runs as rows
from .statements import Prepared

_COLUMNS = rows.c.keys()
_AT_ONCE = Prepared(
    text(
        f"WITH run AS (INSERT INTO durable_runs ({', '.join(_COLUMNS)})"
        f" VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) RETURNING 1) " + run_log.posting("run")
    )
)


def create(tx: Connection, run: Run, created: RunCreated, sending: SendTimes) -> None:
    """Insert the run, and what tells its first turn.  IntegrityError: the id or the key is taken."""
    if tx.dialect.name != "postgresql":
        runs.create(tx, run)
        run_log.post(tx, run.id, created, sending)
        return
    _AT_ONCE.changed(tx, runs.values(tx, run) | run_log.posted(tx, run.id, created, sending))
    requests.refer(tx, run.id, codec.request_ids(created.args))
