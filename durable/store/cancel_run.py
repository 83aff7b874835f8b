"""Ask a run to stop: a cancel in its inbox, which its next turn takes in."""

from __future__ import annotations

from sqlalchemy import Connection

from .. import events
from . import generations, run_log, runs
from .outbox import SendTimes
from .runs import Run
from .transitions import RunStatus


def post_cancel(tx: Connection, run_id: str, reason: str | None, now: int, sending: SendTimes) -> Run | None:
    """
    Put a cancel into the inbox of the run's last generation, unless that has ended.

    Returns:
        The row of the last generation, which is locked; None when there is no such run.
    """
    row = runs.lock(tx, run_id)
    while row is not None and row.status == RunStatus.CONTINUED:
        last = generations.latest(tx, row.id)
        if last is None or last.id == row.id:
            break
        row = runs.lock(tx, last.id)
    if row is not None and not row.ended:
        # A turn that ends the run in one statement does not see an inbox item that comes at that moment.
        runs.invalidate_turn(tx, row.id)
        run_log.post(tx, row.id, events.RunCancelRequested(at=now, reason=reason), sending)
    return row
