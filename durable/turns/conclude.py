"""
Records the outcome of an attempt, or the end of a wait, in the turn that it asks for: one transaction instead of two.

Where the run waits for nothing else, such a turn reads nothing: this process has the run's replay.  Its fence fails
when another turn was taken, or when the run's inbox has an item.  Where other steps are under way, the process takes
the lease of the run's turns, and the turn also takes in what other processes have recorded.
"""

from __future__ import annotations

import time
from dataclasses import replace

from .. import events, failpoints, measures, registry
from ..engine import Checkout, Engine, KnownWait
from ..registry import definitions
from ..sandbox import log_records
from ..store import Claim, DueWait, InboxItem, RunStatus
from .continuation import Continuation
from .decide import decide
from .decision import CommitResult, Decision
from .finish import commit_with_next, end_turn
from .report import report
from .turn_lease import MANY, TurnLease
from .view import NO_ROW, View, complete

log = log_records.get("durable.drive")


def conclude(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Take the turn that an attempt's outcome asks for, and record that outcome in it.

    Return False when nothing was written.  Then the outcome has to go into the inbox, and an ordinary turn follows.
    """
    with engine.replays.checked_out(held.run_id) as checkout:
        decision = _conclude(engine, continuation, checkout, held, ended)
    if decision is not None:
        report(engine, decision)
    return decision is not None


def _conclude(
    engine: Engine, continuation: Continuation, checkout: Checkout, held: Claim, ended: events.AttemptEnded
) -> Decision | None:
    kept = checkout.kept
    if kept is None or not may_conclude(held, ended) or not continuation.takes_turn(kept.run):
        checkout.give_back()
        return None
    if not kept.replay.waits_only_for(held.op_id):
        return _conclude_beside_others(engine, continuation, checkout, held, ended)
    view = view_of_outcome(continuation, checkout, held, ended)
    return None if view is None else _take_turn(engine, continuation, checkout, view)


def view_of_outcome(
    continuation: Continuation, checkout: Checkout, held: Claim, ended: events.AttemptEnded
) -> View | None:
    """Return what the turn has read that records an outcome; None, and the replay is given back, where it can't be."""
    kept = checkout.kept
    is_alone = kept is not None and kept.replay.waits_only_for(held.op_id)
    if kept is None or not is_alone or kept.run.turn != held.run_turn or not continuation.takes_turn(kept.run):
        checkout.give_back()
        return None
    return View.unread(kept.run, ended, held)


def may_conclude(held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Return whether an outcome may be recorded in the turn that it asks for.

    Not the outcome of a step's last attempt, or of a later one: a turn that kills its process would lose it, and the
    step would pay for what is the workflow's fault.
    """
    is_end = ended.phase == "ended" and held.semantics != definitions.AT_MOST_ONCE
    return is_end and held.attempt == 1 and registry.steps[held.name].policy.may_retry(held.attempt)


def _conclude_beside_others(
    engine: Engine, continuation: Continuation, checkout: Checkout, held: Claim, ended: events.AttemptEnded
) -> Decision | None:
    """Take the turn of an outcome while other steps of its run are under way; None when nothing is written."""
    lease = TurnLease(engine, held.run_id)
    decision: Decision | None = None
    try:
        view = None if lease.is_kept else _read_under(lease, checkout, held, ended)
        if view is None:
            checkout.give_back()
        else:
            decision = _take_turn(engine, continuation, checkout, view, lease)
    finally:
        if decision is not None and decision.releases is None:
            lease.keep()
        else:
            # Where nothing is written, the caller's own turn follows.
            lease.release(wakes=decision is not None, is_over=decision is not None)
    return decision


def _read_under(lease: TurnLease, checkout: Checkout, held: Claim, ended: events.AttemptEnded) -> View | None:
    """Take the lease, and read the turn; None when it is taken, or more is to be looked at."""
    try:
        with lease.taken_to_read() as found:
            if found is None:
                return None
            tx, run, inbox = found
            view = View(run, [*inbox, InboxItem(NO_ROW, ended)], ends=held)
            return complete(tx, view, checkout) if _is_ordinary(view) else None
    except Exception as error:
        log.debug("Run %s: an outcome goes through the inbox (%s).", held.run_id, error)
        return None


def _is_ordinary(view: View) -> bool:
    """
    Return whether the turn only goes on with a run.

    No crash is to be counted, no code of it may be missing, and it is not paused.
    """
    is_quiet = view.run.turn_tried is None and not view.was_resent and view.run.paused_at is None
    return is_quiet and view.cancel is None and view.run.status == RunStatus.RUNNING


def conclude_wait(engine: Engine, continuation: Continuation, wait: KnownWait) -> bool:
    """
    Take the turn that the end of a wait asks for, and record that end in it.

    Return False when nothing was written: the wait is over, or not due yet, or other outcomes may be on their way.
    """
    with engine.replays.checked_out(wait.run_id) as checkout:
        view = view_of_end(engine, continuation, checkout, wait)
        decision = None if view is None else _take_turn(engine, continuation, checkout, view)
    if view is None or decision is None:
        return False
    note_end(engine, view, wait)
    report(engine, decision)
    return True


def view_of_end(engine: Engine, continuation: Continuation, checkout: Checkout, wait: KnownWait) -> View | None:
    """Return what the turn has read that ends a wait; None, and the replay is given back, where it can't be taken."""
    over = events.WaitCompleted(at=engine.now(), op_id=wait.op_id)
    kept = checkout.kept
    is_alone = kept is not None and kept.replay.waits_only_for(wait.op_id)
    if kept is None or not is_alone or over.at < wait.due_at or not continuation.takes_turn(kept.run):
        checkout.give_back()
        return None
    return View.unread(kept.run, over, DueWait(wait.run_id, wait.op_id))


def note_end(engine: Engine, view: View, wait: KnownWait) -> None:
    """Note that this process has ended a wait, in the turn that has read *view*."""
    engine.known_waits.note_end(wait)
    engine.measures.observe(measures.TIMER_LATE_SECONDS, view.inbox[-1].event.at - wait.due_at)


def _take_turn(
    engine: Engine, continuation: Continuation, checkout: Checkout, view: View, lease: TurnLease | None = None
) -> Decision | None:
    """
    Take the turn that ends what its view says.  Return what it has written; None for nothing.

    Args:
        lease: Its commit releases the lease, unless more outcomes come soon, and the workflow waits for all of them.
    """
    began = time.monotonic_ns()
    try:
        decision = decide(engine, view, registry.workflows.get(view.run.name), checkout)
        if decision is None or decision.fault is not None:
            return None
        comes_more = continuation.in_batches and not decision.commands and checkout.pending_count > MANY
        if lease is not None and not comes_more:
            decision = replace(decision, releases=lease.holder)
        result = write_turn(engine, continuation, decision)
    except Exception as error:
        # Whatever is wrong with the turn, the outcome is recorded.  The ordinary turn reports the error.
        log.debug("Run %s: an outcome goes through the inbox (%s).", view.run.id, error)
        return None
    end_turn(engine, continuation, checkout, view, decision, result, began)
    return decision


def write_turn(engine: Engine, continuation: Continuation, decision: Decision) -> CommitResult:
    """
    Commit a turn, and note that it was taken.

    Raises:
        Overtaken: Another turn or a new inbox item came first.  Nothing is written.
    """
    failpoints.hit("turn.read")
    result = commit_with_next(engine, decision, continuation)
    continuation.has_turned = True
    return result
