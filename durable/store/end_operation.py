"""
The end of an attempt or of a wait: delete its row and add the outcome to the run's inbox.

On PostgreSQL each is one statement.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, text

from .. import codec
from ..events import AttemptEnded, WaitCompleted
from . import requests, run_log, steps, waits
from .claimed_attempts import ClaimedAttempt
from .claims import Claim
from .database import Store
from .event_rows import has_large
from .outbox import SendTimes
from .statements import Prepared

_AT_ONCE = Prepared(
    text(
        "WITH deleted AS"
        " (DELETE FROM durable_steps WHERE run_id = :run AND op_id = :op AND claim = :claim RETURNING 1) "
        + run_log.insert_into_inbox("deleted")
    )
)


def write(tx: Connection, held: Claim | ClaimedAttempt, ended: AttemptEnded, sending: SendTimes) -> bool:
    """Record an attempt's outcome; False, and nothing is written, when the attempt was given up."""
    if tx.dialect.name != "postgresql":
        is_current = steps.end(tx, held)
        if is_current:
            run_log.post(tx, held.run_id, ended, sending)
        return is_current
    parameters = {"run": held.run_id, "op": held.op_id, "claim": held.claim}
    is_current = _AT_ONCE.changed(tx, parameters | run_log.inbox_parameters(tx, held.run_id, ended, sending)) == 1
    if is_current:
        requests.record_references(tx, held.run_id, request_ids(ended))
    return is_current


def commit(store: Store, held: Claim | ClaimedAttempt, ended: AttemptEnded, sending: SendTimes) -> bool:
    """As ``write``, in a transaction of its own."""
    is_single = not request_ids(ended) and not has_large([ended])
    with store.single_statement() if is_single else store.begin() as tx:
        return write(tx, held, ended, sending)


def commit_wait(store: Store, run_id: str, over: WaitCompleted, sending: SendTimes) -> int | None:
    """As ``end_wait``, in a transaction of its own."""
    with store.single_statement() as tx:
        return end_wait(tx, run_id, over, store.sql_now, sending)


def end_wait(tx: Connection, run_id: str, over: WaitCompleted, now: Any, sending: SendTimes) -> int | None:
    """
    Record the end of a wait, and return when it was due; None, and nothing is written, when it is gone or not due.

    Args:
        over: The event.  Its time becomes the due time if that is later.
        now: The database's clock, as SQL without parameters.
    """
    if tx.dialect.name != "postgresql":
        due_at = waits.end(tx, run_id, over.op_id, now)
        if due_at is not None:
            run_log.post(tx, run_id, replace(over, at=max(over.at, due_at)), sending)
        return due_at
    parameters = {"run": run_id, "op": over.op_id} | run_log.inbox_parameters(tx, run_id, over, sending)
    ended = _wait_at_once(str(now)).one(tx, parameters)
    return None if ended is None else int(ended.due_at)


@lru_cache(maxsize=16)
def _wait_at_once(now: str) -> Prepared:
    mine = f"run_id = :run AND op_id = :op AND due_at <= {now}"
    ended = f"WITH ended AS (DELETE FROM durable_waits WHERE {mine} RETURNING due_at) "
    insert = run_log.insert_into_inbox("ended", not_before="due_at")
    return Prepared(text(f"{ended}{insert} RETURNING (SELECT due_at FROM ended) AS due_at"))


def request_ids(ended: AttemptEnded) -> set[str]:
    """The ids of webhook requests that an outcome contains."""
    value = getattr(ended, ended.value_field) if ended.value_field else None
    return codec.request_ids(value or "")
