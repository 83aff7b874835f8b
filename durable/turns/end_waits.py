"""
Ends several waits that a process knows, and takes the turns that follow, in one transaction.

Sleeps that end together would otherwise wait for each other's commits.  Each turn has a fence of its own: one that is
overtaken writes nothing, and its wait's message ends it.  The process has then claimed a step of each run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from .. import failpoints, registry
from ..engine import Checkout, Engine, KnownWait
from ..sandbox import log_records
from ..store import Claim
from .commit import commit_together
from .conclude import conclude_wait, note_end, view_of_end, write_turn
from .continuation import Continuation
from .decide import decide
from .decision import CommitResult, Decision
from .finish import end_turn
from .plain_turn import is_plain
from .report import report
from .view import View

log = log_records.get("durable.drive")


@dataclass(frozen=True, kw_only=True, slots=True)
class _EndingTurn:
    """A turn that ends a wait: what it has read and decided, and the attempt that this process runs then."""

    wait: KnownWait
    checkout: Checkout
    view: View
    decision: Decision
    begins: Claim | None
    began: int


def conclude_waits(engine: Engine, continuation: Continuation, due: Sequence[KnownWait]) -> None:
    """
    End these waits.  The attempts to run then are ``continuation.ready``.

    A wait that cannot be ended here, because its run has other news, is left to its message.
    """
    if len(due) == 1:
        conclude_wait(engine, continuation, due[0])
        return
    decided: list[Decision] = []
    with ExitStack() as replays:
        turns = []
        # In the order in which the transaction locks the runs.
        for wait in sorted(due, key=lambda each: each.run_id):
            checkout = replays.enter_context(engine.replays.checked_out(wait.run_id))
            turn = _decide(engine, continuation, wait, checkout)
            if turn is not None and is_plain(engine, turn.decision):
                turns.append(turn)
            elif turn is not None and _write_other(engine, continuation, turn):
                decided.append(turn.decision)
        if turns:
            decided += _commit(engine, continuation, turns)
    for decision in decided:
        report(engine, decision)


def _decide(engine: Engine, continuation: Continuation, wait: KnownWait, checkout: Checkout) -> _EndingTurn | None:
    """Return the turn that ends a wait; None where its message has to."""
    began = time.monotonic_ns()
    view = view_of_end(engine, continuation, checkout, wait)
    if view is None:
        return None
    try:
        decision = decide(engine, view, registry.workflows.get(view.run.name), checkout)
        if decision is None or decision.fault is not None:
            return None
        begins = continuation.choose(decision)
    except Exception as error:
        _leave(wait, error)
        return None
    return _EndingTurn(wait=wait, checkout=checkout, view=view, decision=decision, begins=begins, began=began)


def _write_other(engine: Engine, continuation: Continuation, turn: _EndingTurn) -> bool:
    """Commit a turn that is not plain, in a transaction of its own.  Return whether it is written."""
    try:
        result = write_turn(engine, continuation, turn.decision)
    except Exception as error:
        _leave(turn.wait, error)
        return False
    if continuation.next is not None:
        continuation.ready.append(continuation.next)
        continuation.next = None
    _end(engine, continuation, turn, result)
    return True


def _leave(wait: KnownWait, error: Exception) -> None:
    """Leave a wait to its message.  Whatever is wrong with the turn, the ordinary one reports it."""
    log.debug("Run %s: the end of a wait goes through the inbox (%s).", wait.run_id, error)


def _end(engine: Engine, continuation: Continuation, turn: _EndingTurn, result: CommitResult) -> None:
    end_turn(engine, continuation, turn.checkout, turn.view, turn.decision, result, turn.began)
    note_end(engine, turn.view, turn.wait)


def _commit(engine: Engine, continuation: Continuation, turns: Sequence[_EndingTurn]) -> list[Decision]:
    """Commit plain turns; do for each what follows, and note the attempts to run.  Return what is written."""
    failpoints.hit("turn.read")
    claims = [turn.begins.claim for turn in turns if turn.begins is not None]
    # Before the commit, which may fail and still be applied: housekeeping gives up what is claimed and not running.
    for claim in claims:
        engine.running.add(claim)
    try:
        results = commit_together(engine, [(turn.decision, turn.begins) for turn in turns])
    except Exception as error:
        log.debug("%d ends of waits go through the inbox (%s).", len(turns), error)
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
        _end(engine, continuation, turn, result)
    return [turn.decision for turn, _ in written]
