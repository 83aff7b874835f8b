"""
What becomes of an attempt: its outcome goes into the run's inbox, the next attempt follows, or it is given up.

Every write needs the attempt's claim.  An attempt that was given up meanwhile can record nothing, and an outcome that
is recorded already is not recorded again.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import events, failpoints, measures, registry
from ..engine import Engine, identify
from ..errors import StepFailed, StepTimeout
from ..registry import RetryPolicy, definitions
from ..sandbox import log_records
from ..store import (
    Claim,
    ClaimedAttempt,
    DriveRow,
    SendTimes,
    StepRow,
    claims,
    emit_items,
    end_operation,
    event_rows,
    in_doubt,
    limit_lines,
    limits,
    reason,
    run_log,
    runs,
    steps,
)
from ..turns import admit_after
from .attempt_end import AttemptEnd, without_retry
from .in_doubt import put_in_doubt

log = log_records.get("durable.steps")

#: How often the end of a process may interrupt one attempt.  The last interruption counts as a failure.
MOST_INTERRUPTIONS = 5


@dataclass(frozen=True)
class Recorded:
    """
    What came of recording an outcome.

    Attributes:
        is_current: Whether the attempt still had its claim; otherwise nothing was written.
        next_attempt: The attempt that follows, if there is one.
    """

    is_current: bool
    next_attempt: StepRow | None = None


def record(
    engine: Engine,
    held: Claim | ClaimedAttempt,
    ended: events.AttemptEnded,
    *,
    given_up: str | None = None,
    closes_streams: bool = False,
) -> StepRow | None:
    """
    Put an outcome into the run's inbox.  Return the next attempt, if there is one to be sent.

    Args:
        given_up: Why another process, or another thread of this one, ends the attempt.
        closes_streams: Whether a stream may end with the step.
    """
    event_rows.store_early(engine.store.vault, held.run_id, [ended])
    # Another process cannot know what the attempt has emitted.
    closes_streams = closes_streams or given_up is not None
    if isinstance(ended, events.StepRetrying) or held.semantics == definitions.AT_MOST_ONCE or closes_streams:
        with engine.store.begin() as tx:
            recorded = write(engine, tx, held, ended, closes_streams=closes_streams)
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
        return None
    if given_up is not None:
        engine.measures.count(measures.ATTEMPTS_GIVEN_UP, held.name, given_up)
    count(engine, held, ended, is_retried=recorded.next_attempt is not None)
    return recorded.next_attempt


def count(
    engine: Engine, held: Claim | ClaimedAttempt, ended: events.AttemptEnded, *, is_retried: bool = False
) -> None:
    """Count an attempt whose outcome is recorded."""
    outcome = "completed" if isinstance(ended, events.StepCompleted) else "retried" if is_retried else "failed"
    engine.measures.count(measures.ATTEMPTS, held.name, outcome)
    engine.measures.observe(measures.ATTEMPT_SECONDS, ended.at - held.claimed_at, held.name)


def write(
    engine: Engine,
    tx: Connection,
    held: Claim | ClaimedAttempt,
    ended: events.AttemptEnded,
    *,
    closes_streams: bool = False,
) -> Recorded:
    """Record an attempt's outcome in a transaction of the caller's; if it is the last, close the step's streams."""
    # A step that may be in doubt has its run blocked: lock the run first, then the step.
    run = runs.lock(tx, held.run_id) if held.semantics == definitions.AT_MOST_ONCE else None
    recorded = _write(engine, tx, held, ended)
    if closes_streams and recorded.is_current and recorded.next_attempt is None:
        emit_items.close_of_step(tx, held.run_id, held.op_id, engine.store.now())
    in_doubt.unblock_if_resolved(tx, run)
    return recorded


def _write(engine: Engine, tx: Connection, held: Claim | ClaimedAttempt, ended: events.AttemptEnded) -> Recorded:
    if isinstance(ended, events.StepRetrying):
        sending = _plan_retry(engine, tx, held, ended.due_at)
        if steps.make_pending(tx, held, counted=True, not_before=ended.due_at, sending=sending):
            run_log.post(tx, held.run_id, ended, engine.dispatch.plan(engine.store.now()))
            run = runs.find(tx, held.run_id)
            next_attempt = StepRow(
                held.run_id,
                held.op_id,
                held.name,
                held.attempt + 1,
                ended.due_at,
                None if run is None else run.queue,
                None if run is None else run.priority,
                is_deferred=sending.is_deferred or (run is not None and run.paused_at is not None),
                args=held.args if isinstance(held, Claim) else steps.arguments(tx, held.run_id, held.op_id),
                trace_context=None if run is None else run.trace_context,
            )
            return Recorded(True, next_attempt)
        # The attempt or its call was given up meanwhile.
        ended = without_retry(ended)
    return Recorded(end_operation.write(tx, held, ended, engine.dispatch.plan(engine.store.now())))


def _plan_retry(engine: Engine, tx: Connection, held: Claim | ClaimedAttempt, due_at: int) -> SendTimes:
    """Plan the message of the next attempt.  With limits, it gives its slots back, and waits for others."""
    step = registry.steps.get(held.name)
    if (step is None or step.limits) and limit_lines.wait_again(tx, held.run_id, held.op_id, due_at):
        return limits.NOT_SENT
    return engine.dispatch.plan_at(tx, engine.store.now(), due_at)


