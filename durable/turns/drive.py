"""
One turn of a run: read, replay, write, send.

Workers run ``durable.drive`` when a run has something new in its inbox.  Two turns of one run at once are harmless:
one of them fails its fence and starts again.  A turn with nothing new takes one query.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import Enum
from functools import partial

from sqlalchemy.exc import StatementError

from .. import events, failpoints, measures, registry
from ..broker import BATCH_SIZE
from ..client import route_again, run_limits
from ..engine import Checkout, Engine, Kept
from ..errors import DecryptionError, WorkflowCodeError
from ..registry import definitions
from ..sandbox import log_records
from ..store import Claim, InboxItem, Run, RunStatus, StepRow, WaitRow, steps
from .admission import admit, admit_after_all
from .commit import commit, current_code_version
from .continuation import Continuation
from .decide import decide
from .decision import CommitResult, Decision, Overtaken
from .emit_spans import emit_spans
from .forward import forward_turn
from .poison import Deferred, count_refusal, decide_counted
from .report import report
from .turn_lease import MANY, TurnLease, is_contended
from .view import View, read

#: How many turns a drive takes or tries before it leaves the run to the next one.
TRIES = 20

log = log_records.get("durable.drive")


def drive(
    engine: Engine,
    run_id: str,
    *,
    continuation: Continuation | None = None,
    redelivered: bool = False,
    hops: int = 0,
    in_batches: bool = False,
    resumes: bool = False,
) -> None:
    """
    Take turns of a run until its inbox is empty.

    Return earlier when another drive has the lease of the run's turns, or when this process cannot take a turn of the
    run.  Then the inbox stays as it is: the holder of the lease takes it in, the turn is sent on to a worker that knows
    the workflow, or the sweep sends it again.

    Args:
        continuation: May go on with the step that the last turn asks for.
        redelivered: Whether the broker has delivered the turn's message before.
        hops: How often the turn's message was sent on by workers that do not know the workflow.
        in_batches: While many steps run, leave the outcomes that come meanwhile to a later turn.
        resumes: This is the later turn: take in what a drive of this process has left.
    """
    engine.check_schema()
    lease = TurnLease.resume(engine, run_id) if resumes else TurnLease(engine, run_id)
    if lease.is_kept:
        return
    rest = Rest.STAYS
    try:
        try:
            rest = _take_turns(engine, run_id, lease, continuation, redelivered=redelivered, in_batches=in_batches)
        finally:
            if rest is Rest.COMES:
                lease.keep()
            else:
                lease.release(wakes=rest is Rest.TAKEN)
        # A message for another process comes after the release: that process would find the lease taken.
        if rest is Rest.LEFT:
            engine.wake(run_id)
    except UnknownWorkflow as unknown:
        forward_turn(engine, unknown.run, hops)


class Rest(Enum):
    """What is to become of the items that are in the inbox after a drive."""

    TAKEN = "none is there, but what has come meanwhile"
    COMES = "more come soon: many steps run, and the workflow waits for all of them"
    LEFT = "some may be there: after so many turns, other runs come first"
    STAYS = "they stay: this process cannot take them in"


def _take_turns(
    engine: Engine,
    run_id: str,
    lease: TurnLease,
    continuation: Continuation | None,
    *,
    redelivered: bool,
    in_batches: bool,
) -> Rest:
    """Take turns of a run, as ``drive`` does.  Raises UnknownWorkflow."""
    has_turned = False
    for _ in range(TRIES):
        try:
            decision = turn(engine, run_id, lease, continuation=continuation, redelivered=redelivered)
        except Overtaken as overtaken:
            engine.measures.count(measures.TURNS_OVERTAKEN)
            log.debug("Run %s: %s; the turn starts again.", run_id, overtaken)
            continue
        except DecryptionError as unreadable:
            log.error("Run %s is left for a worker that can read it: %s", run_id, unreadable)
            return Rest.STAYS
        except Deferred as deferred:
            log.warning("Left for later: %s.", deferred)
            return Rest.STAYS
        if decision is None:
            if not has_turned:
                engine.run_handlers.call_again(engine.store, registry.Run(run_id, engine))
            return Rest.TAKEN
        if continuation is not None and continuation.next is not None:
            return Rest.TAKEN
        if in_batches and not decision.commands and engine.replays.out(run_id) > MANY:
            return Rest.COMES
        has_turned, redelivered = True, False
    if has_turned:
        return Rest.LEFT
    log.warning("Run %s was overtaken %d times in a row; the sweep sends its next turn.", run_id, TRIES)
    return Rest.STAYS


class UnknownWorkflow(Exception):
    """Raised when this process does not know the workflow of a run."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.name)
        self.run = run


