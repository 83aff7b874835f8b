"""Ends waits: a wait is over when its time has come, and the run's inbox says so."""

from __future__ import annotations

from .. import events, failpoints, measures
from ..engine import Engine
from ..store import end_operation, waits
from .conclude import conclude_wait
from .continuation import Continuation


def fire(engine: Engine, run_id: str, op_id: str, continuation: Continuation | None = None) -> bool:
    """
    End a wait if it is due by the database's clock.  Return whether the run has something new.

    The wait's message may come early, late or twice: its row decides.

    Args:
        continuation: May take the run's turn, too, if this process knows the wait.
    """
    engine.check_schema()
    if engine.known_waits.take_end(run_id, op_id):
        return False
    known = None if continuation is None else engine.known_waits.take(run_id, op_id)
    if continuation is not None and known is not None and conclude_wait(engine, continuation, known):
        return True
    if _end(engine, run_id, op_id):
        return True
    with engine.store.read() as tx:
        due_at = waits.due_at(tx, run_id, op_id)
    return engine.wait_if_near(due_at) and _end(engine, run_id, op_id)


def _end(engine: Engine, run_id: str, op_id: str) -> bool:
    now = engine.store.now()
    completed = events.WaitCompleted(at=now, op_id=op_id)
    due_at = end_operation.commit_wait(engine.store, run_id, completed, engine.dispatch.plan(now))
    if due_at is None:
        return False
    engine.measures.observe(measures.TIMER_LATE_SECONDS, engine.store.now() - due_at)
    failpoints.hit("wait.recorded")
    return True
