"""What an operator does to a run: end its sleeps, retry it when it is blocked, resolve a step in doubt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from .. import codec, events, failpoints, registry
from ..engine import Engine
from ..errors import NotInDoubt, RunNotFound, StepFailed
from ..store import InDoubt, RunStatus, generations, in_doubt, run_log, runs, waits
from .describe import blocked_reason

#: The worker, in the log, of an outcome that an operator gave.
BY_HAND = "durable runs resolve"

#: The pause before ``await_retries`` looks again.
_POLL_SECS = 0.1


def wake_up(engine: Engine, run_id: str) -> int:
    """End a run's pending sleeps now, and return how many there were.  Timeouts stay."""
    with engine.store.begin() as tx:
        run = runs.find(tx, run_id)
        now = engine.store.now()
        ended = 0
        for op_id in waits.pending(tx, run_id):
            created = run_log.creation(tx, run_id, op_id)
            # The other waits are timeouts.
            is_sleep = isinstance(created, events.WaitCreated) and created.digest.startswith("sleep:")
            if is_sleep and waits.end_early(tx, run_id, op_id):
                completed = events.WaitCompleted(at=now, op_id=op_id, early=True)
                run_log.post(tx, run_id, completed, engine.dispatch.plan(now))
                ended += 1
    if run is not None and ended:
        failpoints.hit("wake_up.recorded")
        engine.send_turns(run)
    return ended


def resolve(engine: Engine, run_id: str, step_id: str | None, *, result: Any = None, fail: str | None = None) -> str:
    """
    Record the outcome of a step in doubt: its result, or with *fail* that it failed.

    Returns:
        The step's id.

    Raises:
        RunNotFound: There is no run of this id.
        NotInDoubt: No step is in doubt, or several are and *step_id* names none of them.
        SerializationError: The result does not fit the step's return annotation.
    """
    engine.check_schema()

    def act(tx: Connection) -> tuple[runs.Run, InDoubt]:
        run = runs.lock(tx, run_id)
        if run is None:
            raise RunNotFound(run_id)
        found = in_doubt.of_run(tx, run_id)
        wanted = [doubt for doubt in found if step_id in (None, doubt.op_id)]
        if len(wanted) != 1:
            raise NotInDoubt(run_id, [f"{doubt.op_id} ({doubt.name})" for doubt in found], step_id)
        doubt = wanted[0]
        outcome = _outcome(engine, doubt, result, fail)
        in_doubt.leave(tx, doubt)
        run_log.post(tx, run_id, outcome, engine.dispatch.plan(engine.store.now()))
        in_doubt.unblock_if_resolved(tx, run)
        return run, doubt

    run, doubt = engine.store.write(act)
    engine.send_turns(run)
    return doubt.op_id


def _outcome(engine: Engine, doubt: InDoubt, result: Any, fail: str | None) -> events.AttemptEnded:
    """Return the event of the outcome that the operator gives."""
    at, op_id, attempt, began = engine.store.now(), doubt.op_id, doubt.attempt, doubt.claimed_at
    if fail is not None:
        error = codec.encode_error(StepFailed("ResolvedAsFailed", fail, attempts=attempt))
        return events.StepFailedEvent(
            at=at, op_id=op_id, attempt=attempt, started_at=began, worker=BY_HAND, error=error
        )
    step = registry.steps.get(doubt.name)
    fitting = result if step is None else codec.fit(result, step.return_annotation, f"result of {step.name}")
    text = codec.encode(fitting, "result")
    return events.StepCompleted(at=at, op_id=op_id, attempt=attempt, started_at=began, worker=BY_HAND, result=text)


def retry(engine: Engine, run_id: str) -> bool:
    """Try a blocked run, or its last generation, again with this code.  Return False when it is not blocked."""
    engine.check_schema()
    with engine.store.begin() as tx:
        row = generations.latest(tx, run_id)
        if row is None:
            raise RunNotFound(run_id)
        unblocked = runs.unblock(tx, row.id)
    if unblocked:
        engine.send_turns(row)
    return unblocked


@dataclass(frozen=True, slots=True)
class RetryOutcome:
    """
    What came of a retry.

    Attributes:
        status: The run's status; None when no worker has tried the run yet.
        reason: Why the run is blocked again.
    """

    status: str | None
    reason: str | None = None


def await_retries(engine: Engine, run_ids: Sequence[str], timeout_secs: float) -> dict[str, RetryOutcome]:
    """Wait until each of these runs, which are retried, goes on or is blocked again; return what came of each."""
    found = dict.fromkeys(run_ids, RetryOutcome(None))
    until = time.monotonic() + timeout_secs
    while True:
        for run_id in [each for each, outcome in found.items() if outcome.status is None]:
            with engine.store.read() as tx:
                row = generations.latest(tx, run_id)
                if row is not None and row.status != RunStatus.BLOCKED:
                    found[run_id] = RetryOutcome(row.status)
                elif row is not None and row.blocked_version is not None:
                    # A retry leaves no version: a turn has blocked the run since.
                    found[run_id] = RetryOutcome(row.status, blocked_reason(engine, tx, row))
        if all(outcome.status is not None for outcome in found.values()) or time.monotonic() >= until:
            return found
        time.sleep(_POLL_SECS)


def is_in_doubt(engine: Engine, run_id: str) -> bool:
    """Return whether a step in doubt blocks the run."""
    engine.check_schema()
    with engine.store.read() as tx:
        return in_doubt.has_any(tx, run_id)
