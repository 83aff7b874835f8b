"""The start of a run: its row and its first inbox item, on PostgreSQL in one statement."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, text

from .. import codec
from ..events import RunCreated
from . import requests, run_log, runs
from .database import Store
from .outbox import SendTimes
from .runs import Run
from .schema import runs as rows
from .statements import Prepared
from .vault import is_large

_COLUMNS = rows.c.keys()
_AT_ONCE = Prepared(
    text(
        f"WITH run AS (INSERT INTO durable_runs ({', '.join(_COLUMNS)})"
        f" VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) RETURNING 1) " + run_log.insert_into_inbox("run")
    )
)


def create(tx: Connection, run: Run, created: RunCreated, sending: SendTimes) -> None:
    """Insert the run and the inbox item for its first turn; raises IntegrityError when the id or the key exists."""
    if tx.dialect.name != "postgresql":
        runs.create(tx, run)
        run_log.post(tx, run.id, created, sending)
        return
    _AT_ONCE.changed(tx, runs.values(tx, run) | run_log.inbox_parameters(tx, run.id, created, sending))
    requests.record_references(tx, run.id, codec.request_ids(created.args))


def commit(store: Store, run: Run, created: RunCreated, plan: Callable[[Connection], SendTimes]) -> None:
    """
    As ``create``, in a transaction of its own.

    Args:
        plan: Called in the transaction; returns when the message of the first turn is sent.
    """
    is_single = run.not_before is None and not is_large(created.args) and not codec.request_ids(created.args)
    store.write(lambda tx: create(tx, run, created, plan(tx)), is_single_statement=is_single)
