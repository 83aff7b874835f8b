"""
Gathers the outcomes of quick steps of several runs, and records them in one transaction, each in the turn it asks for.

A process gathers only while it has attempts of several runs in hand, and for some milliseconds.  If it is killed
meanwhile, these attempts are lost and run again, as when it is killed before it records the outcome of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from .. import events
from ..engine import Engine
from ..replay import commands
from ..store import Claim
from .conclude import conclude, may_conclude, view_of_outcome
from .continuation import Continuation
from .decision import Decision
from .plain_turn import is_plain
from .prepared_turn import Gathered
from .report import report
from .together import prepare, write_alone, write_together

#: An attempt that has taken longer since its claim is not gathered, in microseconds: housekeeping gives up what was
#: claimed long ago and does not run.
MOST_MICROS = 1_000_000


def gather(engine: Engine, continuation: Continuation, held: Claim, ended: events.AttemptEnded) -> bool:
    """
    Take the turn that an attempt's outcome asks for, and leave its commit to ``write_gathered``, if the step is quick.

    Return False when the outcome has to go into the inbox, as ``conclude`` does.
    """
    is_quick = engine.quick_steps.has(held.name) and ended.at - held.claimed_at <= MOST_MICROS
    if not is_quick or not isinstance(ended, events.StepCompleted) or not may_conclude(held, ended):
        return conclude(engine, continuation, held, ended)
    with ExitStack() as checkouts:
        checkout = checkouts.enter_context(engine.replays.checked_out(held.run_id))
        view = view_of_outcome(continuation, checkout, held, ended)
        turn = None if view is None else prepare(engine, continuation, checkout, view)
        if turn is not None and is_plain(engine, turn.decision) and not _begins_waits(turn.decision):
            continuation.gather(Gathered(held=held, ended=ended, turn=turn, checkouts=checkouts.pop_all()))
            return True
        is_written = turn is not None and write_alone(engine, continuation, turn)
    if view is None:
        # Other steps of the run are under way, say.
        return conclude(engine, continuation, held, ended)
    if turn is not None and is_written:
        report(engine, turn.decision)
    return is_written


def _begins_waits(decision: Decision) -> bool:
    """Return whether sleeps or timeouts begin with the turn: they would be late, and all be over at once."""
    return any(isinstance(each, commands.CreateWait) for each in decision.commands)


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
