"""
What the dashboard's page of one run reads: its operations and their events, its hooks, requests and relatives.

Each query reads a bounded number of rows, however long the run's log is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Column, Connection, Select, String, case, func, literal, select, true

from ..events import Event, EventKind
from ..http import Request, Response
from . import requests as request_rows
from .event_rows import outline
from .runs import Run
from .schema import events, requests, runs, steps, workers

#: Kinds of events with which a row of the timeline begins.
_BEGINNINGS = (
    EventKind.STEP_CREATED,
    EventKind.WAIT_CREATED,
    EventKind.HOOK_CREATED,
    EventKind.HOOK_CONFLICTED,
    EventKind.CHILD_CREATED,
)

_FAILED_ATTEMPTS = (EventKind.STEP_RETRYING, EventKind.STEP_FAILED)


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step without an outcome: its message, and the process that runs it, if one does."""

    op_id: str
    name: str
    attempt: int
    status: str
    not_before: int
    claimed_at: int | None
    host: str | None
    pid: int | None
    message_id: str | None
    queue: str | None
    sent_at: int | None
    sends: int
    interruptions: int | None
    deadline_at: int | None
    heartbeat_at: int | None
    doubt: str | None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """
    A webhook request without its head and body.

    ``dedupes`` is whether duplicates of it are recognized, and ``duplicates`` how many came.
    """

    id: str
    run_id: str
    op_id: str
    received_at: int
    answered_at: int | None
    dedupes: bool
    is_held: bool
    duplicates: int


@dataclass(frozen=True, slots=True)
class WholeRequest:
    """A webhook request and its answer; ``answer`` is None while there is none."""

    row: RequestRow
    request: Request
    answer: Response | None


_REQUESTS = select(
    requests.c.id,
    requests.c.run_id,
    requests.c.op_id,
    requests.c.received_at,
    requests.c.answered_at,
    requests.c.dedupe_key.is_not(None),
    requests.c.holder.is_not(None),
    func.coalesce(requests.c.duplicates, 0),
)


@dataclass(frozen=True, slots=True)
class Beginning:
    """The event with which an operation began."""

    seq: int
    op_id: str


def beginnings(tx: Connection, run_id: str, *, before: int, after: int, limit: int, newest: bool) -> list[Beginning]:
    """
    The beginnings of operations with ``after < seq < before``: *limit* from one end, in order.

    Reads a window of the log at that end, and a wider one while that has too few: databases do not know how long a
    log is, and would rather sort all of it.
    """
    window = 4 * limit
    while True:
        low, high = (max(after, before - window), before) if newest else (after, min(before, after + window))
        query = select(events.c.seq, events.c.op_id).where(
            events.c.run_id == run_id, events.c.seq > low, events.c.seq < high, events.c.kind.in_(_BEGINNINGS)
        )
        query = query.order_by(events.c.seq.desc() if newest else events.c.seq).limit(limit)
        found = sorted((Beginning(*row) for row in tx.execute(query)), key=lambda each: each.seq)
        if len(found) == limit or (low, high) == (after, before):
            return found
        window *= 8


def events_of_operations(tx: Connection, run_id: str, op_ids: Collection[str], limit: int) -> list[Event]:
    """Without their values: the events of these operations, in order, at most *limit*."""
    value = case((events.c.value.is_not(None), "")).label("value")
    columns = select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, value)
    query = _of_operations(tx, columns.where(events.c.run_id == run_id), events.c.op_id, op_ids)
    return [outline(row) for row in tx.execute(query.order_by("seq").limit(limit))]


def _of_operations(tx: Connection, query: Select[Any], op_id: Column[str], op_ids: Collection[str]) -> Select[Any]:
    """
    The rows of *query*, which are of one run, for these operations.

    PostgreSQL does not know how long a run's log is: it would compare each event of the run with each of the ids.
    With a lateral subquery, which OFFSET keeps apart, it looks up each id in the index.
    """
    if tx.dialect.name != "postgresql":
        return query.where(op_id.in_(op_ids))
    ids = func.unnest(literal(list(op_ids), ARRAY(String))).table_valued("op_id").render_derived(name="ids")
    looked_up = query.where(op_id == ids.c.op_id).offset(0).lateral("found")
    return select(*looked_up.c).select_from(ids.join(looked_up, true()))


