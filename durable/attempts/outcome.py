"""
What becomes of an attempt: its outcome in the run's inbox, the next attempt, or both given up.

Everything is guarded by the attempt's claim: one that was given up meanwhile can
record nothing, and what was written once finds nothing to do the second time.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import codec, events, registry
from ..engine import Engine, identify
from ..errors import StepFailed
from ..registry import RetryPolicy, definitions
from ..sandbox import log_records
from ..store import (
    Claim,
    ClaimedAttempt,
    SendTimes,
    StepRow,
    claims,
    end_operation,
    event_rows,
    in_doubt,
    reason,
    run_log,
    runs,
    steps,
)
from . import doubt

log = log_records.get("durable.steps")

#: So often the end of a process may interrupt one attempt; the last of them counts.
MOST_INTERRUPTIONS = 5


def record(engine: Engine, held: Claim | ClaimedAttempt, ended: events.AttemptEnded) -> StepRow | None:
    """Put the outcome into the run's inbox; the next attempt if there is one, None when nothing is to be sent."""
    event_rows.store_early(engine.store.vault, held.run_id, [ended])
    if isinstance(ended, events.StepRetrying) or held.semantics == definitions.AT_MOST_ONCE:
        with engine.store.begin() as tx:
            recorded = write(engine, tx, held, ended)
    else:
        sending = engine.dispatch.plan(engine.store.now())
        recorded = Recorded(end_operation.commit(engine.store, held, ended, sending))
    if not recorded.is_current:
        log.warning(
            "Attempt %d of %s in run %s was given up: its outcome is not recorded.",
            held.attempt,
            held.op_id,
            held.run_id,
        )
    return recorded.again


@dataclass(frozen=True)
class Recorded:
    """What came of writing an outcome: nothing if the attempt is not current; the next attempt if there is one."""

    is_current: bool
    again: StepRow | None = None


def write(engine: Engine, tx: Connection, held: Claim | ClaimedAttempt, ended: events.AttemptEnded) -> Recorded:
    """An attempt's outcome, in a transaction of the caller's."""
    # What may be in doubt has its run blocked: the order of locks is run, step.
    run = runs.lock(tx, held.run_id) if held.semantics == definitions.AT_MOST_ONCE else None
    recorded = _written(engine, tx, held, ended)
    in_doubt.unblock_if_resolved(tx, run)
    return recorded


def _written(engine: Engine, tx: Connection, held: Claim | ClaimedAttempt, ended: events.AttemptEnded) -> Recorded:
    if isinstance(ended, events.StepRetrying):
        row = _again(engine, tx, held, ended)
        if row is not None:
            return Recorded(True, row)
        ended = _untried(ended)
    return Recorded(end_operation.write(tx, held, ended, engine.dispatch.plan(engine.store.now())))


def _again(engine: Engine, tx: Connection, held: Claim | ClaimedAttempt, ended: events.StepRetrying) -> StepRow | None:
    """The next attempt; None when there is to be none, since this one or its call was given up."""
    sending = engine.dispatch.plan_at(tx, engine.store.now(), ended.due_at)
    if not steps.make_pending(tx, held, counted=True, not_before=ended.due_at, sending=sending):
        return None
    _post(engine, tx, held, ended)
    queue, priority = route(tx, held.run_id)
    following = held.attempt + 1
    return StepRow(
        held.run_id, held.op_id, held.name, following, ended.due_at, queue, priority, is_deferred=sending.is_deferred
    )


def _post(engine: Engine, tx: Connection, held: Claim | ClaimedAttempt, ended: events.AttemptEnded) -> None:
    run_log.post(tx, held.run_id, ended, engine.dispatch.plan(engine.store.now()))


def _untried(ended: events.StepRetrying) -> events.StepFailedEvent:
    """A failure that no other attempt follows, since its call was given up meanwhile."""
    known = {f.name: getattr(ended, f.name) for f in fields(ended) if f.name != "due_at"}
    return events.StepFailedEvent(**known)


def route(tx: Connection, run_id: str) -> tuple[str | None, int | None]:
    """The queue and the priority of a run's turns."""
    run = runs.find(tx, run_id)
    return (None, None) if run is None else (run.queue, run.priority)


