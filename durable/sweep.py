"""
What a crash or a lost message left, found in the store and sent again.

Every row that waits for a message says when its message is overdue
(``next_send_at``).  A sweep takes those that are, in bounded batches, sends
them, and looks again after a delay that doubles each time: a long queue is
not flooded with repeats.  It also gives up the attempts of dead processes.
"""

from __future__ import annotations

import json
import logging
from itertools import takewhile

from . import steps as attempts
from .drive import send_drive
from .engine import Engine
from .processes import Identity, identify, is_gone
from .store import log as run_log
from .store import runs, steps, waits, workers
from .store.workers import Worker

#: Rows of a kind that one sweep sends.
BATCH = 500

log = logging.getLogger("durable.sweep")


def sweep(engine: Engine) -> None:
    """Send what is overdue: steps, waits, drives."""
    _steps(engine)
    _waits(engine)
    _drives(engine)


def _steps(engine: Engine) -> None:
    now = engine.now()
    with engine.store.read() as tx:
        due = steps.due(tx, now, BATCH)
        known = registered_names(workers.alive(tx)) if due else set()
    # A name that no process knows would be thrown away by Celery: it waits for a worker that knows it.
    sent = list(takewhile(lambda row: row.name not in known or engine.dispatch.step(row), due))
    if sent:
        with engine.store.begin() as tx:
            for row in sent:
                steps.sent(tx, row, now, engine.settings.resend_after)


def _waits(engine: Engine) -> None:
    now = engine.now()
    with engine.store.read() as tx:
        due = waits.due(tx, now, BATCH)
    sent = list(takewhile(lambda row: engine.dispatch.wait(row, overdue=row.due_at <= now), due))
    if sent:
        with engine.store.begin() as tx:
            for row in sent:
                waits.sent(tx, row, now, engine.settings.resend_after)


def _drives(engine: Engine) -> None:
    now = engine.now()
    with engine.store.read() as tx:
        due = run_log.due_drives(tx, now, BATCH)
        found = [runs.find(tx, run_id) for run_id in due]
    sent = [run.id for run in found if run is not None and engine.dispatch.drive(run.id, run.queue, run.priority)]
    if sent:
        with engine.store.begin() as tx:
            run_log.sent_drives(tx, sent, now, engine.settings.resend_after)


def registered_names(alive: list[Worker]) -> set[str]:
    """The workflows and steps that some live process knows."""
    return {name for worker in alive for name in json.loads(worker.names)}


def bury(engine: Engine, *, beating_since: int) -> None:
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
        orphans = steps.held_by_nobody(tx, patience, BATCH)
    silent = [w for w in alive if w.id != engine.process_id and w.beat_at < patience and beating_since <= patience]
    gone = [w for w in alive if is_gone(Identity(w.host, w.boot_id, w.pid, w.pid_started), here)]
    for worker in {w.id: w for w in (*silent, *gone)}.values():
        _bury_one(engine, worker)
    for held in orphans:
        _give_up(engine, held)


def _bury_one(engine: Engine, worker: Worker) -> None:
    with engine.store.read() as tx:
        held = steps.held_by(tx, [worker.id], BATCH)
    if held:
        log.warning("Process %s:%d is gone; %d attempts are given up.", worker.host, worker.pid, len(held))
    for attempt in held:
        _give_up(engine, attempt)
    with engine.store.begin() as tx:
        workers.remove(tx, worker.id)


def _give_up(engine: Engine, held: steps.Held) -> None:
    row = attempts.give_up(engine, held)
    if row is not None:
        engine.dispatch.step(row)
        return
    send_drive(engine, held.run_id)


def release_forgotten(engine: Engine) -> None:
    """Give up this process's claims that it does not run: a commit whose acknowledgement was lost leaves them."""
    before = engine.now() - engine.settings.dead_after
    with engine.store.read() as tx:
        held = steps.held_by(tx, [engine.process_id], BATCH)
    for attempt in held:
        if attempt.claim not in engine.running and attempt.claimed_at < before:
            _give_up(engine, attempt)
