"""
Ends several waits that a process knows, and takes the turns that follow, in one transaction.

Sleeps that end together would otherwise wait for each other's commits.  Each turn has a fence of its own: one that is
overtaken writes nothing, and its wait's message ends it.  The process has then claimed a step of each run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ..engine import Engine, KnownWait
from .conclude import conclude_wait, note_end, view_of_end
from .continuation import Continuation
from .decision import Decision
from .plain_turn import is_plain
from .prepared_turn import PreparedTurn
from .report import report
from .together import prepare, write_alone, write_together


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
        plain: dict[str, tuple[KnownWait, PreparedTurn]] = {}
        # In the order in which the transaction locks the runs.
        for wait in sorted(due, key=lambda each: each.run_id):
            checkout = replays.enter_context(engine.replays.checked_out(wait.run_id))
            view = view_of_end(engine, continuation, checkout, wait)
            turn = None if view is None else prepare(engine, continuation, checkout, view)
            if turn is not None and is_plain(engine, turn.decision):
                plain[wait.run_id] = (wait, turn)
            elif turn is not None and _write_other(engine, continuation, wait, turn):
                decided.append(turn.decision)
        for turn in write_together(engine, continuation, [turn for _, turn in plain.values()]):
            note_end(engine, turn.view, plain[turn.view.run.id][0])
            decided.append(turn.decision)
    for decision in decided:
        report(engine, decision)


def _write_other(engine: Engine, continuation: Continuation, wait: KnownWait, turn: PreparedTurn) -> bool:
    """Commit a turn that is not plain, in a transaction of its own.  Return whether it is written."""
    if not write_alone(engine, continuation, turn):
        return False
    if continuation.next is not None:
        continuation.ready.append(continuation.next)
        continuation.next = None
    note_end(engine, turn.view, wait)
    return True
