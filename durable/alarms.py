"""Waits into the log: a sleep that is over, by its time or by ``wake_up``."""

from __future__ import annotations

from sqlalchemy import Connection

from . import events, failpoints
from .engine import Engine
from .store import endings, log, runs, waits


def ring(engine: Engine, run_id: str, op_id: str) -> bool:
    """
    Record that a wait is over, if by the database's clock it is.

    A message may ring early, late or twice: the row decides.  True when the run has news.
    """
    engine.check_schema()
    if _end(engine, run_id, op_id):
        return True
    with engine.store.read() as tx:
        due_at = waits.due_at(tx, run_id, op_id)
    return engine.is_nearly(due_at) and _end(engine, run_id, op_id)


def _end(engine: Engine, run_id: str, op_id: str) -> bool:
    now = engine.store.now()
    over = events.WaitCompleted(at=now, op_id=op_id)
    with engine.store.once() as tx:
        if not endings.end_wait(tx, run_id, over, engine.store.sql_now, engine.dispatch.plan(now)):
            return False
    failpoints.hit("wait.recorded")
    return True


def wake_up(engine: Engine, run_id: str) -> int:
    """End a run's pending sleeps now, but no timeouts; how many there were."""
    with engine.store.begin() as tx:
        run = runs.find(tx, run_id)
        now = engine.store.now()
        sleeps = [op_id for op_id in waits.pending(tx, run_id) if _is_sleep(tx, run_id, op_id)]
        ended = [op_id for op_id in sleeps if waits.end_early(tx, run_id, op_id)]
        for op_id in ended:
            over = events.WaitCompleted(at=now, op_id=op_id, early=True)
            log.post(tx, run_id, over, engine.dispatch.plan(now))
    if run is not None and ended:
        failpoints.hit("wake_up.recorded")
        engine.dispatch.drive(run_id, run.queue, run.priority)
    return len(ended)


def _is_sleep(tx: Connection, run_id: str, op_id: str) -> bool:
    """Whether a wait is a ``sleep``, rather than the timeout of something else."""
    created = log.creation(tx, run_id, op_id)
    return isinstance(created, events.WaitCreated) and created.digest.startswith("sleep:")