def release(engine: Engine, held: Claim, *, has_begun: bool, delay: int = 0) -> None:
    """
    Leave an attempt to another process, after *delay*: this process cannot go on with it.

    The attempt does not count, unless it was interrupted many times: its own code may be what ends the process.  An
    at-most-once attempt that has begun is put in doubt.
    """
    if has_begun and held.semantics == definitions.AT_MOST_ONCE:
        place = identify().place
        if not put_in_doubt(engine, held, f"its process was stopped in the middle of it ({place})"):
            record(engine, held, AttemptEnd.of(held, at=engine.now(), worker=place).failed(_worker_lost(held)))
        return
    with engine.store.begin() as tx:
        interruptions = steps.interruptions(tx, held) + has_begun
        if interruptions < MOST_INTERRUPTIONS:
            due_at = engine.store.now() + delay
            sending = SendTimes(due_at, None)
            # A step whose call was given up does not run again.
            if not steps.make_pending(
                tx, held, counted=False, not_before=due_at, sending=sending, interruptions=interruptions
            ):
                steps.end(tx, held)
            return
    error = StepFailed(
        "WorkerLost",
        f"attempt {held.attempt} of {held.name} was interrupted {MOST_INTERRUPTIONS} times by the end of its process."
        "  Either its code ends the process (it raises WorkerShutdown, say), or its workers are stopped before it"
        " can finish",
        attempts=held.attempt,
    )
    give_up_and_send(engine, held_by_this_process(engine, held), error)


def give_up_and_send(engine: Engine, held: ClaimedAttempt, error: StepFailed | None = None) -> None:
    """Give an attempt up, and send the next one, or a turn that takes in the failure.  See ``give_up``."""
    next_attempt = give_up(engine, held, error)
    failpoints.hit("sweep.given_up")
    if next_attempt is None:
        engine.send_turns(held.run_id)
    else:
        engine.dispatch.send_step(next_attempt)
    admit_after(engine, held)


def give_up(engine: Engine, held: ClaimedAttempt, error: StepFailed | None = None) -> StepRow | None:
    """
    Give an attempt up: record its failure.  Return the next attempt, if there is one to be sent.

    An at-most-once attempt is put in doubt instead.

    Args:
        error: What the attempt fails with.  By default, that its process is gone.
    """
    failure = error or _worker_lost(held)
    why = "timeout" if isinstance(failure, StepTimeout) else "process_lost"
    where = f"{held.host}:{held.pid}" if held.host else "a process that is gone"
    at_most_once = held.semantics == definitions.AT_MOST_ONCE
    if at_most_once and put_in_doubt(engine, held, f"{failure.message} (on {where})"):
        return None
    end = AttemptEnd.of(held, at=engine.now(), worker=where)
    step = registry.steps.get(held.name)
    policy = RetryPolicy() if step is None else step.policy
    if not at_most_once and policy.may_retry(held.attempt):
        return record(engine, held, end.retrying(failure, due_at=end.at), given_up=why)
    return record(engine, held, end.failed(failure), given_up=why)


def fail_unsendable(engine: Engine, row: StepRow, error: Exception) -> None:
    """
    Fail a step for which no message can be made: a wrong option, say.

    Never raises.  When the failure cannot be recorded now, the sweep sends the attempt again, and this follows again.
    """
    try:
        with engine.store.begin() as tx:
            by, now = secrets.token_hex(16), engine.store.sql_now
            held = claims.claim(
                tx, row.run_id, row.op_id, row.attempt, by=by, worker_id=engine.process_id, message_id=None, now=now
            )
            if held is None:  # It is not due yet, or another process has it.
                return
            failure = StepFailed(
                type(error).__name__,
                f"no message can be sent for {row.name}: {error}.  Correct its options or the Celery app's settings.",
                attempts=row.attempt,
            )
            ended = AttemptEnd.of(held, at=engine.now(), worker=identify().place).failed(failure)
            write(engine, tx, held, ended)
    except SQLAlchemyError as trouble:
        log.warning("The failure of %s in run %s is recorded later (%s).", row.op_id, row.run_id, reason(trouble))
        return
    count(engine, held, ended)
    engine.send_turns(DriveRow(row.run_id, row.queue, row.priority, trace_context=row.trace_context))


def is_held(engine: Engine, held: Claim) -> bool:
    """Return whether the attempt still has its claim.  Waits for a transaction that is about to take it."""
    with engine.store.begin() as tx:
        return claims.is_held(tx, held)


def held_by_this_process(engine: Engine, held: Claim) -> ClaimedAttempt:
    """Return a claim of this process as other processes read it."""
    identity = identify()
    return ClaimedAttempt(
        held.run_id,
        held.op_id,
        held.name,
        held.attempt,
        held.claim,
        held.claimed_at,
        engine.process_id,
        identity.host,
        identity.boot_id,
        identity.pid,
        identity.pid_started,
        held.semantics,
    )


def _worker_lost(held: Claim | ClaimedAttempt) -> StepFailed:
    return StepFailed(
        "WorkerLost",
        f"the process that ran attempt {held.attempt} of {held.name} died, or could not reach the database",
        attempts=held.attempt,
    )
