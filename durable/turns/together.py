"""
Commits the turns of several runs in one transaction.

Each turn has a fence of its own: one that is overtaken writes nothing.  The process has then claimed a step of each
run that asks for one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from .. import failpoints, registry
from ..engine import Checkout, Engine
from ..sandbox import log_records
from .commit import commit_together
from .conclude import write_turn
from .continuation import Continuation
from .decide import decide
from .decision import CommitResult
from .finish import end_turn
from .prepared_turn import PreparedTurn
from .view import View

log = log_records.get("durable.drive")


def prepare(engine: Engine, continuation: Continuation, checkout: Checkout, view: View) -> PreparedTurn | None:
    """Return the turn that ends what its view says; None where the ordinary turn takes it in, and reports an error."""
    began = time.monotonic_ns()
    try:
        decision = decide(engine, view, registry.workflows.get(view.run.name), checkout)
        if decision is None or decision.fault is not None:
            return None
        begins = continuation.choose(decision)
    except Exception as error:
        _leave(view, error)
        return None
    return PreparedTurn(checkout=checkout, view=view, decision=decision, begins=begins, began=began)


def write_alone(engine: Engine, continuation: Continuation, turn: PreparedTurn) -> bool:
    """
    Commit a turn in a transaction of its own, and do what follows; but for its report.  False: nothing is written.

    The attempt to run then is ``continuation.next``.
    """
    try:
        result = write_turn(engine, continuation, turn.decision)
    except Exception as error:
        _leave(turn.view, error)
        return False
    end_turn(engine, continuation, turn.checkout, turn.view, turn.decision, result, turn.began)
    return True


def _leave(view: View, error: Exception) -> None:
    """Leave what has come to an ordinary turn.  Whatever is wrong, that one reports it."""
    log.debug("Run %s: what it has waited for goes through the inbox (%s).", view.run.id, error)


def write_together(engine: Engine, continuation: Continuation, turns: Sequence[PreparedTurn]) -> list[PreparedTurn]:
    """
    Commit these turns, in the order of their runs' ids, and do for each what follows; but for its report.

    The attempts to run then are added to ``continuation.ready``.  Return the turns that are written.
    """
    if not turns:
        return []
    failpoints.hit("turn.read")
    claims = [turn.begins.claim for turn in turns if turn.begins is not None]
    # Before the commit, which may fail and still be applied: housekeeping gives up what is claimed and not running.
    for claim in claims:
        engine.running.add(claim)
    results: list[CommitResult | None]
    try:
        results = commit_together(engine, [(turn.decision, turn.begins) for turn in turns])
    except Exception as error:
        log.debug("%d turns are not taken together (%s).", len(turns), error)
        results = [None] * len(turns)
    except BaseException:
        for claim in claims:
            engine.running.discard(claim)
        raise
    # All of them first: what fails after that must leave no claim that nobody runs or releases.
    for turn, result in zip(turns, results, strict=True):
        if turn.begins is not None and result is not None:
            continuation.ready.append(turn.begins)
        elif turn.begins is not None:
            engine.running.discard(turn.begins.claim)
    written = [(turn, result) for turn, result in zip(turns, results, strict=True) if result is not None]
    for turn, result in written:
        end_turn(engine, continuation, turn.checkout, turn.view, turn.decision, result, turn.began)
    return [turn for turn, _ in written]
