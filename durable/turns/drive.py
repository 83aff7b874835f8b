"""
One turn: read, think, write, dispatch.

``durable.drive`` is sent whenever a run has news.  Two turns at once are
harmless: one of them fails its fence and thinks again.  A turn with nothing
new costs one query.
"""

from __future__ import annotations

from functools import partial

from .. import events, failpoints, registry
from ..broker import TOGETHER
from ..engine import BATCH_DELAY_SECS, MANY, Checkout, Engine, Kept, identify
from ..errors import DecryptionError
from ..registry import definitions
from ..sandbox import log_records
from ..store import Claim, InboxItem, StepRow, WaitRow, run_log, steps
from .commit import advanced, commit, current_code_version
from .continuation import Continuation
from .decide import decide
from .decision import CommitResult, Decision, Overtaken
from .poison import Deferred, decide_counted
from .view import View, read

#: How often a turn that was overtaken thinks again before it leaves the run to the next drive.
TRIES = 20

log = log_records.get("durable.drive")


def drive(engine: Engine, run_id: str, *, continuation: Continuation | None = None, redelivered: bool = False) -> None:
    """
    Bring a run up to date with its inbox.

    Returns when there is nothing new, or when this process cannot drive the run: the news stay where
    they are, and the sweep sends the drive again.  While many outcomes are out, what is new by then is left to
    whoever recorded it.

    Args:
        journey: May take the step that the last turn asks for.
        redelivered: The broker has delivered the message that asks for it before.
    """
    engine.check_schema()
    for _ in range(TRIES):
        try:
            if not turn(engine, run_id, continuation=continuation, redelivered=redelivered):
                return
            if continuation is not None and (continuation.next is not None or engine.replays.out(run_id) > MANY):
                return
            redelivered = False
        except Overtaken as overtaken:
            log.debug("Run %s: %s.", run_id, overtaken)
        except DecryptionError as unreadable:
            log.error("Run %s is left for a worker that can read it: %s", run_id, unreadable)
            return
        except Deferred as left:
            log.warning("Left for later: %s.", left)
            return
    log.warning("Run %s was overtaken %d times in a row; the sweep drives it again.", run_id, TRIES)


def turn(engine: Engine, run_id: str, *, continuation: Continuation | None = None, redelivered: bool = False) -> bool:
    """One turn; whether there may be more to do."""
    with engine.replays.checked_out(run_id) as checkout:
        with engine.store.read() as tx:
            view = read(tx, run_id, engine.now(), checkout)
        if view is None or _waits_for_other_code(engine, view):
            checkout.give_back()
            return False
        return _turn(engine, view, checkout, continuation, redelivered)


def _turn(engine: Engine, view: View, checkout: Checkout, continuation: Continuation | None, redelivered: bool) -> bool:
    run = view.run
    decision = decide_counted(engine, view, registry.workflows.get(run.name), checkout, redelivered=redelivered)
    if decision is None:
        log.warning(
            "Run %s: this worker knows no workflow %r; left for one that does.  Is its module among the"
            " Celery app's include or imports?",
            run.id,
            run.name,
        )
        return False
    failpoints.hit("turn.read")
    after = _commit(engine, decision, continuation)
    if decision.fault is not None:
        log.error("Run %s is blocked.  %s", run.id, decision.fault)
        # A blocked run is cancelled at once, if that is what came.
        return view.cancel is not None
    _keep(checkout, decision)
    failpoints.hit("turn.committed")
    send(engine, after)
    return True


def take_in(
    engine: Engine, run_id: str, *, continuation: Continuation | None = None, redelivered: bool = False
) -> None:
    """The turn that an outcome asks for which was just recorded; with other outcomes, where many are out."""
    if gathers(engine, run_id):
        return
    drive(engine, run_id, continuation=continuation, redelivered=redelivered)
    engine.fan_in.looked(run_id)


def gathers(engine: Engine, run_id: str) -> bool:
    """Whether an outcome that was just recorded waits for others, to be taken in together with them."""
    out = engine.replays.out(run_id)
    if engine.fan_in.waits(run_id, out):
        return True
    if out < MANY or not _is_anothers(engine, run_id):
        return False
    engine.fan_in.postpone(run_id)
    return True


