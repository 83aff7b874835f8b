"""
Passing from one step of a run to the next in the same process: the hot path's writes, made once and for all.

The outcome of the one, the turn, and the claim of the other.  The row of the first becomes that of the second.  On
PostgreSQL all of it is one statement, which is a transaction by itself: that takes half the time of a BEGIN, an
insert and a COMMIT.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, text

from ..events import Event
from ..schema import events
from .claims import Claim
from .rows import to_row
from .runs import Run

#: How many events such a turn has: the end of a step, and the call of the next.
EVENTS = 2

_RUN = "UPDATE durable_runs SET turn = :turn + 1, seq = :seq, last_at = :last_at, status = 'running'"
_UNTOUCHED = (
    "durable_runs.id = :run AND durable_runs.turn = :turn AND durable_runs.turn_tried IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM durable_inbox WHERE durable_inbox.run_id = :run)"
)
_STEP = (
    "UPDATE durable_steps SET op_id = :next_op, name = :next_name, attempt = 1, claim = :next_claim,"
    " claimed_at = :now, started_at = :now, queue = :queue, semantics = :semantics, message_id = NULL,"
    " deadline_at = NULL, heartbeat = NULL, heartbeat_at = NULL, not_before = 0, sends = 0, sent_at = NULL"
)
_MINE = (
    "durable_steps.run_id = :run AND durable_steps.op_id = :op AND durable_steps.claim = :claim"
    " AND NOT durable_steps.cancelled"
)

_MOVE = text(f"{_RUN} WHERE {_UNTOUCHED}")
_PASS = text(f"{_STEP} WHERE {_MINE}")
_APPEND = insert(events)

_COLUMNS = ("seq", "at", "kind", "op_id", "phase", "data", "value")
_TYPES = {"seq": "bigint", "at": "bigint"}
_NEW = ", ".join(
    "(" + ", ".join(f"CAST(:{name}_{n} AS {_TYPES.get(name, 'text')})" for name in _COLUMNS) + ")"
    for n in range(EVENTS)
)
#: Locks are taken in the order run, step; each part writes only if the one before has.
_AT_ONCE = text(
    f"WITH here AS (SELECT id FROM durable_runs WHERE {_UNTOUCHED} FOR UPDATE),"
    f" passed AS ({_STEP} FROM here WHERE {_MINE} RETURNING 1),"
    f" moved AS ({_RUN} FROM passed WHERE durable_runs.id = :run RETURNING 1)"
    f" INSERT INTO durable_events (run_id, {', '.join(_COLUMNS)})"
    f" SELECT :run, new.* FROM moved, (VALUES {_NEW}) AS new"
)


def pass_on(tx: Connection, run: Run, held: Claim, to: Claim, new: Sequence[Event]) -> bool:
    """
    End the attempt *held* and begin *to*, with the log's two *new* events.

    False when another turn was here, the run has news, or the attempt was given up.  Then what was written
    must be undone, except on PostgreSQL, where nothing was.
    """
    rows = [to_row(tx, run.id, event) for event in new]
    known = {"run": run.id, "turn": run.turn, "seq": rows[-1]["seq"], "last_at": rows[-1]["at"]}
    known |= {"op": held.op_id, "claim": held.claim, "next_op": to.op_id, "next_name": to.name}
    known |= {"next_claim": to.claim, "now": to.claimed_at, "queue": to.queue, "semantics": to.semantics}
    if tx.dialect.name == "postgresql":
        values = {f"{name}_{n}": row[name] for n, row in enumerate(rows) for name in _COLUMNS}
        return tx.execute(_AT_ONCE, known | values).rowcount == EVENTS
    if tx.execute(_MOVE, known).rowcount != 1 or tx.execute(_PASS, known).rowcount != 1:
        return False
    tx.execute(_APPEND, [{"run_id": run.id, **row} for row in rows])
    return True
