"""
The sweep: finds steps, waits and turns whose message was not sent or is lost, and sends them.

Every row that waits for a message says when its message was sent, and when the sweep checks it next
(``next_send_at``).  A sweep sends the messages of rows that are due, in bounded batches, and sets the next check to a
delay that doubles each time.  ``reap_dead_workers`` gives up the attempts of dead processes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

from sqlalchemy import Connection

from .. import failpoints, measures
from ..attempts import outcome, timeout
from ..broker import GRACE
from ..client import pauses, route_again, run_limits
from ..engine import Engine, ProcessIdentity, identify, is_gone
from ..sandbox import log_records
from ..store import (
    DriveRow,
    DueWork,
    MessageGroup,
    StepRow,
    WaitRow,
    claimed_attempts,
    due_steps,
    due_turns,
    due_work,
    run_calls,
    turn_leases,
    waits,
    workers,
)
from ..turns import KEYS, admit_due
from .lost_messages import LostMessages

#: The most steps, waits and turns that one sweep sends, each.
BATCH = 500

Row = TypeVar("Row", StepRow, WaitRow)

log = log_records.get("durable.sweep")


def find_due(engine: Engine) -> DueWork:
    """Return what may be due now, in one statement."""
    now = engine.now()
    with engine.store.read() as tx:
        return due_work.find(tx, now, deadline=now - timeout.PROCESS_GRACE, claimed=now - engine.settings.dead_after)


def sweep(engine: Engine, due: DueWork | None = None) -> bool:
    """
    Send the steps, waits and turns whose messages were not sent or are lost, and the turns that call handlers again.

    Requests to receivers that wait for a hook are routed, when the hook is open or their time is over.

    Returns whether more are due.

    A step or workflow that no live process has registered is not sent, since Celery throws away messages of
    unknown tasks.  Its row stays as it is, which costs no writes.  The first sweep after the first heartbeat of a
    process that has registered it sends it.

    Args:
        due: What ``find_due`` has just returned; None to ask now.
    """
    due = find_due(engine) if due is None else due
    now = engine.now()
    sent = [0]
    if due.steps or due.waits or due.turns:
        sent += _send_overdue(engine, now)
    if due.calls:
        sent.append(_send_calls(engine, now))
    if due.turn_leases:
        sent.append(_drop_leases(engine, now))
    if due.requests:
        sent.append(route_again.route_waiting(engine, BATCH))
    if due.pauses:
        pauses.go_on_with_pauses(engine)
    admitted = [
        admit_due(engine) if due.step_limits else 0,
        run_limits.admit_due(engine) if due.run_limits else 0,
    ]
    return KEYS in admitted or BATCH in sent


def _send_overdue(engine: Engine, now: int) -> list[int]:
    """Send the messages of steps, waits and turns that were not sent or are lost; return how many of each."""
    with engine.store.read() as tx:
        registered = workers.registered(tx)
        step_groups = due_steps.groups_due(tx, now)
        wait_groups = waits.groups_due(tx, now)
        turn_groups = due_turns.groups_due(tx, now)
    lost = LostMessages(engine, now)
    delay = engine.settings.resend_after
    return [
        _send_steps(engine, now, registered, lost.steps(step_groups, delay), lost.idle(step_groups)),
        _send_waits(engine, now, lost.waits(wait_groups, GRACE)),
        _send_turns(engine, now, registered, lost.turns(turn_groups, delay)),
    ]


def publish_due(engine: Engine, since: int) -> None:
    """Send the steps and waits that became due after *since* and were not sent before."""
    now = engine.now()
    with engine.store.read() as tx:
        registered = workers.registered(tx)
    _send_steps(engine, now, registered, {}, since=since)
    _send_waits(engine, now, {}, since)
    admit_due(engine)
    run_limits.admit_due(engine)


def _send_steps(
    engine: Engine,
    now: int,
    registered: set[str],
    lost_before: Mapping[MessageGroup, int],
    idle: Collection[str] = (),
    since: int = 0,
) -> int:
    with engine.store.read() as tx:
        due = due_steps.due(tx, now, registered, BATCH, lost_before=lost_before, idle=idle, since=since)
    due = _sendable(engine, now, due, attrgetter("not_before"), None if since else due_steps.postpone)
    sent = due[: engine.dispatch.send_steps(due)]
    if sent:
        _count_resent(engine, "step", sent)
        failpoints.hit("sweep.sent")
        engine.store.write(lambda tx: due_steps.sent(tx, sent, engine.now(), engine.settings.resend_after))
    return len(sent)


def _send_waits(engine: Engine, now: int, lost_before: Mapping[MessageGroup, int], since: int = 0) -> int:
    with engine.store.read() as tx:
        due = waits.due(tx, now, BATCH, lost_before=lost_before, since=since)
    due = _sendable(engine, now, due, attrgetter("due_at"), None if since else waits.postpone)
    sent = due[: engine.dispatch.send_wakes(due)]
    if sent:
        _count_resent(engine, "timer", sent)
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
    The rows to send now: those that are due, and those whose messages may wait in workers until they are.

    Args:
        postpone: Sets when the sweep checks the other rows; None to leave them, and take only those that are due.
    """
    later = [row for row in rows if due_at(row) > now]
    if not later or postpone is None:
        return [row for row in rows if due_at(row) <= now]
    with engine.store.read() as tx:
        room = engine.dispatch.eta_budget.room(tx, now)
    held = [row for row in later if engine.dispatch.may_hold(due_at(row) - now)][:room]
    postponed = set(later).difference(held)
    if postponed:
        engine.store.write(lambda tx: postpone(tx, postponed))
    return [row for row in rows if row not in postponed]


