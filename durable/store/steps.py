"""Rows of steps: a row exists from the call of a step until its outcome is in the run's inbox."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, case, delete, func, insert, literal, select, text, update

from ..codec import EXAMINED_LENGTH
from . import limit_lines
from .claimed_attempts import ClaimedAttempt
from .claims import Claim
from .outbox import SendTimes
from .schema import events, runs, steps, workers
from .statements import Prepared, array
from .transitions import StepStatus


@dataclass(frozen=True, slots=True)
class StepRow:
    """What the message for an attempt is made from."""

    run_id: str
    op_id: str
    name: str
    attempt: int
    not_before: int
    queue: str | None
    priority: int | None
    #: Whether only the sweep sends the message, once it is due.
    is_deferred: bool = False
    #: Whether a message was sent before and is lost.
    is_lost: bool = False
    #: The encoded arguments, for Celery's tools; None where they are too long to be shown.
    args: str | None = None
    trace_context: str | None = None
    #: Whether other steps of the run may be offered: the process that takes the message takes those too.
    has_offers: bool = False
    #: The step's queue, as the process knew it that wrote the row; for processes that do not know the step.
    step_queue: str | None = None


_ROW_TYPES = {"run_id": "text", "op_id": "text", "name": "text", "not_before": "bigint", "queue": "text"}
_ROW_TYPES |= {"offered_seq": "bigint"}


def insert_first_attempts(source: str | None = None) -> str:
    """SQL for PostgreSQL: an INSERT of the rows of ``first_attempt_parameters``, if *source* has a row."""
    rows = ", ".join(f"CAST(:made_{name} AS {kind}[])" for name, kind in _ROW_TYPES.items())
    return (
        f"INSERT INTO durable_steps ({', '.join(_ROW_TYPES)}, attempt, status, cancelled, next_send_at, sent_at, sends)"
        f" SELECT made.*, 1, '{StepStatus.PENDING}', false, CAST(:made_next_send_at AS bigint),"
        f" CAST(:made_sent_at AS bigint), 0 FROM {f'{source}, ' if source else ''}unnest({rows}) AS made"
    )


def first_attempt_parameters(rows: Sequence[dict[str, Any]], sending: SendTimes) -> dict[str, Any]:
    """The parameters of ``insert_first_attempts``."""
    columns = {f"made_{name}": array(row[name] for row in rows) for name in _ROW_TYPES}
    return columns | {"made_next_send_at": sending.next_send_at, "made_sent_at": sending.sent_at}


_FIRST_ATTEMPTS = Prepared(text(insert_first_attempts()))


def create(tx: Connection, rows: Sequence[dict[str, Any]], sending: SendTimes) -> None:
    """Insert first attempts; each row is ``{run_id, op_id, name, not_before, queue, offered_seq}``."""
    if rows and tx.dialect.name == "postgresql":
        _FIRST_ATTEMPTS.changed(tx, first_attempt_parameters(rows, sending))
    elif rows:
        common = {"attempt": 1, "status": StepStatus.PENDING, "cancelled": False, **sending.values()}
        tx.execute(insert(steps), [common | row for row in rows])


def create_claimed(tx: Connection, held: Claim, worker_id: str) -> None:
    """Insert a first attempt that the turn's own process runs at once, without a message."""
    row = {"run_id": held.run_id, "op_id": held.op_id, "name": held.name, "attempt": held.attempt}
    row |= {
        "status": StepStatus.CLAIMED,
        "claim": held.claim,
        "claimed_at": held.claimed_at,
        "started_at": held.started_at,
    }
    row |= {"worker_id": worker_id, "message_id": None, "semantics": held.semantics, "queue": held.queue}
    tx.execute(insert(steps), row | {"not_before": 0, "cancelled": False, "sends": 0})


def end(tx: Connection, held: Claim | ClaimedAttempt) -> bool:
    """Delete the attempt's row; False when the attempt was given up, so that its outcome must not be recorded."""
    return _END.changed(tx, {"run": held.run_id, "op": held.op_id, "claim": held.claim}) == 1


_END = Prepared(text("DELETE FROM durable_steps WHERE run_id = :run AND op_id = :op AND claim = :claim"))


def interruptions(tx: Connection, held: Claim | ClaimedAttempt) -> int:
    """How often a process has stopped in the middle of the attempt and released it."""
    mine = (steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim)
    return tx.execute(select(steps.c.interruptions).where(*mine)).scalar_one_or_none() or 0


