"""Waits into the log: a sleep that is over, by its time or by ``wake_up``."""

from __future__ import annotations

from .. import events, failpoints
from ..engine import Engine
from ..store import end_operation, waits


def fire(engine: Engine, run_id: str, op_id: str) -> bool:
    """
    Record that a wait is over, if by the database's clock it is.

    A message may ring early, late or twice: the row decides.  True when the run has news.
    """
    engine.check_schema()
    if _end(engine, run_id, op_id):
        return True
    with engine.store.read() as tx:
        due_at = waits.due_at(tx, run_id, op_id)
    return engine.wait_if_near(due_at) and _end(engine, run_id, op_id)


def _end(engine: Engine, run_id: str, op_id: str) -> bool:
    now = engine.store.now()
    over = events.WaitCompleted(at=now, op_id=op_id)
    if not end_operation.commit_wait(engine.store, run_id, over, engine.dispatch.plan(now)):
        return False
    failpoints.hit("wait.recorded")
    return True
