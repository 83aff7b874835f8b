"""
Steps in doubt: nobody knows whether an attempt of an at-most-once step did its work, and it is not repeated.

The step's row and its run are marked in one transaction.  The run is blocked: it has no turns until each
doubt is resolved, by an operator, or by the attempt's own process, if that lives after all.  The first of
them wins, since both are fenced by the attempt's claim.  Locks are taken in the order run, step.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from . import codec, events, logs, registry
from .engine import Engine
from .errors import NotInDoubt, RunNotFound, StepFailed
from .store import doubts, runs
from .store import log as run_log
from .store.claims import Claim
from .store.doubts import Doubt
from .store.steps import Held

log = logs.get("durable.steps")

AT_MOST_ONCE = "at_most_once"

#: What the log has for the worker of an outcome that an operator gave.
BY_HAND = "durable runs resolve"


def enter(engine: Engine, held: Claim | Held, what_happened: str) -> bool:
    """
    Put an attempt in doubt and block its run; whether it is in doubt now.

    False when nobody waits for its outcome: it was given up, or has ended, or so has its run.
    """
    with engine.store.begin() as tx:
        run = runs.hold(tx, held.run_id)
        if run is None or run.ended:
            return False
        if not doubts.enter(tx, held, _sentence(held, what_happened)):
            return doubts.is_in_doubt(tx, held)
        doubts.block(tx, held.run_id, doubts.of_run(tx, held.run_id))
    log.error("Run %s is blocked: attempt %d of %s is in doubt.", held.run_id, held.attempt, held.name)
    return True


def settle(tx: Connection, run: runs.Run | None) -> None:
    """After an outcome was recorded of what may have been in doubt: the run goes on if that was all."""
    if run is not None and run.status == "blocked" and not run.ended:
        doubts.block(tx, run.id, doubts.of_run(tx, run.id))


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
    engine.dispatch.drive(run_id, run.queue, run.priority)
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
        return events.StepFailed(error=codec.encode_error(failed), **known)
    step = registry.steps.get(doubt.name)
    fitting = result if step is None else codec.fit(result, step.return_annotation, f"result of {step.name}")
    return events.StepCompleted(result=codec.encode(fitting, "result"), **known)


def _sentence(held: Claim | Held, what_happened: str) -> str:
    return (
        f"Step {held.name} ({held.op_id}), attempt {held.attempt}, is in doubt: {what_happened}.  It is to run at most"
        " once, so it is not repeated.  Find out whether it did its work, then say so:"
        f" `durable runs resolve {held.run_id} --step {held.op_id} --result JSON`, or `--fail MESSAGE`."
    )
