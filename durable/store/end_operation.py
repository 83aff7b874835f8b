"""The end of an attempt, or of a wait: its row goes, and its run has news; on PostgreSQL in one statement."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, text

from .. import codec
from ..events import AttemptEnded, WaitCompleted
from . import requests, run_log, steps, waits
from .claims import Claim
from .outbox import SendTimes
from .statements import Prepared
from .steps import ClaimedAttempt

_AT_ONCE = Prepared(
    text(
        "WITH gone AS (DELETE FROM durable_steps WHERE run_id = :run AND op_id = :op AND claim = :claim RETURNING 1) "
        + run_log.posting("gone")
    )
)


def write(tx: Connection, held: Claim | ClaimedAttempt, ended: AttemptEnded, sending: SendTimes) -> bool:
    """Take the attempt off the list and tell its run; False, and nothing is written, when it was given up before."""
    if tx.dialect.name != "postgresql":
        is_current = steps.end(tx, held)
        if is_current:
            run_log.post(tx, held.run_id, ended, sending)
        return is_current
    mine = {"run": held.run_id, "op": held.op_id, "claim": held.claim}
    is_current = _AT_ONCE.changed(tx, mine | run_log.posted(tx, held.run_id, ended, sending)) == 1
    if is_current:
        requests.refer(tx, held.run_id, request_ids(ended))
    return is_current


def end_wait(tx: Connection, run_id: str, over: WaitCompleted, now: Any, sending: SendTimes) -> bool:
    """
    Take a wait off the list and tell its run; False, and nothing is written, when it is not there, or not due.

    Args:
        over: Of the moment at which it ended, or of its due time where that is later.
        now: The database's clock, as SQL without parameters.
    """
    if tx.dialect.name != "postgresql":
        due_at = waits.end(tx, run_id, over.op_id, now)
        if due_at is not None:
            run_log.post(tx, run_id, replace(over, at=max(over.at, due_at)), sending)
        return due_at is not None
    known = {"run": run_id, "op": over.op_id} | run_log.posted(tx, run_id, over, sending)
    return _wait_at_once(str(now)).changed(tx, known) == 1


@lru_cache(maxsize=16)
def _wait_at_once(now: str) -> Prepared:
    mine = f"run_id = :run AND op_id = :op AND due_at <= {now}"
    ended = f"WITH ended AS (DELETE FROM durable_waits WHERE {mine} RETURNING due_at) "
    return Prepared(text(ended + run_log.posting("ended", not_before="due_at")))


def request_ids(ended: AttemptEnded) -> set[str]:
    """The webhook requests that an outcome names."""
    value = getattr(ended, ended.value_field) if ended.value_field else None
    return codec.request_ids(value or "")
