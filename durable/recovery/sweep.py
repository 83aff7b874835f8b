"""
What a crash or a lost message left, found in the store and sent again.

Every row that waits for a message says when the sweep looks at it (``next_send_at``), and when its message was sent.
A sweep takes those whose message was not sent, or is lost (``lost.py``), in bounded batches, sends them, and looks
again after a delay that doubles each time.  It also gives up the attempts of dead processes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import attrgetter
from typing import TypeVar

from sqlalchemy import Connection

from .. import failpoints
from ..attempts import outcome
from ..broker import GRACE
from ..engine import Engine, Identity, identify, is_gone
from ..sandbox import log_records
from ..store import Kind, StepRow, WaitRow, Worker, run_log, steps, waits, workers
from .lost_messages import Lost

#: Rows of a kind that one sweep sends.
BATCH = 500

Row = TypeVar("Row", StepRow, WaitRow)

log = log_records.get("durable.sweep")


def sweep(engine: Engine) -> bool:
    """
    Send what was not sent, and what is lost: steps, waits, drives; whether there is more.

    What needs a name that no live process has registered is not sent: Celery throws messages of
    unknown tasks away.  Its row is left as it is, so it costs no writes, and is sent by the first
    sweep after the first beat of a process that has the name.
    """
    now = engine.now()
    with engine.store.read() as tx:
        known = workers.registered(tx)
        due_steps = steps.groups_due(tx, now)
        due_waits = waits.groups_due(tx, now)
        due_turns = run_log.groups_due(tx, now)
    lost = Lost(engine, now)
    patience = engine.settings.resend_after
    sent = [
        _steps(engine, now, known, lost.steps(due_steps, patience)),
        _waits(engine, now, lost.waits(due_waits, GRACE)),
        _drives(engine, now, known, lost.turns(due_turns, patience)),
    ]
    return BATCH in sent


def publish_due(engine: Engine, since: int) -> None:
    """Send the steps and waits that have become due after *since* and were not sent before."""
    now = engine.now()
    with engine.store.read() as tx:
        known = workers.registered(tx)
    _steps(engine, now, known, {}, since)
    _waits(engine, now, {}, since)


def _steps(engine: Engine, now: int, known: set[str], lost_before: Mapping[Kind, int], since: int = 0) -> int:
    with engine.store.read() as tx:
        due = steps.due(tx, now, known, BATCH, lost_before=lost_before, since=since)
    due = _sendable(engine, now, due, attrgetter("not_before"), None if since else steps.postpone)
    sent = due[: engine.dispatch.steps(due)]
    if sent:
        failpoints.hit("sweep.sent")
        engine.store.write(lambda tx: steps.sent(tx, sent, engine.now(), engine.settings.resend_after))
    return len(sent)


def _waits(engine: Engine, now: int, lost_before: Mapping[Kind, int], since: int = 0) -> int:
    with engine.store.read() as tx:
        due = waits.due(tx, now, BATCH, lost_before=lost_before, since=since)
    due = _sendable(engine, now, due, attrgetter("due_at"), None if since else waits.postpone)
    sent = due[: engine.dispatch.waits(due)]
    if sent:
        failpoints.hit("sweep.sent")
        engine.store.write(lambda tx: waits.sent(tx, sent, engine.now(), engine.settings.resend_after))
    return len(sent)


def _sendable(
    engine: Engine,
    now: int,
    rows: list[Row],
    due_at: Callable[[Row], int],
    postpone: Callable[[Connection, Collection[Row]], None] | None,
) -> list[Row]:
    """
    Those that are due, and those whose messages find room in workers until they are; the others are put off.

    Args:
        postpone: None where that is not ours to decide: only those that are due.
    """
    later = [row for row in rows if due_at(row) > now]
    if not later or postpone is None:
        return [row for row in rows if due_at(row) <= now]
    with engine.store.read() as tx:
        room = engine.dispatch.eta_budget.room(tx, now)
    held = [row for row in later if engine.dispatch.may_hold(due_at(row) - now)][:room]
    left = set(later).difference(held)
    if left:
        engine.store.write(lambda tx: postpone(tx, left))
    return [row for row in rows if row not in left]


def _drives(engine: Engine, now: int, known: set[str], lost_before: Mapping[Kind, int]) -> int:
    with engine.store.read() as tx:
        due = run_log.due_drives(tx, now, known, BATCH, lost_before=lost_before)
    sent = due[: engine.dispatch.drives(due)]
    if sent:
        failpoints.hit("sweep.sent")
        ids = [row.run_id for row in sent]
        engine.store.write(lambda tx: run_log.sent_drives(tx, ids, engine.now(), engine.settings.resend_after))
    return len(sent)


def reap_dead_workers(engine: Engine, *, beating_since: int) -> None:
    """
    Give up the attempts of processes that have ended.

    A process is dead when it ran on this host and is gone, or when its beat is older than
    ``dead_after``, counting only time in which our own beats succeeded: while the database is away
    nobody can beat, and nobody is dead for it.

    Args:
        beating_since: Since when our own beats have succeeded without a gap, by the database's clock.
    """
    now = engine.now()
    here = identify()
    patience = now - engine.settings.dead_after
    with engine.store.read() as tx:
        alive = workers.alive(tx)
        orphans = steps.claimed_by_unknown_process(tx, patience, BATCH)
    silent = [w for w in alive if w.id != engine.process_id and w.beat_at < patience and beating_since <= patience]
    gone = [w for w in alive if is_gone(Identity(w.host, w.boot_id, w.pid, w.pid_started), here)]
    dead = {w.id for w in gone}
    for worker in {w.id: w for w in (*silent, *gone)}.values():
        _reap(engine, worker, spared_since=None if worker.id in dead else patience)
    for held in orphans:
        outcome.give_up_and_send(engine, held)


def _reap(engine: Engine, worker: Worker, *, spared_since: int | None) -> None:
    """Give up what a process runs; of one that is merely silent, nothing that has called ``heartbeat`` lately."""
    with engine.store.read() as tx:
        runs_now = steps.claimed_by(tx, [worker.id], BATCH)
    held = [a for a in runs_now if spared_since is None or (a.heartbeat_at or 0) < spared_since]
    if held:
        log.warning("Process %s:%d is gone; %d attempts are given up.", worker.host, worker.pid, len(held))
    for attempt in held:
        outcome.give_up_and_send(engine, attempt)
    if len(held) < len(runs_now):
        return
    with engine.store.begin() as tx:
        workers.remove(tx, worker.id)


def release_forgotten(engine: Engine) -> None:
    """Give up this process's claims that it does not run: a commit whose acknowledgement was lost leaves them."""
    before = engine.now() - engine.settings.dead_after
    with engine.store.read() as tx:
        held = steps.claimed_by(tx, [engine.process_id], BATCH)
    for attempt in held:
        if attempt.claim not in engine.running and attempt.claimed_at < before:
            outcome.give_up_and_send(engine, attempt)
