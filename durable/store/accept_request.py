"""
Record a webhook request: its row and its run's inbox item, if the webhook is open and below its limit.

On PostgreSQL this is one statement.  Elsewhere it is one statement for each part, in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection, text

from . import hooks, requests, run_log, runs
from .database import Store
from .outbox import SendTimes
from .requests import IncomingRequest
from .statements import Prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingResult:
    """What was recorded, and where the run's turns are sent."""

    is_open: bool
    is_recorded: bool = False
    queue: str | None = None
    priority: int | None = None
    trace_context: str | None = None


def commit(store: Store, incoming: IncomingRequest, sending: SendTimes) -> RecordingResult:
    """
    Record a request, unless the webhook is closed or has reached its limit.

    The limit is approximate: requests that arrive at the same moment do not count each other.

    Raises:
        IntegrityError: A request with the same key has been recorded meanwhile.
    """
    return store.write(lambda tx: _record(tx, incoming, sending), is_single_statement=incoming.is_plain)


def _record(tx: Connection, incoming: IncomingRequest, sending: SendTimes) -> RecordingResult:
    if tx.dialect.name == "postgresql":
        row = requests.row_of(tx, incoming)
        parameters = {f"sent_{name}": value for name, value in row.items()} | {"limit": incoming.limit}
        parameters |= run_log.inbox_parameters(tx, incoming.run_id, incoming.event, sending)
        found = _at_once(incoming.answer is None, incoming.limit > 0).one(tx, parameters)
        return RecordingResult(is_open=False) if found is None else RecordingResult(**found._asdict())

    if hooks.lock(tx, incoming.run_id, incoming.op_id) is None:
        return RecordingResult(is_open=False)
    waiting = requests.count_pending(
        tx, incoming.run_id, incoming.op_id, held=incoming.answer is None, limit=incoming.limit
    )
    if 0 < incoming.limit <= waiting:
        return RecordingResult(is_open=True)
    requests.create(tx, incoming)
    run_log.post(tx, incoming.run_id, incoming.event, sending)
    run = runs.find(tx, incoming.run_id)
    assert run is not None, "a webhook without its run"
    return RecordingResult(
        is_open=True,
        is_recorded=True,
        queue=run.queue,
        priority=run.priority,
        trace_context=run.trace_context,
    )


_BYTES = frozenset({"body", "answer_body"})
_NUMBERS = frozenset({"received_at", "answered_at"})


@cache
def _at_once(held: bool, limited: bool) -> Prepared:
    """One statement for PostgreSQL; each part writes only if the part before it has found or written a row."""
    mine = "run_id = :sent_run_id AND op_id = :sent_op_id"
    pending = f"durable_requests WHERE {mine} AND answered_at IS NULL" if held else f"durable_inbox WHERE {mine}"
    room = f" WHERE (SELECT count(*) FROM (SELECT 1 FROM {pending} LIMIT :limit) AS pending) < :limit"
    columns = requests.COLUMNS
    statement = (
        f"WITH hook AS (SELECT 1 FROM durable_hooks WHERE {mine} AND closed_at IS NULL FOR SHARE),"
        f" request AS (INSERT INTO durable_requests ({', '.join(columns)})"
        f" SELECT {', '.join(map(_cast, columns))} FROM hook{room if limited else ''} RETURNING 1),"
        f" item AS ({run_log.insert_into_inbox('request')})"
        " SELECT EXISTS (SELECT 1 FROM hook) AS is_open, EXISTS (SELECT 1 FROM request) AS is_recorded,"
        " queue, priority, trace_context FROM durable_runs WHERE id = :sent_run_id"
    )
    return Prepared(text(statement))


def _cast(name: str) -> str:
    kind = "bytea" if name in _BYTES else "bigint" if name in _NUMBERS else "text"
    return f"CAST(:sent_{name} AS {kind})"