def _send_turns(engine: Engine, now: int, registered: set[str], lost_before: Mapping[MessageGroup, int]) -> int:
    with engine.store.read() as tx:
        due = due_turns.due_drives(tx, now, registered, BATCH, lost_before=lost_before)
    sent = due[: engine.dispatch.send_turns(due)]
    if sent:
        _count_resent(engine, "turn", sent)
        failpoints.hit("sweep.sent")
        ids = [row.run_id for row in sent]
        engine.store.write(lambda tx: due_turns.sent_drives(tx, ids, engine.now(), engine.settings.resend_after))
    return len(sent)


def _send_calls(engine: Engine, now: int) -> int:
    """Send a turn to the runs for which a crash has left a call of the application's handlers."""
    with engine.store.read() as tx:
        due = run_calls.due(tx, now, BATCH)
    if due:
        engine.send_turns(*due)
        engine.store.write(lambda tx: run_calls.sent(tx, due, engine.now(), engine.settings.resend_after))
    return len(due)


def _drop_leases(engine: Engine, now: int) -> int:
    """Send a turn to the runs whose lease has expired: other processes have left outcomes to a holder that is gone."""
    with engine.store.read() as tx:
        if not turn_leases.has_expired(tx, now):
            return 0
    run_ids = engine.store.write(lambda tx: turn_leases.drop_expired(tx, now))
    engine.send_turns(*run_ids)
    return len(run_ids)


def _count_resent(engine: Engine, kind: str, sent: Sequence[StepRow | WaitRow | DriveRow]) -> None:
    """Count the messages that were sent again.  What was never sent, or not before it was due, is not lost."""
    resent = sum(row.is_lost for row in sent)
    if resent:
        engine.measures.count(measures.MESSAGES_LOST, kind, by=resent)
        engine.measures.count(measures.MESSAGES_RESENT, kind, by=resent)


def reap_dead_workers(engine: Engine, *, beating_since: int, has_orphans: bool = True) -> None:
    """
    Give up the attempts of processes that have ended.

    A process is dead when it ran on this host and has ended, or when its last heartbeat is older than
    ``dead_after``.  Only time in which our own heartbeats succeeded counts: while the database is away, no process
    can send heartbeats.

    Args:
        beating_since: Since when our own heartbeats have succeeded without a gap, by the database's clock.
        has_orphans: Whether there may be attempts of processes that have no row.
    """
    now = engine.now()
    this_process = identify()
    dead_before = now - engine.settings.dead_after
    with engine.store.read() as tx:
        alive = workers.last_beats(tx)
        orphans = claimed_attempts.of_unknown_workers(tx, dead_before, BATCH) if has_orphans else []
    ended = {w.id for w in alive if is_gone(ProcessIdentity(w.host, w.boot_id, w.pid, w.pid_started), this_process)}
    for worker in alive:
        if worker.id in ended:
            _reap(engine, worker, spared_since=None)
        elif worker.id != engine.process_id and worker.beat_at < dead_before and beating_since <= dead_before:
            _reap(engine, worker, spared_since=dead_before)
    for held in orphans:
        outcome.give_up_and_send(engine, held)


def _reap(engine: Engine, worker: workers.LastBeat, *, spared_since: int | None) -> None:
    """
    Give up the attempts of a process, and remove it.

    Args:
        spared_since: An attempt that has called ``heartbeat`` since then goes on; None for a process that has ended.
    """
    with engine.store.read() as tx:
        running = claimed_attempts.of_workers(tx, [worker.id], BATCH)
    held = [a for a in running if spared_since is None or (a.heartbeat_at or 0) < spared_since]
    if held:
        log.warning("Process %s:%d is gone; %d attempts are given up.", worker.host, worker.pid, len(held))
    for attempt in held:
        outcome.give_up_and_send(engine, attempt)
    if len(held) < len(running):
        return
    with engine.store.begin() as tx:
        workers.remove(tx, worker.id)
        leased = turn_leases.drop_of(tx, worker.id)
    engine.send_turns(*leased)


def release_forgotten(engine: Engine) -> None:
    """Give up claims of this process that it does not run, as a commit whose acknowledgement was lost leaves."""
    before = engine.now() - engine.settings.dead_after
    with engine.store.read() as tx:
        held = claimed_attempts.of_workers(tx, [engine.process_id], BATCH)
    for attempt in held:
        if attempt.claim not in engine.running and attempt.claimed_at < before:
            outcome.give_up_and_send(engine, attempt)