def make_pending(
    tx: Connection,
    held: Claim | ClaimedAttempt,
    *,
    counted: bool,
    not_before: int,
    sending: SendTimes,
    interruptions: int | None = None,
) -> bool:
    """
    Make the step pending again, for another process to claim.

    Args:
        counted: Whether it becomes the next attempt; otherwise the same attempt is repeated.
        interruptions: How often the attempt has been interrupted so far.

    Returns:
        False when the attempt was given up, or the workflow has cancelled the call.
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
            status=StepStatus.PENDING,
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
            # The resume of a paused step sets when it is sent.
            next_send_at=_unless_paused(sending.next_send_at),
            sent_at=_unless_paused(sending.sent_at),
            sends=0,
        )
    )
    if changed.rowcount == 1:
        # Of a paused step, the slots are free for others.
        mine = (steps.c.op_id == held.op_id, steps.c.paused_at.is_not(None))
        limit_lines.set_aside(tx, [held.run_id], *mine)
    return changed.rowcount == 1


def _unless_paused(at: int | None) -> Any:
    return case((steps.c.paused_at.is_(None), literal(at, BigInteger)))


def withdraw(tx: Connection, run_id: str, op_ids: Collection[str] | None = None) -> list[str]:
    """
    Cancel the calls of these steps, or of all steps of the run.

    Claimed attempts are marked, the others deleted.  Marking comes first because it locks the rows: an attempt that
    fails at the same time is not made pending again.

    Returns:
        The operations whose rows were deleted.
    """
    if op_ids is not None and not op_ids:
        return []
    mine = (steps.c.run_id == run_id, *([] if op_ids is None else [steps.c.op_id.in_(op_ids)]))
    tx.execute(update(steps).where(*mine).values(cancelled=True))
    unclaimed = (*mine, steps.c.status != StepStatus.CLAIMED)
    deleted = list(tx.execute(select(steps.c.op_id).where(*unclaimed).order_by(steps.c.op_id)).scalars())
    if deleted:
        tx.execute(delete(steps).where(*unclaimed))
    return deleted


def cancelled_claims(tx: Connection, worker_id: str) -> list[str]:
    """The claims of a process whose calls the workflow has cancelled."""
    query = select(steps.c.claim).where(steps.c.worker_id == worker_id, steps.c.cancelled)
    return list(tx.execute(query).scalars())


#: A step's encoded arguments as they are stored; NULL when they are too long to be shown.
_ARGUMENTS = select(events.c.value).where(
    events.c.run_id == steps.c.run_id,
    events.c.op_id == steps.c.op_id,
    events.c.phase == "created",
    func.length(events.c.value) <= EXAMINED_LENGTH,
)
#: The query whose rows are those of ``StepRow``.
ROW = select(
    steps.c.run_id,
    steps.c.op_id,
    steps.c.name,
    steps.c.attempt,
    steps.c.not_before,
    runs.c.queue,
    runs.c.priority,
    runs.c.trace_context,
    _ARGUMENTS.correlate(steps).scalar_subquery().label("args"),
    steps.c.queue.label("step_queue"),
).join(runs, runs.c.id == steps.c.run_id)


def pending(tx: Connection, run_id: str, op_id: str, attempt: int) -> StepRow | None:
    """The attempt, if no process has claimed it."""
    mine = (steps.c.run_id == run_id, steps.c.op_id == op_id, steps.c.attempt == attempt)
    row = tx.execute(ROW.where(*mine, steps.c.status == StepStatus.PENDING)).mappings().one_or_none()
    return None if row is None else StepRow(**row)


def set_send_times(tx: Connection, row: StepRow, sending: SendTimes) -> None:
    """Record when the message of an attempt that nobody has claimed is sent, and when the sweep checks it."""
    mine = (steps.c.run_id == row.run_id, steps.c.op_id == row.op_id, steps.c.attempt == row.attempt)
    times = {"next_send_at": sending.next_send_at, "sent_at": sending.sent_at, "offered_seq": None}
    tx.execute(update(steps).where(*mine, steps.c.status == StepStatus.PENDING).values(times))


def refresh_send_times(tx: Connection, run_id: str, now: int, delay: int) -> None:
    """
    Set the send time of the run's unclaimed steps to *now*.

    A turn that sends many messages calls this while it sends, so that the sweep does not take the last ones for lost.
    """
    mine = (steps.c.run_id == run_id, steps.c.status == StepStatus.PENDING, steps.c.sent_at < now, steps.c.sends == 0)
    soon = (steps.c.next_send_at > now - delay, steps.c.next_send_at <= now + delay)
    tx.execute(update(steps).where(*mine, *soon).values(next_send_at=now + delay, sent_at=now))


def arguments(tx: Connection, run_id: str, op_id: str) -> str | None:
    """The encoded arguments of a step as they are stored; None when they are too long to be shown."""
    mine = (steps.c.run_id == run_id, steps.c.op_id == op_id)
    return tx.execute(_ARGUMENTS.where(*mine)).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class StepState:
    """A step without an outcome, and the process that runs it, if one does."""

    op_id: str
    name: str
    attempt: int
    status: str
    called_at: int
    not_before: int
    claimed_at: int | None
    host: str | None
    pid: int | None
    paused_at: int | None


def of_run(tx: Connection, run_id: str, limit: int) -> list[StepState]:
    """The run's steps without an outcome, in the order of their calls."""
    query = (
        select(
            steps.c.op_id,
            steps.c.name,
            steps.c.attempt,
            steps.c.status,
            events.c.at.label("called_at"),
            steps.c.not_before,
            steps.c.claimed_at,
            workers.c.host,
            workers.c.pid,
            steps.c.paused_at,
        )
        .join(events, (events.c.run_id == steps.c.run_id) & (events.c.op_id == steps.c.op_id))
        .outerjoin(workers, workers.c.id == steps.c.worker_id)
        .where(steps.c.run_id == run_id, events.c.phase == "created")
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [StepState(**row) for row in tx.execute(query).mappings()]
