"""Ask a run to stop: a cancel in its inbox, which its next turn takes in."""

from __future__ import annotations

from sqlalchemy import Connection

from .. import events
from . import generations, pause_runs, run_log, runs
from .outbox import SendTimes
from .runs import Run


def post_cancel(tx: Connection, run_id: str, reason: str | None, now: int, sending: SendTimes) -> Run | None:
    """
    Put a cancel into the inbox of the run's last generation, unless that has ended.

    Returns:
        The row of the last generation, which is locked; None when there is no such run.
    """
    row = generations.lock_latest(tx, run_id)
    if row is not None and not row.ended:
        if row.paused_at is not None:
            # Its code may have something to clean up.
            pause_runs.release(tx, row, now, sending)
        # A turn that ends the run in one statement does not see an inbox item that comes at that moment.
        runs.invalidate_turn(tx, row.id)
        run_log.post(tx, row.id, events.RunCancelRequested(at=now, reason=reason), sending)
    return row
