"""TODO"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from .. import codec, events, failpoints, registry
from ..engine import Engine
from ..errors import NotInDoubt, RunNotFound, StepFailed
from ..store import Doubt, doubts, run_log, runs, settle, waits

#: What the log has for the worker of an outcome that an operator gave.
BY_HAND = "durable runs resolve"


def wake_up(engine: Engine, run_id: str) -> int:
    """End a run's pending sleeps now, but no timeouts; how many there were."""
    with engine.store.begin() as tx:
        run = runs.find(tx, run_id)
        now = engine.store.now()
        sleeps = [op_id for op_id in waits.pending(tx, run_id) if _is_sleep(tx, run_id, op_id)]
        ended = [op_id for op_id in sleeps if waits.end_early(tx, run_id, op_id)]
        for op_id in ended:
            over = events.WaitCompleted(at=now, op_id=op_id, early=True)
            run_log.post(tx, run_id, over, engine.dispatch.plan(now))
    if run is not None and ended:
        failpoints.hit("wake_up.recorded")
        engine.wake(run)
    return len(ended)


def _is_sleep(tx: Connection, run_id: str, op_id: str) -> bool:
    """Whether a wait is a ``sleep``, rather than the timeout of something else."""
    created = run_log.creation(tx, run_id, op_id)
    return isinstance(created, events.WaitCreated) and created.digest.startswith("sleep:")


def resolve(engine: Engine, run_id: str, step_id: str | None, *, result: Any = None, fail: str | None = None) -> str:
    """
    Say what became of a step in doubt: its result, or with *fail* that it failed.

    Returns:
        The step's id.

    Raises:
        RunNotFound: There is no run of this id.
        NotInDoubt: Nothing is in doubt, or several steps are and none is named.
        SerializationError: The result does not fit the step's return annotation.
    """
    engine.check_schema()

    def act(tx: Connection) -> tuple[runs.Run, Doubt]:
        run = runs.hold(tx, run_id)
        if run is None:
            raise RunNotFound(run_id)
        doubt = _chosen(run_id, doubts.of_run(tx, run_id), step_id)
        outcome = _outcome(engine, doubt, result, fail)
        doubts.leave(tx, doubt)
        run_log.post(tx, run_id, outcome, engine.dispatch.plan(engine.store.now()))
        settle(tx, run)
        return run, doubt

    run, doubt = engine.store.write(act)
    engine.wake(run)
    return doubt.op_id


def _chosen(run_id: str, found: list[Doubt], step_id: str | None) -> Doubt:
    wanted = [doubt for doubt in found if step_id in (None, doubt.op_id)]
    if len(wanted) != 1:
        raise NotInDoubt(run_id, [f"{doubt.op_id} ({doubt.name})" for doubt in found], step_id)
    return wanted[0]


def _outcome(engine: Engine, doubt: Doubt, result: Any, fail: str | None) -> events.AttemptEnded:
    known: dict[str, Any] = {
        "at": engine.store.now(),
        "op_id": doubt.op_id,
        "attempt": doubt.attempt,
        "started_at": doubt.claimed_at,
        "worker": BY_HAND,
    }
    if fail is not None:
        failed = StepFailed("ResolvedAsFailed", fail, attempts=doubt.attempt)
        return events.StepFailedEvent(error=codec.encode_error(failed), **known)
    step = registry.steps.get(doubt.name)
    fitting = result if step is None else codec.fit(result, step.return_annotation, f"result of {step.name}")
    return events.StepCompleted(result=codec.encode(fitting, "result"), **known)


def retry(engine: Engine, run_id: str) -> bool:
    """Let a blocked run be tried again by this code; False when it is not blocked."""
    engine.check_schema()
    with engine.store.begin() as tx:
        row = runs.find(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        unblocked = runs.unblock(tx, run_id)
    if unblocked:
        engine.wake(row)
    return unblocked


def is_in_doubt(engine: Engine, run_id: str) -> bool:
    """Whether the run is blocked by a step in doubt."""
    engine.check_schema()
    with engine.store.read() as tx:
        return doubts.has_any(tx, run_id)
