"""
A webhook's request comes in: its row, and its run's news, if the webhook is open and has room.

On PostgreSQL that is one statement, which is a transaction by itself; elsewhere each part has its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection, text

from . import hooks, requests, run_log, runs
from .outbox import SendTimes
from .requests import IncomingRequest
from .statements import Prepared


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingResult:
    """What became of it, and where its run's turns go."""

    is_open: bool
    is_recorded: bool = False
    queue: str | None = None
    priority: int | None = None


def record(tx: Connection, arrival: IncomingRequest, sending: SendTimes) -> RecordingResult:
    """
    Record a request; not one to a webhook that is closed, or full.  IntegrityError: its key is there since.

    It is full only about then: those that come in at the same moment don't see each other.
    """
    if tx.dialect.name != "postgresql":
        return _record(tx, arrival, sending)
    row = requests.row_of(tx, arrival)
    known = {f"sent_{name}": value for name, value in row.items()} | {"limit": arrival.limit}
    known |= run_log.posted(tx, arrival.run_id, arrival.news, sending)
    found = _at_once(arrival.answer is None, arrival.limit > 0).one(tx, known)
    return RecordingResult(is_open=False) if found is None else RecordingResult(**found._asdict())


def _record(tx: Connection, arrival: IncomingRequest, sending: SendTimes) -> RecordingResult:
    if hooks.lock(tx, arrival.run_id, arrival.op_id) is None:
        return RecordingResult(is_open=False)
    waiting = requests.count_pending(
        tx, arrival.run_id, arrival.op_id, held=arrival.answer is None, limit=arrival.limit
    )
    if 0 < arrival.limit <= waiting:
        return RecordingResult(is_open=True)
    requests.create(tx, arrival)
    run_log.post(tx, arrival.run_id, arrival.news, sending)
    run = runs.find(tx, arrival.run_id)
    assert run is not None, "a webhook without its run"
    return RecordingResult(is_open=True, is_recorded=True, queue=run.queue, priority=run.priority)


_BYTES = frozenset({"body", "answer_body"})
_NUMBERS = frozenset({"received_at", "answered_at"})


@cache
def _at_once(held: bool, limited: bool) -> Prepared:
    """All of it in one statement of PostgreSQL: each part writes only if the one before has found something."""
    mine = "run_id = :sent_run_id AND op_id = :sent_op_id"
    pending = f"durable_requests WHERE {mine} AND answered_at IS NULL" if held else f"durable_inbox WHERE {mine}"
    room = f" WHERE (SELECT count(*) FROM (SELECT 1 FROM {pending} LIMIT :limit) AS pending) < :limit"
    columns = requests.COLUMNS
    statement = (
        f"WITH hook AS (SELECT 1 FROM durable_hooks WHERE {mine} AND closed_at IS NULL FOR SHARE),"
        f" request AS (INSERT INTO durable_requests ({', '.join(columns)})"
        f" SELECT {', '.join(map(_cast, columns))} FROM hook{room if limited else ''} RETURNING 1),"
        f" news AS ({run_log.posting('request')})"
        " SELECT EXISTS (SELECT 1 FROM hook) AS is_open, EXISTS (SELECT 1 FROM request) AS is_recorded,"
        " queue, priority FROM durable_runs WHERE id = :sent_run_id"
    )
    return Prepared(text(statement))


def _cast(name: str) -> str:
    kind = "bytea" if name in _BYTES else "bigint" if name in _NUMBERS else "text"
    return f"CAST(:sent_{name} AS {kind})"