def _is_anothers(engine: Engine, run_id: str) -> bool:
    """Whether another process takes the run's news in: it has the oldest of them, since a moment ago."""
    with engine.store.read() as tx:
        oldest = run_log.oldest_inbox_item(tx, run_id)
    if not isinstance(oldest, events.AttemptEnded) or oldest.worker == identify().place:
        return False
    return engine.now() - oldest.at < 2 * BATCH_DELAY_SECS * 1_000_000


def conclude(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    The turn that an attempt's outcome asks for, which records that outcome itself: one transaction instead of two.

    False when nothing was written: the outcome goes into the inbox then, and an ordinary turn follows.
    """
    with engine.replays.checked_out(held.run_id) as checkout:
        kept = checkout.kept
        if kept is None or kept.run.turn != held.run_turn or not _may_conclude(continuation, kept, held, ended):
            checkout.give_back()
            return False
        try:
            decision = decide(engine, View(kept.run, [InboxItem(0, ended)]), kept.replay.workflow, checkout)
            if decision is None or decision.fault is not None:
                return False
            decision.drained, decision.ends = (), held
            failpoints.hit("turn.read")
            after = _commit(engine, decision, continuation)
        except Exception as error:
            # Whatever is wrong with the turn, the outcome is recorded; the ordinary turn tells of it.
            log.debug("Run %s: an outcome goes through the inbox (%s).", held.run_id, error)
            return False
        _keep(checkout, decision)
    continuation.has_turned = True
    failpoints.hit("turn.committed")
    send(engine, after)
    return True


def _may_conclude(continuation: Continuation, kept: Kept, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Whether an outcome may wait for the turn that records it.

    Not that of a step's last attempt, or of one that follows another: a turn that kills its process would take the
    outcome with it, and cost the step what is the workflow's fault.  Nor where other steps run beside this one:
    their turns would only be in each other's way.
    """
    is_end = ended.phase == "ended" and held.semantics != definitions.AT_MOST_ONCE
    may_repeat = held.attempt == 1 and registry.steps[held.name].policy.may_retry(held.attempt)
    alone = kept.replay.waits_only_for(held.op_id) and continuation.leads_to_turn(kept.run.queue)
    return is_end and may_repeat and alone


def _commit(engine: Engine, decision: Decision, continuation: Continuation | None) -> CommitResult:
    """Write a decision; of a journey that goes on, with the claim for what is run next."""
    here = continuation.choose(decision) if continuation is not None and decision.fault is None else None
    if here is None:
        return commit(engine, decision)
    decision.continues = here
    # At once: whether it was committed may not be known, and what is claimed here and not run is given up.
    engine.running.add(here.claim)
    try:
        after = commit(engine, decision)
    except BaseException:
        engine.running.discard(here.claim)
        raise
    assert continuation is not None
    continuation.next = here
    return after


def _keep(checkout: Checkout, decision: Decision) -> None:
    """The replay, for the next turn of a run that goes on."""
    if decision.outcome is None and not decision.run.ended:
        checkout.keep(advanced(decision), decision.events[-1] if decision.events else None)


def send(engine: Engine, after: CommitResult) -> None:
    """Dispatch what a turn has committed.  What does not go out now, the sweep finds."""
    for holder, request_id in after.hints:
        engine.hint(holder, request_id)
    if after.ended is not None:
        engine.notifier.tell(after.ended)
    _send_steps(engine, after.steps)
    _set_waits(engine, after.waits)
    engine.wake(*after.drives)


def _send_steps(engine: Engine, rows: list[StepRow]) -> None:
    """Send a turn's steps.  If that takes long their time counts anew, or the last would seem lost before they go."""
    patience = engine.settings.resend_after
    counts_from = engine.now()
    for first in range(0, len(rows), TOGETHER):
        engine.dispatch.steps(rows[first : first + TOGETHER])
        if (now := engine.now()) - counts_from > patience // 2:
            counts_from = now
            engine.store.write(partial(steps.still_sending, run_id=rows[0].run_id, now=now, patience=patience))


def _set_waits(engine: Engine, rows: list[WaitRow]) -> None:
    due = [row for row in rows if not row.is_deferred]
    left = [*due[engine.dispatch.waits(due) :], *(row for row in rows if row.is_deferred)]
    if engine.on_due is not None:
        for row in left:
            engine.on_due(row.due_at)


def _waits_for_other_code(engine: Engine, view: View) -> bool:
    """A blocked run is tried once by each version of the code; a cancel ends it at once."""
    run = view.run
    if run.status != "blocked" or view.cancel is not None:
        return False
    return run.blocked_version is not None and run.blocked_version == current_code_version(engine, run)
