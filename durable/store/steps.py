"""Steps to run: a row from the call of a step until its outcome is in the inbox."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from .claims import Claim
from .outbox import Kind, SendTimes, growing, later, these, unsent_or_lost
from .schema import events, runs, steps, workers


@dataclass(frozen=True, slots=True)
class StepRow:
    """What a message about a step is made from."""

    run_id: str
    op_id: str
    name: str
    attempt: int
    not_before: int
    queue: str | None
    priority: int | None
    #: Whether no message is sent before it is due.
    is_deferred: bool = False


@dataclass(frozen=True, slots=True)
class ClaimedAttempt:
    """A claimed attempt, and the process that claimed it (host None: its row is gone)."""

    run_id: str
    op_id: str
    name: str
    attempt: int
    claim: str
    claimed_at: int
    worker_id: str
    host: str | None
    boot_id: str | None
    pid: int | None
    pid_started: int | None
    semantics: str | None = None
    heartbeat_at: int | None = None


def create(tx: Connection, rows: Sequence[dict[str, Any]], sending: SendTimes) -> None:
    """Insert first attempts, each ``{run_id, op_id, name, not_before, queue}``."""
    if rows:
        common = {"attempt": 1, "status": "pending", "cancelled": False, **sending.values()}
        tx.execute(insert(steps), [common | row for row in rows])


def create_claimed(tx: Connection, held: Claim, worker_id: str) -> None:
    """Insert a first attempt that its process runs at once: nothing is sent for it."""
    row = {"run_id": held.run_id, "op_id": held.op_id, "name": held.name, "attempt": held.attempt}
    row |= {"status": "claimed", "claim": held.claim, "claimed_at": held.claimed_at, "started_at": held.started_at}
    row |= {"worker_id": worker_id, "message_id": None, "semantics": held.semantics, "queue": held.queue}
    tx.execute(insert(steps), row | {"not_before": 0, "cancelled": False, "sends": 0})


def end(tx: Connection, held: Claim | ClaimedAttempt) -> bool:
    """Take the attempt off the list; False when it was given up before: its outcome counts for nothing."""
    gone = tx.execute(
        delete(steps).where(steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim)
    )
    return gone.rowcount == 1


def interruptions(tx: Connection, held: Claim | ClaimedAttempt) -> int:
    """How often the attempt was interrupted by the end of a process, and handed back."""
    mine = (steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim)
    return tx.execute(select(steps.c.interruptions).where(*mine)).scalar_one_or_none() or 0


def again(
    tx: Connection,
    held: Claim | ClaimedAttempt,
    *,
    counted: bool,
    not_before: int,
    sending: SendTimes,
    interruptions: int | None = None,
) -> bool:
    """
    Make the attempt pending again, as the next one if *counted*.

    False when it was given up before, or its call was: nothing more runs for that.

    Args:
        interruptions: How often the attempt has been interrupted by now.
    """
    changed = tx.execute(
        update(steps)
        .where(
            steps.c.run_id == held.run_id,
            steps.c.op_id == held.op_id,
            steps.c.claim == held.claim,
            ~steps.c.cancelled,
        )
        .values(
            status="pending",
            attempt=held.attempt + (1 if counted else 0),
            claim=None,
            worker_id=None,
            message_id=None,
            claimed_at=None,
            semantics=None,
            doubt=None,
            deadline_at=None,
            interruptions=interruptions,
            not_before=not_before,
            **sending.values(),
        )
    )
    return changed.rowcount == 1


def withdraw(tx: Connection, run_id: str, op_ids: Collection[str] | None = None) -> list[str]:
    """
    Nobody wants these outcomes, or any of the run's: mark what runs, drop what is not claimed, or in doubt.

    Marking comes first, and locks the rows: an attempt that fails meanwhile is not made pending again.

    Returns:
        The operations that were dropped.
    """
    mine = (steps.c.run_id == run_id, *([] if op_ids is None else [steps.c.op_id.in_(op_ids)]))
    if op_ids is not None and not op_ids:
        return []
    tx.execute(update(steps).where(*mine).values(cancelled=True))
    unclaimed = (*mine, steps.c.status != "claimed")
    dropped = list(tx.execute(select(steps.c.op_id).where(*unclaimed).order_by(steps.c.op_id)).scalars())
    if dropped:
        tx.execute(delete(steps).where(*unclaimed))
    return dropped


def given_up(tx: Connection, worker_id: str) -> list[str]:
    """The claims of a process whose calls were given up."""
    query = select(steps.c.claim).where(steps.c.worker_id == worker_id, steps.c.cancelled)
    return list(tx.execute(query).scalars())


_ROW = select(
    steps.c.run_id,
    steps.c.op_id,
    steps.c.name,
    steps.c.attempt,
    steps.c.not_before,
    runs.c.queue,
    runs.c.priority,
).join(runs, runs.c.id == steps.c.run_id)


def groups_due(tx: Connection, now: int) -> list[Kind]:
    """The queues and the names of the attempts that the sweep should look at now."""
    query = select(steps.c.queue, steps.c.name).where(steps.c.next_send_at <= now).distinct()
    return [(row.queue, row.name) for row in tx.execute(query)]


def due(
    tx: Connection,
    now: int,
    names: Collection[str],
    limit: int,
    *,
    lost_before: Mapping[Kind, int],
    since: int = 0,
) -> list[StepRow]:
    """
    Attempts of steps of these names to send (again), which should not before *since*; longest overdue first.

    Args:
        lost_before: By queue and name, as ``sending.unsent_or_lost`` takes it.
    """
    overdue = (steps.c.next_send_at <= now, steps.c.next_send_at > since, steps.c.name.in_(names))
    lost = unsent_or_lost(steps.c.sent_at, steps.c.queue, steps.c.name, lost_before)
    query = _ROW.where(*overdue, lost).order_by(steps.c.next_send_at).limit(limit)
    return [StepRow(*row) for row in tx.execute(query)]


def sent(tx: Connection, rows: Collection[StepRow], now: int, delay: int) -> None:
    """Look again at steps that were sent, after a delay that grows."""
    sent_at = later(now, steps.c.not_before)
    tx.execute(
        update(steps)
        .where(these(steps, rows), steps.c.next_send_at <= now)
        .values(next_send_at=sent_at + growing(steps.c.sends, delay), sent_at=sent_at, sends=steps.c.sends + 1)
    )


def still_sending(tx: Connection, run_id: str, now: int, patience: int) -> None:
    """The run's steps are being sent, and it takes long: those that count as sent and are not begun were sent now."""
    mine = (steps.c.run_id == run_id, steps.c.status == "pending", steps.c.sent_at < now, steps.c.sends == 0)
    soon = (steps.c.next_send_at > now - patience, steps.c.next_send_at <= now + patience)
    tx.execute(update(steps).where(*mine, *soon).values(next_send_at=now + patience, sent_at=now))


