"""
Gathers the outcomes of quick steps of several runs, and records them in one transaction, each in the turn it asks for.

A process gathers only while it has attempts of several runs in hand, and for some milliseconds.  If it is killed
meanwhile, these attempts are lost and run again, as when it is killed before it records the outcome of one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack

from .. import events, registry
from ..engine import Checkout, Engine
from ..replay import commands
from ..sandbox import log_records
from ..store import Claim
from .conclude import conclude, may_conclude, view_of_outcome, write_turn
from .continuation import Continuation
from .decide import decide
from .decision import Decision
from .finish import end_turn
from .plain_turn import is_plain
from .prepared_turn import Gathered, PreparedTurn
from .report import report
from .together import write_together
from .view import View

#: An attempt that has taken longer since its claim is not gathered, in microseconds: housekeeping gives up what was
#: claimed long ago and does not run.
MOST_MICROS = 1_000_000

log = log_records.get("durable.drive")


def gather(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Take the turn that an attempt's outcome asks for, and leave its commit to ``write_gathered``, if the step is quick.

    Return False when the outcome has to go into the inbox, as ``conclude`` does.
    """
    is_quick = engine.quick_steps.has(held.name) and ended.at - held.claimed_at <= MOST_MICROS
    if not is_quick or not isinstance(ended, events.StepCompleted) or not may_conclude(held, ended):
        return conclude(engine, continuation, held, ended)
    decision: Decision | None = None
    with ExitStack() as checkouts:
        checkout = checkouts.enter_context(engine.replays.checked_out(held.run_id))
        view = view_of_outcome(continuation, checkout, held, ended)
        if view is not None:
            turn = _prepare(engine, continuation, checkout, view)
            if turn is None:
                return False
            if is_plain(engine, turn.decision) and not _begins_waits(turn.decision):
                gathered = Gathered(held=held, ended=ended, turn=turn, checkouts=checkouts.pop_all())
                continuation.gather(gathered)
                return True
            decision = _write(engine, continuation, turn)
            if decision is None:
                return False
    if decision is None:
        return conclude(engine, continuation, held, ended)
    report(engine, decision)
    return True


def _begins_waits(decision: Decision) -> bool:
    """Return whether sleeps or timeouts begin with the turn: they would be late, and all be over at once."""
    return any(isinstance(each, commands.CreateWait) for each in decision.commands)


def _prepare(engine: Engine, continuation: Continuation, checkout: Checkout, view: View) -> PreparedTurn | None:
    """Return the turn of an outcome; None where the ordinary turn has to take it in, and reports what is wrong."""
    began = time.monotonic_ns()
    try:
        decision = decide(engine, view, registry.workflows.get(view.run.name), checkout)
        if decision is None or decision.fault is not None:
            return None
        begins = continuation.choose(decision)
    except Exception as error:
        log.debug("Run %s: an outcome goes through the inbox (%s).", view.run.id, error)
        return None
    return PreparedTurn(checkout=checkout, view=view, decision=decision, begins=begins, began=began)


def _write(engine: Engine, continuation: Continuation, turn: PreparedTurn) -> Decision | None:
    """Commit a turn by itself, with the claim of the step that comes next.  None: nothing is written."""
    try:
        result = write_turn(engine, continuation, turn.decision)
    except Exception as error:
        log.debug("Run %s: an outcome goes through the inbox (%s).", turn.view.run.id, error)
        return None
    end_turn(engine, continuation, turn.checkout, turn.view, turn.decision, result, turn.began)
    return turn.decision


def write_gathered(engine: Engine, continuation: Continuation, gathered: Sequence[Gathered]) -> list[Gathered]:
    """
    Commit what was gathered.  The attempts to run then are added to ``continuation.ready``.

    Return the outcomes that are not recorded: another turn came first, or the database is away.
    """
    # In the order in which the transaction locks the runs.
    in_order = sorted(gathered, key=lambda each: each.held.run_id)
    try:
        written = write_together(engine, continuation, [each.turn for each in in_order])
    finally:
        for each in in_order:
            each.checkouts.close()
    for turn in written:
        report(engine, turn.decision)
    runs = {turn.view.run.id for turn in written}
    return [each for each in in_order if each.held.run_id not in runs]