def turn(
    engine: Engine,
    run_id: str,
    lease: TurnLease,
    *,
    continuation: Continuation | None = None,
    redelivered: bool = False,
) -> Decision | None:
    """Take one turn of a run, and return what it has decided; None when there is nothing to do, or nothing more."""
    began = time.monotonic_ns()
    with engine.replays.checked_out(run_id) as checkout:
        with engine.store.read() as tx:
            view = read(tx, run_id, engine.now(), checkout, holder=lease.holder)
        if view is None or (view.cancel is None and _waits_for_other_code(engine, view.run)):
            checkout.give_back()
            return None
        if (lease.holder or is_contended(view, checkout)) and not lease.take():
            checkout.give_back()
            return None

        # No transaction is open while the workflow's code runs.
        workflow = registry.workflows.get(view.run.name)
        if workflow is not None and workflow.limits and view.is_first:
            checked = _check_limits(engine, view, workflow)
            if checked is None:
                checkout.give_back()
                return None
            view = checked
        decision = decide_counted(engine, view, workflow, checkout, redelivered=redelivered)
        if decision is None:
            raise UnknownWorkflow(view.run)

        failpoints.hit("turn.read")
        try:
            result = _commit(engine, decision, continuation)
        except (StatementError, ValueError, TypeError) as error:
            decision = count_refusal(engine, decision, error)
            result = commit(engine, decision)
        _measure(engine, decision, began)
        _keep_replay(checkout, decision, result)
        failpoints.hit("turn.committed")
        send(engine, result)
        emit_spans(engine, view, checkout, decision, result, continuation)
    report(engine, decision)
    # A turn that blocks its run leaves the inbox as it is; the next one cancels the run, if a cancel came.
    return decision if decision.fault is None or view.cancel is not None else None


def _check_limits(engine: Engine, view: View, workflow: registry.Workflow[..., object]) -> View | None:
    """Return None when the run waits for a limit, and its first turn comes later; a fault for a key that is none."""
    created = view.inbox[0].event
    assert isinstance(created, events.RunCreated), f"the log of {view.run.id} begins with {created.kind}"
    try:
        return view if run_limits.may_begin(engine, view.run, workflow, created, view.requests) else None
    except WorkflowCodeError as mistake:
        return replace(view, fault=mistake)


def _waits_for_other_code(engine: Engine, run: Run) -> bool:
    """Return whether a run is blocked, and not to be tried by the code of this process."""
    if run.status != RunStatus.BLOCKED or run.blocked_version != current_code_version(engine, run):
        return False
    # A retry leaves no version.  A mistake may be corrected by what is no code of the workflow's: a setting, a package.
    return run.blocked_version is not None and not (run.mistake_at and run.mistake_at < engine.loaded_at())


def conclude(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Take the turn that an attempt's outcome asks for, and record that outcome in it: one transaction instead of two.

    Return False when nothing was written.  Then the outcome has to go into the inbox, and an ordinary turn follows.
    """
    began = time.monotonic_ns()
    with engine.replays.checked_out(held.run_id) as checkout:
        kept = checkout.kept
        if kept is None or kept.run.turn != held.run_turn or not _may_conclude(continuation, kept, held, ended):
            checkout.give_back()
            return False
        try:
            view = View(kept.run, [InboxItem(0, ended)], ends=held)
            decision = decide(engine, view, kept.replay.workflow, checkout)
            if decision is None or decision.fault is not None:
                return False
            failpoints.hit("turn.read")
            result = _commit(engine, decision, continuation)
        except Exception as error:
            # Whatever is wrong with the turn, the outcome is recorded.  The ordinary turn reports the error.
            log.debug("Run %s: an outcome goes through the inbox (%s).", held.run_id, error)
            return False
        _measure(engine, decision, began)
        _keep_replay(checkout, decision, result)
        emit_spans(engine, view, checkout, decision, result, continuation)
    continuation.has_turned = True
    failpoints.hit("turn.committed")
    send(engine, result)
    report(engine, decision)
    return True


def _may_conclude(continuation: Continuation, kept: Kept, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Return whether an outcome may be recorded in the turn that it asks for.

    Not the outcome of a step's last attempt, or of a later one: a turn that kills its process would lose it, and the
    step would pay for what is the workflow's fault.  Nor while other steps run beside this one: the turns of their
    outcomes would overtake each other.
    """
    is_end = ended.phase == "ended" and held.semantics != definitions.AT_MOST_ONCE
    may_repeat = held.attempt == 1 and registry.steps[held.name].policy.may_retry(held.attempt)
    is_alone = kept.replay.waits_only_for(held.op_id) and continuation.leads_to_turn(kept.run.queue)
    return is_end and may_repeat and is_alone


def _commit(engine: Engine, decision: Decision, continuation: Continuation | None) -> CommitResult:
    """Write a decision, with the claim of the step that this process runs next, if it goes on with the run."""
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


def _measure(engine: Engine, decision: Decision, began: int) -> None:
    """Record how long a turn took that began then, by the monotonic clock in nanoseconds."""
    micros = (time.monotonic_ns() - began) // 1000
    engine.measures.observe(measures.TURN_SECONDS, micros, decision.run.name)


def _keep_replay(checkout: Checkout, decision: Decision, result: CommitResult) -> None:
    """Keep the replay for the next turn, if the run goes on."""
    if result.run is not None:
        checkout.keep(result.run, decision.events[-1] if decision.events else None)


# After the commit


def send(engine: Engine, result: CommitResult) -> None:
    """Send what a turn has committed.  The sweep finds what cannot be sent now."""
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
    _send_waits(engine, result.waits)
    engine.wake(*result.to_wake)
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


def _send_waits(engine: Engine, rows: list[WaitRow]) -> None:
    """Send the messages of sleeps and timeouts.  What may not wait in a worker is sent when it is due."""
    to_send = [row for row in rows if not row.is_deferred]
    unsent = [*to_send[engine.dispatch.send_wakes(to_send) :], *(row for row in rows if row.is_deferred)]
    if engine.on_due is not None:
        for row in unsent:
            engine.on_due(row.due_at)
