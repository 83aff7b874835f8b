"""
One turn of a run: read, replay, write, send.

Workers run ``durable.drive`` when a run has something new in its inbox.  Two turns of one run at once are harmless:
one of them fails its fence and starts again.  A turn with nothing new takes one query.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import Enum

from sqlalchemy.exc import StatementError

from .. import events, failpoints, measures, registry
from ..client import pauses, run_limits
from ..engine import Checkout, Engine
from ..errors import DecryptionError, WorkflowCodeError
from ..sandbox import log_records
from ..store import Run, RunStatus, runs
from .commit import commit
from .continuation import Continuation
from .decision import Decision, Overtaken
from .finish import commit_with_next, end_turn
from .forward import forward_turn
from .poison import Deferred, count_refusal, decide_counted
from .report import report
from .run_row import current_code_version
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
    end = DriveEnd.CANNOT_TAKE
    try:
        try:
            end = _take_turns(engine, run_id, lease, continuation, redelivered=redelivered, in_batches=in_batches)
        finally:
            if end is DriveEnd.WAITS_FOR_MORE:
                lease.keep()
            else:
                lease.release(wakes=end is DriveEnd.INBOX_EMPTY)
        # A message for another process comes after the release: that process would find the lease taken.
        if end is DriveEnd.OUT_OF_TRIES:
            engine.send_turns(run_id)
    except UnknownWorkflow as unknown:
        forward_turn(engine, unknown.run, hops)


class DriveEnd(Enum):
    """Why a drive takes no more turns."""

    INBOX_EMPTY = "the inbox is empty, but for what has come in meanwhile"
    WAITS_FOR_MORE = "many steps run, and the workflow waits for all of them: one turn takes several outcomes in"
    OUT_OF_TRIES = "it has taken many turns, and other runs come first: the inbox may have items"
    CANNOT_TAKE = "this process cannot take the inbox in: its items stay"


def _take_turns(
    engine: Engine,
    run_id: str,
    lease: TurnLease,
    continuation: Continuation | None,
    *,
    redelivered: bool,
    in_batches: bool,
) -> DriveEnd:
    """Take turns of a run, as ``drive`` does.  Raises UnknownWorkflow."""
    has_turned = False
    for _ in range(TRIES):
        try:
            decision = turn(engine, run_id, lease, continuation=continuation, redelivered=redelivered)
        except Overtaken as overtaken:
            engine.measures.count(measures.TURNS_OVERTAKEN)
            log.debug("Run %s: %s; the turn starts again.", run_id, overtaken)
            continue
        except ReadTooEarly:
            continue
        except DecryptionError as unreadable:
            log.error("Run %s is left for a worker that can read it: %s", run_id, unreadable)
            return DriveEnd.CANNOT_TAKE
        except Deferred as deferred:
            log.warning("Left for later: %s.", deferred)
            return DriveEnd.CANNOT_TAKE
        if decision is None:
            if not has_turned:
                engine.run_handlers.call_again(engine.store, registry.Run(run_id, engine))
            return DriveEnd.INBOX_EMPTY
        if continuation is not None and continuation.next is not None:
            return DriveEnd.INBOX_EMPTY
        if in_batches and not decision.commands and engine.replays.out(run_id) > MANY:
            return DriveEnd.WAITS_FOR_MORE
        has_turned, redelivered = True, False
    if has_turned:
        return DriveEnd.OUT_OF_TRIES
    log.warning("Run %s was overtaken %d times in a row; the sweep sends its next turn.", run_id, TRIES)
    return DriveEnd.CANNOT_TAKE


class ReadTooEarly(Exception):
    """Raised when another turn was committed after the turn had read, and before it took the lease."""


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
    """
    Take one turn of a run, and return what it has decided; None when there is nothing to do, or nothing more.

    Raises:
        Overtaken, ReadTooEarly: Another turn came first; nothing is written.
        UnknownWorkflow: This process does not know the run's workflow.
        Deferred: The turn has killed processes before, and has to wait.
        DecryptionError: This process cannot read the run.
    """
    began = time.monotonic_ns()
    with engine.replays.checked_out(run_id) as checkout:
        with engine.store.read() as tx:
            view = read(tx, run_id, engine.now(), checkout, holder=lease.holder)
        if view is not None and pauses.is_held(engine, view.run, is_cancelled=view.cancel is not None):
            checkout.give_back()
            return None
        if view is None or (view.cancel is None and _waits_for_other_code(engine, view.run)):
            checkout.give_back()
            return None
        if not _may_go_on(engine, view, checkout, lease):
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
            result = commit_with_next(engine, decision, continuation)
        except (StatementError, ValueError, TypeError, OverflowError) as error:
            decision = count_refusal(engine, decision, error)
            result = commit(engine, decision)
        end_turn(engine, continuation, checkout, view, decision, result, began)
    report(engine, decision)
    # A turn that blocks its run leaves the inbox as it is; the next one cancels the run, if a cancel came.
    return decision if decision.fault is None or view.cancel is not None else None


def _may_go_on(engine: Engine, view: View, checkout: Checkout, lease: TurnLease) -> bool:
    """
    Take or renew the lease, where other processes may soon have an outcome; False while another drive has it.

    Raises:
        ReadTooEarly: Before the lease was taken, another turn was committed.
    """
    has_lease = lease.holder is not None
    if not has_lease and not is_contended(view, checkout):
        return True
    if not lease.take():
        return False
    if not has_lease:
        with engine.store.read() as tx:
            is_late = runs.find_turn(tx, view.run.id) != view.run.turn
        if is_late:
            # The commit would fail, and the replay would be lost, which has been fed what is not committed.
            checkout.give_back()
            raise ReadTooEarly
    return True


def _check_limits(engine: Engine, view: View, workflow: registry.Workflow[..., object]) -> View | None:
    """Return None when the run waits for a limit, and its first turn comes later; a fault for a key that is none."""
    created = view.past[0] if view.past else view.inbox[0].event
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
