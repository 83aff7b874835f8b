"""
What becomes of a message whose workflow or step this process does not know, as in a deploy with old and new workers.

If a live worker of the same queue knows the name, the message is sent on.  If no live worker knows it, nothing is
sent: the first sweep after the first heartbeat of a worker that knows it does.  If only workers of other queues know
it, the sweep sends it again after its usual delays.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from .. import measures
from ..engine import Engine
from ..sandbox import log_records
from ..store import DriveRow, Run, SendTimes, run_log, steps, workers

log = log_records.get("durable.tasks")


def forward_turn(engine: Engine, run: Run, hops: int) -> None:
    """Send the turn of a run on; this process does not know its workflow.  It has been sent on *hops* times before."""
    _forward(
        engine,
        "turn",
        f"Run {run.id}: this worker knows no workflow {run.name!r}",
        (run.name, engine.dispatch.find_queue_of_turn(run.queue)),
        (run.id, None),
        hops,
        lambda: engine.dispatch.send_turn(_row(run), hops=hops + 1),
        lambda tx, sending: run_log.set_send_times(tx, run.id, sending),
    )


def forward_attempt(engine: Engine, run_id: str, op_id: str, attempt: int, hops: int) -> None:
    """Send the attempt of a step on; this process does not know the step.  It has been sent on *hops* times before."""
    with engine.store.read() as tx:
        row = steps.pending(tx, run_id, op_id, attempt)
    if row is None:
        return  # another delivery of the message has begun it, or its call was cancelled
    _forward(
        engine,
        "step",
        f"Run {run_id}: this worker knows no step {row.name!r}",
        (row.name, row.step_queue),
        (run_id, op_id),
        hops,
        lambda: engine.dispatch.send_step(row, hops=hops + 1),
        lambda tx, sending: steps.set_send_times(tx, row, sending),
    )


def _forward(
    engine: Engine,
    kind: str,
    what: str,
    whose: tuple[str, str | None],
    key: tuple[str, str | None],
    hops: int,
    send: Callable[[], object],
    write: Callable[[Connection, SendTimes], None],
) -> None:
    """
    Send a message on, now or after a pause, or leave it to the sweep.

    Args:
        whose: The name that this process does not know, and the queue of the message.
        key: The run and the operation of the message.
        write: Writes when the message is sent.
    """
    now = engine.now()
    with engine.store.read() as tx:
        is_known = workers.is_known(tx, *whose, since=now - engine.settings.dead_after)
    if is_known:
        engine.measures.count(measures.MESSAGES_FORWARDED, kind)
        pause = engine.forwarder.pause(hops)
        if not hops:
            log.info("%s; sent on to one that does.", what)
        if not pause:
            send()
            return
        sent_at = now + int(pause * 1_000_000)
        engine.store.write(lambda tx: write(tx, SendTimes(sent_at + engine.settings.resend_after, sent_at)))
        engine.later.call(key, pause, send)
        return
    log.warning("%s; left for one that does.  Is its module among the Celery app's include or imports?", what)
    if is_known is None:
        engine.store.write(lambda tx: write(tx, SendTimes(now, None)))


def _row(run: Run) -> DriveRow:
    return DriveRow(run.id, run.queue, run.priority, trace_context=run.trace_context)