def last_failures(tx: Connection, run_id: str, op_ids: Collection[str]) -> list[Event]:
    """The last event of each of these operations that records a failed attempt, its value as it is stored."""
    failed = select(events.c.op_id, events.c.seq).where(events.c.run_id == run_id, events.c.kind.in_(_FAILED_ATTEMPTS))
    found = _of_operations(tx, failed, events.c.op_id, op_ids).subquery()
    last = select(func.max(found.c.seq)).group_by(found.c.op_id)
    query = select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, events.c.value)
    return [outline(row) for row in tx.execute(query.where(events.c.run_id == run_id, events.c.seq.in_(last)))]


def log_of_operation(tx: Connection, run_id: str, op_id: str, limit: int) -> list[Event]:
    """The oldest events of one operation, in order, their values as they are stored."""
    query = select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, events.c.value)
    query = query.where(events.c.run_id == run_id, events.c.op_id == op_id)
    return [outline(row) for row in tx.execute(query.order_by(events.c.seq).limit(limit))]


def stored(tx: Connection, run_id: str, op_id: str, phase: str) -> Event | None:
    """The event that created or ended an operation, its value as it is stored."""
    query = select(events.c.kind, events.c.seq, events.c.at, events.c.op_id, events.c.data, events.c.value)
    query = query.where(events.c.run_id == run_id, events.c.op_id == op_id, events.c.phase == phase)
    row = tx.execute(query).one_or_none()
    return None if row is None else outline(row)


def open_steps(tx: Connection, run_id: str, op_ids: Collection[str]) -> list[OpenStep]:
    """Those of these operations that are steps without an outcome."""
    query = (
        select(
            steps.c.op_id,
            steps.c.name,
            steps.c.attempt,
            steps.c.status,
            steps.c.not_before,
            steps.c.claimed_at,
            workers.c.host,
            workers.c.pid,
            steps.c.message_id,
            steps.c.queue,
            steps.c.sent_at,
            steps.c.sends,
            steps.c.interruptions,
            steps.c.deadline_at,
            steps.c.heartbeat_at,
            steps.c.doubt,
        )
        .outerjoin(workers, workers.c.id == steps.c.worker_id)
        .where(steps.c.run_id == run_id)
    )
    rows: Iterable[Any] = tx.execute(_of_operations(tx, query, steps.c.op_id, op_ids))
    return [OpenStep(*row) for row in rows]


def children(tx: Connection, run_id: str, limit: int) -> list[Run]:
    """Child runs, open ones and ended ones."""
    query = select(runs).where(runs.c.parent_run_id == run_id).limit(limit)
    return sorted((Run(**row) for row in tx.execute(query).mappings()), key=lambda run: (run.created_at, run.id))


def requests_of_run(tx: Connection, run_id: str, limit: int) -> list[RequestRow]:
    """The run's newest requests, newest first."""
    query = _REQUESTS.where(requests.c.run_id == run_id)
    query = query.order_by(requests.c.received_at.desc(), requests.c.id.desc()).limit(limit)
    return [RequestRow(*row) for row in tx.execute(query)]


def recent_requests(tx: Connection, *, before: tuple[int, str] | None, limit: int) -> list[RequestRow]:
    """The newest requests over all runs, newest first; *before* is ``(received_at, id)`` of the last one seen."""
    query = _REQUESTS.order_by(requests.c.received_at.desc(), requests.c.id.desc()).limit(limit)
    if before is not None:
        at, request_id = before
        query = query.where(requests.c.received_at <= at, (requests.c.received_at < at) | (requests.c.id < request_id))
    return [RequestRow(*row) for row in tx.execute(query)]


def whole_requests(tx: Connection, rows: Sequence[RequestRow]) -> list[WholeRequest]:
    """These requests with heads, small bodies and answers.  Raises what ``requests.load`` raises."""
    ids = [row.id for row in rows]
    loaded = request_rows.load(tx, ids, whole=False)
    answered = request_rows.answers(tx, [row.id for row in rows if row.answered_at is not None])
    return [WholeRequest(row, loaded[row.id], answered.get(row.id)) for row in rows if row.id in loaded]


def find_request(tx: Connection, request_id: str) -> RequestRow | None:
    """The request with this id."""
    row = tx.execute(_REQUESTS.where(requests.c.id == request_id)).one_or_none()
    return None if row is None else RequestRow(*row)