def postpone(tx: Connection, rows: Collection[StepRow]) -> None:
    """Send none of these before they are due: then they are looked at again."""
    mine = (these(steps, rows), steps.c.sent_at.is_(None), steps.c.next_send_at.is_not(None))
    tx.execute(update(steps).where(*mine).values(next_send_at=steps.c.not_before))


_HELD = select(
    steps.c.run_id,
    steps.c.op_id,
    steps.c.name,
    steps.c.attempt,
    steps.c.claim,
    steps.c.claimed_at,
    steps.c.worker_id,
    workers.c.host,
    workers.c.boot_id,
    workers.c.pid,
    workers.c.pid_started,
    steps.c.semantics,
    steps.c.heartbeat_at,
).outerjoin(workers, workers.c.id == steps.c.worker_id)


@dataclass(frozen=True, slots=True)
class StepState:
    """How it stands with a step: who runs it since when, or since when it waits to be run."""

    op_id: str
    name: str
    attempt: int
    status: str
    called_at: int
    not_before: int
    claimed_at: int | None
    host: str | None
    pid: int | None


def of_run(tx: Connection, run_id: str, limit: int) -> list[StepState]:
    """The run's steps that have no outcome yet, in the order of their calls."""
    query = (
        select(
            steps.c.op_id,
            steps.c.name,
            steps.c.attempt,
            steps.c.status,
            events.c.at,
            steps.c.not_before,
            steps.c.claimed_at,
            workers.c.host,
            workers.c.pid,
        )
        .join(events, (events.c.run_id == steps.c.run_id) & (events.c.op_id == steps.c.op_id))
        .outerjoin(workers, workers.c.id == steps.c.worker_id)
        .where(steps.c.run_id == run_id, events.c.phase == "created")
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [StepState(*row) for row in tx.execute(query)]


def held(tx: Connection, run_id: str, op_id: str) -> ClaimedAttempt | None:
    """Who runs this step now, if anybody does."""
    row = tx.execute(
        _HELD.where(steps.c.run_id == run_id, steps.c.op_id == op_id, steps.c.status == "claimed")
    ).one_or_none()
    return None if row is None else ClaimedAttempt(*row)


def held_in(tx: Connection, run_id: str, limit: int) -> list[ClaimedAttempt]:
    """Who runs what of a run now."""
    query = _HELD.where(steps.c.run_id == run_id, steps.c.status == "claimed").limit(limit)
    return [ClaimedAttempt(*row) for row in tx.execute(query)]


def held_by(tx: Connection, worker_ids: Collection[str], limit: int) -> list[ClaimedAttempt]:
    """What these processes run."""
    query = _HELD.where(steps.c.worker_id.in_(worker_ids), steps.c.status == "claimed").limit(limit)
    return [ClaimedAttempt(*row) for row in tx.execute(query)]


def held_by_nobody(tx: Connection, before: int, limit: int) -> list[ClaimedAttempt]:
    """What processes without a row have run since *before*: they were buried, or went without a word."""
    query = _HELD.where(
        steps.c.status == "claimed",
        # Any, in words in which SQLite too looks into the index.
        steps.c.worker_id > "",
        steps.c.claimed_at < before,
        (steps.c.heartbeat_at < before) | steps.c.heartbeat_at.is_(None),
        workers.c.id.is_(None),
    )
    return [ClaimedAttempt(*row) for row in tx.execute(query.limit(limit))]


def held_past(tx: Connection, moment: int, limit: int) -> list[ClaimedAttempt]:
    """Attempts that had to be over before *moment*, and are not."""
    query = _HELD.where(steps.c.deadline_at < moment, steps.c.status == "claimed")
    return [ClaimedAttempt(*row) for row in tx.execute(query.order_by(steps.c.deadline_at).limit(limit))]