def release(engine: Engine, held: Claim, *, has_begun: bool, delay: int = 0) -> None:
    """
    The process cannot go on: another one takes the attempt, after *delay*, and it does not count.

    An attempt that is interrupted again and again is lost at last: its own code may be what ends its process.
    """
    if has_begun and held.semantics == definitions.AT_MOST_ONCE:
        here = identify().place
        if not doubt.enter(engine, held, f"its process was stopped in the middle of it ({here})"):
            record(engine, held, events.StepFailedEvent(**_lost(engine, held, here, _dead(held))))
        return
    with engine.store.begin() as tx:
        interruptions = steps.interruptions(tx, held) + has_begun
        if interruptions < MOST_INTERRUPTIONS:
            due_at = engine.store.now() + delay
            sending = SendTimes(due_at, None)
            # One whose call was given up is not run again.
            if not steps.make_pending(
                tx, held, counted=False, not_before=due_at, sending=sending, interruptions=interruptions
            ):
                steps.end(tx, held)
            return
    give_up(engine, held_here(engine, held), _interrupted(held))


def give_up(engine: Engine, held: ClaimedAttempt, error: StepFailed | None = None) -> StepRow | None:
    """
    Nothing more is expected of an attempt: the next one, or failure when they are spent.

    One that is to run at most once is in doubt instead.

    Args:
        error: What it fails with; its process is gone when there is none.
    """
    lost = error or _dead(held)
    where = f"{held.host}:{held.pid}" if held.host else "a process that is gone"
    if held.semantics == definitions.AT_MOST_ONCE and doubt.enter(engine, held, f"{lost.message} (on {where})"):
        return None
    known = _lost(engine, held, where, lost)
    if held.semantics != definitions.AT_MOST_ONCE and _policy(held.name).may_retry(held.attempt):
        return record(engine, held, events.StepRetrying(due_at=known["at"], **known))
    return record(engine, held, events.StepFailedEvent(**known))


def fail_unsendable(engine: Engine, row: StepRow, error: Exception) -> None:
    """
    No message can ever be made for an attempt: its step fails with the reason, and its run hears of it.

    Never raises: what cannot be recorded now is tried again when the sweep sends the attempt.
    """
    try:
        with engine.store.begin() as tx:
            by, now = secrets.token_hex(16), engine.store.sql_now
            held = claims.claim(
                tx, row.run_id, row.op_id, row.attempt, by=by, worker_id=engine.process_id, message_id=None, now=now
            )
            if held is None:  # It is not due yet, or somebody else has it.
                return
            told = StepFailed(
                type(error).__name__,
                f"no message can be sent for {row.name}: {error}.  Correct its options or the Celery app's settings.",
                attempts=row.attempt,
            )
            write(engine, tx, held, events.StepFailedEvent(**_lost(engine, held, identify().place, told)))
    except SQLAlchemyError as trouble:
        log.warning("The failure of %s in run %s is recorded later (%s).", row.op_id, row.run_id, reason(trouble))
        return
    engine.dispatch.drive(row.run_id, row.queue, row.priority)


def is_held(engine: Engine, held: Claim) -> bool:
    """Whether the attempt is still this one's; waits for whoever is about to take it."""
    with engine.store.begin() as tx:
        return claims.is_held(tx, held)


def held_here(engine: Engine, held: Claim) -> ClaimedAttempt:
    """A claim of this process, as others see it."""
    here = identify()
    return ClaimedAttempt(
        held.run_id,
        held.op_id,
        held.name,
        held.attempt,
        held.claim,
        held.claimed_at,
        engine.process_id,
        here.host,
        here.boot_id,
        here.pid,
        here.pid_started,
        held.semantics,
    )


def _interrupted(held: Claim) -> StepFailed:
    return StepFailed(
        "WorkerLost",
        f"attempt {held.attempt} of {held.name} was interrupted {MOST_INTERRUPTIONS} times by the end of its process."
        "  Either its code ends the process (it raises WorkerShutdown, say), or its workers are stopped before it"
        " can finish",
        attempts=held.attempt,
    )


def _dead(held: Claim | ClaimedAttempt) -> StepFailed:
    return StepFailed(
        "WorkerLost",
        f"the process that ran attempt {held.attempt} of {held.name} died, or could not reach the database",
        attempts=held.attempt,
    )


def _lost(engine: Engine, held: Claim | ClaimedAttempt, where: str, error: StepFailed) -> dict[str, Any]:
    return {
        "at": engine.now(),
        "op_id": held.op_id,
        "attempt": held.attempt,
        "started_at": held.claimed_at,
        "worker": where,
        "error": codec.encode_error(error),
    }


def _policy(name: str) -> RetryPolicy:
    known = registry.steps.get(name)
    return RetryPolicy() if known is None else known.policy
