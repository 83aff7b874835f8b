"""
Emits the spans of what has ended with a committed turn: operations, and the run itself.

The log has the end of each operation once, so each span is emitted once: by the process that has committed that end,
after the commit.  A replay emits nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ..engine import Checkout, Engine
from ..events import ROOT, Event
from ..sandbox import log_records
from ..store import Run, reason, run_log, runs
from ..tracing import EndedOperation, OpenOperation, OpenOperations
from .continuation import Continuation
from .decision import CommitResult, Decision
from .run_row import started_at
from .view import View

log = log_records.get("durable.tracing")


def emit_spans(
    engine: Engine,
    view: View,
    checkout: Checkout,
    decision: Decision,
    result: CommitResult,
    continuation: Continuation | None,
) -> None:
    """
    Emit the spans of what a turn has ended, and note what it has begun.  Never raises.

    When this process goes on with a step of the run, they are emitted later, together with those of the next turns.
    """
    tracing = engine.tracing
    if not tracing.is_on or tracing.drops(view.run.id, _carried(engine, view.run)):
        return
    tracing.batch.add(partial(_emit, engine, view, checkout.operations, decision, result.log))
    # What a turn has read may be large.
    if continuation is None or continuation.next is None or view.past:
        tracing.batch.flush()


def _emit(engine: Engine, view: View, operations: OpenOperations, decision: Decision, new: Sequence[Event]) -> None:
    try:
        operations.note(view.past)
        ended = operations.note(new)
        if not ended:
            return
        # A turn that replays nothing has not read what came before it.
        unknown = [each.op_id for each in ended if each.operation is None and each.op_id != ROOT]
        if unknown:
            with engine.store.read() as tx:
                created = run_log.creations(tx, view.run.id, unknown)
            found = {event.op_id: OpenOperation.of(event) for event in created}
            ended = [EndedOperation(each.operation or found.get(each.op_id), each.ended, each.op_id) for each in ended]
        run = view.run if view.run.started_at else replace(view.run, started_at=started_at(decision))
        engine.tracing.emit(run, _carried(engine, run), ended)
    except Exception as error:
        # The turn is committed; a span is not worth a second try.
        log.warning("The spans of a turn of run %s are lost (%s).", view.run.id, reason(error))


def _carried(engine: Engine, run: Run) -> str | None:
    return runs.trace_context(engine.store.vault, run.id, run.trace_context)
