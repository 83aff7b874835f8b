"""The start of a run: its row and its first inbox item, on PostgreSQL in one statement."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, insert, text

from .. import codec
from ..events import ROOT, AttributesSet, RunCreated
from . import attributes, requests, run_log, runs
from .database import Store
from .outbox import SendTimes
from .runs import Run
from .schema import runs as rows
from .statements import Prepared
from .vault import is_large


def new_run_id(now: int) -> str:
    """Return an id that begins with the time, so that new rows are neighbours in the index."""
    return f"{now // 1000:012x}{secrets.token_hex(10)}"


_COLUMNS = rows.c.keys()
_AT_ONCE = Prepared(
    text(
        f"WITH run AS (INSERT INTO durable_runs ({', '.join(_COLUMNS)})"
        f" VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) RETURNING 1) " + run_log.insert_into_inbox("run")
    )
)


def create(
    tx: Connection, run: Run, created: RunCreated, sending: SendTimes, given: Mapping[str, str] | None = None
) -> None:
    """
    Insert the run, its attributes *given*, and the inbox items for its first turn.

    Raises IntegrityError when the id or the key exists.
    """
    if tx.dialect.name != "postgresql":
        runs.create(tx, run)
        run_log.post(tx, run.id, created, sending)
    else:
        _AT_ONCE.changed(tx, runs.values(tx, run) | run_log.inbox_parameters(tx, run.id, created, sending))
        requests.record_references(tx, run.id, codec.request_ids(created.args))
    if given:
        # The rows find the run before its first turn, and the event brings them into its log.
        attributes.write(tx, run.id, run.created_at, [given])
        run_log.post(tx, run.id, AttributesSet(at=created.at, op_id=ROOT, attributes=given), sending)


def create_all(
    tx: Connection, new: Sequence[tuple[Run, RunCreated, SendTimes]], given: Mapping[str, str] | None = None
) -> None:
    """As ``create``, for several runs: one statement for all rows of a table."""
    if not new:
        return
    tx.execute(insert(rows), [runs.values(tx, run) for run, _, _ in new])
    run_log.post_all(tx, [(run.id, created, sending) for run, created, sending in new])
    for run, created, sending in new:
        requests.record_references(tx, run.id, codec.request_ids(created.args))
        if given:
            attributes.write(tx, run.id, run.created_at, [given])
            run_log.post(tx, run.id, AttributesSet(at=created.at, op_id=ROOT, attributes=given), sending)


def commit(
    store: Store,
    run: Run,
    created: RunCreated,
    plan: Callable[[Connection], SendTimes],
    given: Mapping[str, str] | None = None,
) -> None:
    """
    As ``create``, in a transaction of its own.

    Args:
        plan: Called in the transaction; returns when the message of the first turn is sent.
    """
    is_single = not given and run.not_before is None
    is_single = is_single and not is_large(created.args) and not codec.request_ids(created.args)
    store.write(lambda tx: create(tx, run, created, plan(tx), given), is_single_statement=is_single)
