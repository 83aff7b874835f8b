"""
Records the outcome of an attempt, or the end of a wait, in the turn that it asks for: one transaction instead of two.

This process has the run's replay, so such a turn reads nothing.  Its fence fails when another turn was taken, or when
the run's inbox has an item.
"""

from __future__ import annotations

import time

from .. import events, failpoints, measures, registry
from ..engine import Checkout, Engine, Kept, KnownWait
from ..registry import definitions
from ..sandbox import log_records
from ..store import Claim, DueWait, InboxItem
from .continuation import Continuation
from .decide import decide
from .emit_spans import emit_spans
from .finish import commit_with_next, keep_replay, measure, send
from .report import report
from .view import View

log = log_records.get("durable.drive")


def conclude(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Take the turn that an attempt's outcome asks for, and record that outcome in it.

    Return False when nothing was written.  Then the outcome has to go into the inbox, and an ordinary turn follows.
    """
    with engine.replays.checked_out(held.run_id) as checkout:
        kept = checkout.kept
        if kept is None or kept.run.turn != held.run_turn or not _may_conclude(continuation, kept, held, ended):
            checkout.give_back()
            return False
        return _take_turn(engine, continuation, checkout, kept, ended, held)


def _may_conclude(continuation: Continuation, kept: Kept, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Return whether an outcome may be recorded in the turn that it asks for.

    Not the outcome of a step's last attempt, or of a later one: a turn that kills its process would lose it, and the
    step would pay for what is the workflow's fault.  Nor while other steps run beside this one: the turns of their
    outcomes would overtake each other.
    """
    is_end = ended.phase == "ended" and held.semantics != definitions.AT_MOST_ONCE
    may_repeat = held.attempt == 1 and registry.steps[held.name].policy.may_retry(held.attempt)
    return is_end and may_repeat and _is_alone(continuation, kept, held.op_id)


def conclude_wait(engine: Engine, continuation: Continuation, wait: KnownWait) -> bool:
    """
    Take the turn that the end of a wait asks for, and record that end in it.

    Return False when nothing was written: the wait is over, or not due yet, or other outcomes may be on their way.
    """
    over = events.WaitCompleted(at=engine.now(), op_id=wait.op_id)
    with engine.replays.checked_out(wait.run_id) as checkout:
        kept = checkout.kept
        if kept is None or over.at < wait.due_at or not _is_alone(continuation, kept, wait.op_id):
            checkout.give_back()
            return False
        if not _take_turn(engine, continuation, checkout, kept, over, DueWait(wait.run_id, wait.op_id)):
            return False
    engine.measures.observe(measures.TIMER_LATE_SECONDS, over.at - wait.due_at)
    return True


def _is_alone(continuation: Continuation, kept: Kept, op_id: str) -> bool:
    """Return whether no other outcome may be on its way, and the turn would come to this process's queue."""
    return kept.replay.waits_only_for(op_id) and continuation.leads_to_turn(kept.run.queue)


def _take_turn(
    engine: Engine,
    continuation: Continuation,
    checkout: Checkout,
    kept: Kept,
    ended: events.Event,
    ends: Claim | DueWait,
) -> bool:
    """Take the turn whose only news is *ended*, and record the end of what it *ends*.  Return whether it is written."""
    began = time.monotonic_ns()
    try:
        view = View(kept.run, [InboxItem(0, ended)], ends=ends)
        decision = decide(engine, view, kept.replay.workflow, checkout)
        if decision is None or decision.fault is not None:
            return False
        failpoints.hit("turn.read")
        result = commit_with_next(engine, decision, continuation)
    except Exception as error:
        # Whatever is wrong with the turn, the outcome is recorded.  The ordinary turn reports the error.
        log.debug("Run %s: an outcome goes through the inbox (%s).", kept.run.id, error)
        return False
    measure(engine, decision, began)
    keep_replay(checkout, decision, result)
    emit_spans(engine, view, checkout, decision, result, continuation)
    continuation.has_turned = True
    failpoints.hit("turn.committed")
    send(engine, result)
    report(engine, decision)
    return True
