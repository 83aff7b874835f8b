"""Finishes a turn: commits it, with the claim of the step that this process runs next, keeps its replay, and sends."""

from __future__ import annotations

import time
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from .. import events, failpoints, measures, registry
from ..broker import BATCH_SIZE
from ..client import route_again, run_limits
from ..engine import Checkout, Engine, KnownWait
from ..sandbox import log_records
from ..store import StepRow, WaitRow, reason, steps
from .admission import admit, admit_after_all
from .commit import commit
from .continuation import Continuation
from .decision import CommitResult, Decision
from .emit_spans import emit_spans
from .view import View

log = log_records.get("durable.drive")


def commit_with_next(engine: Engine, decision: Decision, continuation: Continuation | None) -> CommitResult:
    """
    Write a decision, with the claim of the step that this process runs next, if it goes on with the run.

    Raises:
        Overtaken: Another turn or a new inbox item came first.  Nothing is written.
    """
    begins = None if continuation is None else continuation.choose(decision)
    if continuation is None or begins is None:
        return commit(engine, decision)
    # Before the commit, which may fail and still be applied: housekeeping gives up what is claimed and not running.
    engine.running.add(begins.claim)
    try:
        result = commit(engine, decision, begins)
    except BaseException:
        engine.running.discard(begins.claim)
        raise
    continuation.next = begins
    return result


def end_turn(
    engine: Engine,
    continuation: Continuation | None,
    checkout: Checkout,
    view: View,
    decision: Decision,
    result: CommitResult,
    began: int,
) -> None:
    """
    Do what follows the commit of a turn that began then, by the monotonic clock in nanoseconds; but for its report.

    The turn is committed, so an error in sending is logged and not raised.  The sweep sends what was not sent.
    """
    measure(engine, decision, began)
    _keep_replay(checkout, decision, result)
    failpoints.hit("turn.committed")
    try:
        send(engine, view.run.id, result)
    except SQLAlchemyError as error:
        log.warning("Run %s: the sweep sends what a turn has asked for (%s).", view.run.id, reason(error))
    except Exception:
        log.exception("Run %s: what follows a committed turn failed; the sweep sends its messages.", view.run.id)
    emit_spans(engine, view, checkout, decision, result, continuation)


def measure(engine: Engine, decision: Decision, began: int) -> None:
    """Record how long a turn took that began then, by the monotonic clock in nanoseconds."""
    micros = (time.monotonic_ns() - began) // 1000
    engine.measures.observe(measures.TURN_SECONDS, micros, decision.run.name)


def _keep_replay(checkout: Checkout, decision: Decision, result: CommitResult) -> None:
    """Keep the replay for the next turn, if the run goes on."""
    if result.run is not None:
        checkout.keep(result.run, decision.events[-1] if decision.events else None)


def send(engine: Engine, run_id: str, result: CommitResult) -> None:
    """Send what a turn of this run has committed.  The sweep finds what cannot be sent now."""
    for holder, request_id in result.answered:
        engine.notify(holder, request_id)
    if result.awaited is not None:
        engine.notifier.notify_subscribers(result.awaited)
    _send_steps(engine, result.steps)
    admit(engine, result.limit_keys)
    if result.withdrawn_from is not None and registry.limits:
        admit_after_all(engine, result.withdrawn_from)
    run_limits.admit(engine, result.run_limit_keys)
    if result.left is not None:
        run_limits.admit_after(engine, result.left)
    _note_waits(engine, run_id, result)
    if result.waits:
        _send_waits(engine, result.waits)
    engine.send_turns(*result.to_drive)
    if result.opened:
        route_again.hooks_opened(engine, result.opened)


def _send_steps(engine: Engine, rows: list[StepRow]) -> None:
    """Send a turn's steps.  When that takes long, move their times on: the sweep must not take the last for lost."""
    resend_after = engine.settings.resend_after
    counts_from = engine.now()
    for first in range(0, len(rows), BATCH_SIZE):
        engine.dispatch.send_steps(rows[first : first + BATCH_SIZE])
        if (now := engine.now()) - counts_from > resend_after // 2:
            counts_from = now
            engine.store.write(partial(steps.refresh_send_times, run_id=rows[0].run_id, now=now, delay=resend_after))


def _note_waits(engine: Engine, run_id: str, result: CommitResult) -> None:
    """
    Note the waits of a run whose replay this process keeps, unless others may have to come before it.

    Those that are over are not known any more.
    """
    for event in result.log:
        if isinstance(event, events.WaitCompleted | events.WaitCancelled):
            engine.known_waits.take(run_id, event.op_id)
    if not result.waits or result.run is None or result.run.priority is not None or not engine.settings.continuation:
        return
    until = engine.now() + engine.settings.eta_horizon
    for row in result.waits:
        if row.due_at <= until:
            engine.known_waits.note(KnownWait(row.due_at, row.run_id, row.op_id))


def _send_waits(engine: Engine, rows: list[WaitRow]) -> None:
    """Send the messages of sleeps and timeouts.  What may not wait in a worker is sent when it is due."""
    to_send = [row for row in rows if not row.is_deferred]
    unsent = [*to_send[engine.dispatch.send_wakes(to_send) :], *(row for row in rows if row.is_deferred)]
    if engine.on_due is not None:
        for row in unsent:
            engine.on_due(row.due_at)
