"""
Takes the first turns of several runs, whose message carries them together, in one transaction.

What cannot begin like this gets a message of its own: a run with limits, a turn that writes more than a plain one, a
workflow that this process does not know.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from .. import registry
from ..client import pauses
from ..engine import Checkout, Engine
from ..sandbox import log_records
from .continuation import Continuation
from .decide import decide
from .plain_turn import is_plain
from .prepared_turn import PreparedTurn
from .report import report
from .together import write_together
from .view import View, read

#: When the turns have taken so long, in seconds, the other runs are left to other processes.
MOST_SECS = 0.025

log = log_records.get("durable.drive")


def begin_runs(engine: Engine, continuation: Continuation, run_ids: Sequence[str]) -> None:
    """
    Take the first turns of these runs.  The attempts to run then are ``continuation.ready``.

    The first of them is claimed in any case, and others where such steps are known to be quick: they wait for each
    other.  Other steps are sent.
    """
    engine.check_schema()
    turns: dict[str, PreparedTurn] = {}
    left: set[str] = set()
    until = time.monotonic() + MOST_SECS
    with ExitStack() as replays:
        # In the order in which the transaction locks the runs.
        for run_id in sorted(set(run_ids)):
            if turns and time.monotonic() >= until:
                left.add(run_id)
                continue
            checkout = replays.enter_context(engine.replays.checked_out(run_id))
            try:
                turn = _prepare(engine, continuation, run_id, checkout)
            except _Left as reason:
                log.debug("The first turn of run %s comes by itself: %s.", run_id, reason)
                left.add(run_id)
                continue
            if turn is not None:
                turns[run_id] = _with_quick_steps_only(engine, turn, turns)
        written = write_together(engine, continuation, list(turns.values()))
    for turn in written:
        report(engine, turn.decision)
    left |= turns.keys() - {turn.view.run.id for turn in written}
    engine.send_turns(*(run_id for run_id in run_ids if run_id in left))


class _Left(Exception):
    """Raised when a run's first turn needs a message of its own."""


def _prepare(engine: Engine, continuation: Continuation, run_id: str, checkout: Checkout) -> PreparedTurn | None:
    """Return a run's first turn; None when there is nothing to do.  Raises _Left."""
    began = time.monotonic_ns()
    try:
        with engine.store.read() as tx:
            view = read(tx, run_id, engine.now(), checkout)
        if view is None or pauses.is_held(engine, view.run, is_cancelled=view.cancel is not None):
            checkout.give_back()
            return None
        workflow = registry.workflows.get(view.run.name)
        if workflow is None or workflow.limits or not _is_ordinary(view):
            checkout.give_back()
            raise _Left("it may be held up, or has other news")
        decision = decide(engine, view, workflow, checkout)
        if decision is None or decision.fault is not None or not is_plain(engine, decision):
            raise _Left("it writes more than a plain turn")
        begins = continuation.choose(decision)
    except _Left:
        raise
    except Exception as error:
        # Whatever is wrong with the turn, the ordinary one reports it.
        raise _Left(str(error)) from error
    return PreparedTurn(checkout=checkout, view=view, decision=decision, begins=begins, began=began)


def _is_ordinary(view: View) -> bool:
    """Return whether the turn begins a run, and nothing else has come."""
    is_new = view.is_first and view.cancel is None and view.fault is None
    return is_new and not view.was_resent and view.run.turn_tried is None


def _with_quick_steps_only(engine: Engine, turn: PreparedTurn, before: dict[str, PreparedTurn]) -> PreparedTurn:
    """Return the turn without its claim, if its step might keep those of other runs waiting, or wait for them long."""
    is_first = all(each.begins is None for each in before.values())
    if turn.begins is None or is_first or engine.quick_steps.has(turn.begins.name):
        return turn
    return replace(turn, begins=None)
