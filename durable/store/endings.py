"""An attempt's end: its row goes, and its outcome is news of its run; on PostgreSQL in one statement."""

from __future__ import annotations

from sqlalchemy import Connection, text

from .. import codec
from ..events import AttemptEnded
from . import log, requests, steps
from .claims import Claim
from .sending import Sending
from .steps import Held

_AT_ONCE = text(
    "WITH gone AS (DELETE FROM durable_steps WHERE run_id = :run AND op_id = :op AND claim = :claim RETURNING 1) "
    + log.posting("gone")
)


def write(tx: Connection, held: Claim | Held, ended: AttemptEnded, sending: Sending) -> bool:
    """Take the attempt off the list and tell its run; False, and nothing is written, when it was given up before."""
    if tx.dialect.name != "postgresql":
        is_current = steps.end(tx, held)
        if is_current:
            log.post(tx, held.run_id, ended, sending)
        return is_current
    mine = {"run": held.run_id, "op": held.op_id, "claim": held.claim}
    is_current = tx.execute(_AT_ONCE, mine | log.posted(tx, held.run_id, ended, sending)).rowcount == 1
    if is_current:
        requests.refer(tx, held.run_id, request_ids(ended))
    return is_current


def request_ids(ended: AttemptEnded) -> set[str]:
    """The webhook requests that an outcome names."""
    value = getattr(ended, ended.value_field) if ended.value_field else None
    return codec.request_ids(value or "")
