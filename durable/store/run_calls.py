"""
Calls of the application's functions that are due: ``on_run_failed`` and ``on_run_blocked``.

The transaction that makes a run failed or blocked inserts the row, if its process has such a function.  The process
that has called the functions deletes it.  A row that stays was left by a crash: the sweep sends a turn, which calls
them again.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from .outbox import growing_delay
from .schema import run_calls
from .transitions import RunStatus


def add(tx: Connection, run_id: str, status: RunStatus, next_send_at: int) -> None:
    """Note that the functions for this status are to be called; the sweep sends a turn from *next_send_at* on."""
    remove(tx, run_id, status)
    row = {"run_id": run_id, "status": status, "tries": 0, "next_send_at": next_send_at, "sends": 0}
    tx.execute(insert(run_calls).values(row))


def remove(tx: Connection, run_id: str, status: RunStatus) -> None:
    """Note that the functions have been called."""
    tx.execute(delete(run_calls).where(run_calls.c.run_id == run_id, run_calls.c.status == status))


def begin(tx: Connection, run_id: str) -> dict[RunStatus, int]:
    """Note one more try of the calls that are due for a run.  Return their statuses, each with its number of tries."""
    of_run = run_calls.c.run_id == run_id
    tx.execute(update(run_calls).where(of_run).values(tries=run_calls.c.tries + 1))
    rows = tx.execute(select(run_calls.c.status, run_calls.c.tries).where(of_run).order_by(run_calls.c.status))
    return {RunStatus(row.status): row.tries for row in rows}


def is_due(tx: Connection, run_id: str) -> bool:
    """Whether a call is due for a run."""
    return tx.execute(select(run_calls.c.run_id).where(run_calls.c.run_id == run_id).limit(1)).first() is not None


def due(tx: Connection, now: int, limit: int) -> list[str]:
    """The runs for which the sweep sends a turn now, those of the oldest calls first."""
    overdue = select(run_calls.c.run_id).where(run_calls.c.next_send_at <= now).order_by(run_calls.c.next_send_at)
    return list(dict.fromkeys(tx.execute(overdue.limit(limit)).scalars()))


def sent(tx: Connection, run_ids: Sequence[str], now: int, delay: int) -> None:
    """Record that turns of these runs were sent for their calls; the sweep waits longer each time."""
    delayed = {"next_send_at": now + growing_delay(run_calls.c.sends, delay), "sends": run_calls.c.sends + 1}
    tx.execute(
        update(run_calls).where(run_calls.c.run_id.in_(run_ids), run_calls.c.next_send_at <= now).values(delayed)
    )
