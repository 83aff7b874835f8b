"""
Pause runs, and let them go on.

A paused run has no turns.  ``runs.paused_at`` says so, which a turn reads with the run's row; and the pause moves the
run's fence on, so that a turn which has begun before cannot be committed after it.  No process claims an attempt of its
steps: the pause sets ``steps.paused_at``, and waits for a claim that is being written.  An attempt that is claimed
goes on, and records its outcome; its next attempt waits.

Inbox items of a paused run have no message and no time to send one: the first turn that finds the run paused sees to
that (``park``), so that the sweep does not send turns again and again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import BigInteger, ColumnElement, Connection, case, delete, exists, insert, literal, select, update

from ..events import RunPaused, RunResumed
from . import limit_lines, run_log
from .due_turns import DriveRow
from .limits import NOT_SENT
from .outbox import SendTimes
from .pauses import OF_RUNS, OWN_PAUSE, STEPS, Cause
from .run_limits import HELD
from .runs import Run
from .schema import inbox, paused_runs, run_limits, runs, step_limits, steps
from .transitions import ENDED, StepStatus

#: The most runs that one transaction pauses or resumes.
BATCH = 100


def pause(tx: Connection, run_ids: Collection[str], cause: Cause, reason: str | None, now: int) -> list[str]:
    """
    Pause runs for a cause, and return those that did not have this cause.

    A run that has ended is left out, and one that goes on in spite of this cause because it was cancelled.
    """
    rows = _lock(tx, run_ids)
    known = _with_cause(tx, [row.id for row in rows], cause)
    new = [row for row in rows if not row.ended and row.id not in known]
    if not new:
        return []
    values = [{"run_id": row.id, "paused_at": now, "reason": reason, **cause._asdict()} for row in new]
    tx.execute(insert(paused_runs), values)
    stopped = [row.id for row in new if row.paused_at is None]
    if stopped:
        tx.execute(update(runs).where(runs.c.id.in_(stopped)).values(paused_at=now, turn=runs.c.turn + 1))
        limit_lines.check_runs(tx, stopped, now)
        # All steps at first, which locks them: an attempt that ends at this moment finds that the next one has to wait.
        tx.execute(update(steps).where(steps.c.run_id.in_(stopped)).values(paused_at=now))
        limit_lines.set_aside(tx, stopped)
        pending = (steps.c.run_id.in_(stopped), steps.c.status == StepStatus.PENDING)
        tx.execute(update(steps).where(*pending).values(next_send_at=None, sent_at=None, offered_seq=None))
        tx.execute(update(inbox).where(inbox.c.run_id.in_(stopped)).values(next_send_at=None, sent_at=None))
    paused = RunPaused(at=now, by=cause.text, reason=reason)
    run_log.post_all(tx, [(row.id, paused, NOT_SENT) for row in new])
    return [row.id for row in new]


def resume(tx: Connection, run_ids: Collection[str], cause: Cause, now: int, sending: SendTimes) -> list[DriveRow]:
    """
    End a cause of runs' pauses.

    Args:
        sending: When the messages of their turns are sent.

    Returns:
        What the messages are made from, of the runs that no other cause pauses.  The sweep sends their steps.
    """
    rows = _lock(tx, run_ids)
    ids = [row.id for row in rows]
    is_cause = (paused_runs.c.kind == cause.kind, paused_runs.c.name == cause.name)
    tx.execute(delete(paused_runs).where(paused_runs.c.run_id.in_(run_ids), *is_cause))
    others = (paused_runs.c.run_id.in_(ids), paused_runs.c.kind.in_(OF_RUNS), paused_runs.c.released_at.is_(None))
    paused = set(tx.execute(select(paused_runs.c.run_id).where(*others)).scalars()) if ids else set()
    freed = [row for row in rows if row.paused_at is not None and row.id not in paused]
    return _go_on(tx, freed, now, sending)


def release(tx: Connection, row: Run, now: int, sending: SendTimes) -> None:
    """Let a run go on in spite of whatever pauses it, so that it can be cancelled; its row is locked."""
    mine = paused_runs.c.run_id == row.id
    tx.execute(delete(paused_runs).where(mine, paused_runs.c.kind == OWN_PAUSE.kind))
    tx.execute(update(paused_runs).where(mine, paused_runs.c.kind.in_(OF_RUNS)).values(released_at=now))
    _go_on(tx, [row], now, sending)


def park(tx: Connection, run_id: str) -> None:
    """Have no turn sent for the inbox items of a run, if it is paused."""
    (row,) = _lock(tx, [run_id]) or (None,)
    if row is not None and row.paused_at is not None:
        waiting = (inbox.c.run_id == run_id, inbox.c.next_send_at.is_not(None))
        tx.execute(update(inbox).where(*waiting).values(next_send_at=None, sent_at=None))


def _lock(tx: Connection, run_ids: Collection[str]) -> list[Run]:
    """The runs, their rows locked in the order of their ids; without those that do not exist."""
    if not run_ids:
        return []
    query = select(runs).where(runs.c.id.in_(run_ids)).order_by(runs.c.id).with_for_update()
    return [Run(**row) for row in tx.execute(query).mappings()]


def _with_cause(tx: Connection, run_ids: Sequence[str], cause: Cause) -> set[str]:
    if not run_ids:
        return set()
    mine = (paused_runs.c.run_id.in_(run_ids), paused_runs.c.kind == cause.kind, paused_runs.c.name == cause.name)
    return set(tx.execute(select(paused_runs.c.run_id).where(*mine)).scalars())


def _go_on(tx: Connection, freed: Sequence[Run], now: int, sending: SendTimes) -> list[DriveRow]:
    if not freed:
        return []
    ids = [row.id for row in freed]
    tx.execute(update(runs).where(runs.c.id.in_(ids)).values(paused_at=None))
    send_steps(tx, ids, now)
    run_log.post_all(tx, [(row.id, RunResumed(at=now), NOT_SENT) for row in freed])
    # A run that waits for a limit is sent when it is admitted, and one with a countdown when that is over.
    waiting = select(run_limits.c.run_id).where(run_limits.c.run_id.in_(ids), run_limits.c.state.not_in(HELD))
    in_line = set(tx.execute(waiting).scalars())
    ready = [row for row in freed if row.id not in in_line and (row.not_before or 0) <= now]
    tx.execute(update(inbox).where(inbox.c.run_id.in_([row.id for row in ready])).values(sending.values()))
    for row in freed:
        if row.id not in in_line and row not in ready:
            tx.execute(update(inbox).where(inbox.c.run_id == row.id).values(next_send_at=row.not_before, sent_at=None))
    return [DriveRow(row.id, row.queue, row.priority, trace_context=row.trace_context) for row in ready]


# Steps


def send_steps(tx: Connection, run_ids: Collection[str], now: int, queue: str | None = None) -> None:
    """
    Let the steps of runs begin again; the sweep sends them, those with limits when they are admitted.

    Args:
        queue: Only steps of this queue.
    """
    if not run_ids:
        return
    mine: list[ColumnElement[bool]] = [steps.c.run_id.in_(run_ids), steps.c.paused_at.is_not(None)]
    if queue is not None:
        mine.append(steps.c.queue == queue)
    limit_lines.check_runs(tx, run_ids, now)
    limit_lines.come_back(tx, run_ids, now, *mine)
    has_limits = exists().where(step_limits.c.run_id == steps.c.run_id, step_limits.c.op_id == steps.c.op_id)
    at = case((has_limits, None), else_=literal(now, BigInteger))
    pending = update(steps).where(*mine, steps.c.status == StepStatus.PENDING)
    tx.execute(pending.values(next_send_at=at, sent_at=None, sends=0))
    tx.execute(update(steps).where(*mine).values(paused_at=None))


def hold_step(tx: Connection, run_id: str, op_id: str, attempt: int, queue: str, now: int) -> bool:
    """
    Let a pending attempt wait until its queue is resumed, which the caller has locked; False when it is not pending.

    The run itself goes on.
    """
    mine = (steps.c.run_id == run_id, steps.c.op_id == op_id)
    pending = (steps.c.attempt == attempt, steps.c.status == StepStatus.PENDING)
    limit_lines.check_runs(tx, [run_id], now)
    held = update(steps).where(*mine, *pending)
    values = {"paused_at": now, "queue": queue, "next_send_at": None, "sent_at": None, "offered_seq": None}
    if not tx.execute(held.values(values)).rowcount:
        return False
    limit_lines.set_aside(tx, [run_id], steps.c.op_id == op_id)
    if run_id not in _with_cause(tx, [run_id], Cause(STEPS, queue)):
        tx.execute(insert(paused_runs), {"run_id": run_id, "kind": STEPS, "name": queue, "paused_at": now})
    return True


def resume_steps(tx: Connection, run_ids: Collection[str], queue: str, now: int) -> None:
    """Let the steps of a queue begin that ``hold_step`` has held, unless their run is paused now."""
    rows = _lock(tx, run_ids)
    mine = (paused_runs.c.kind == STEPS, paused_runs.c.name == queue)
    tx.execute(delete(paused_runs).where(paused_runs.c.run_id.in_(run_ids), *mine))
    send_steps(tx, [row.id for row in rows if row.paused_at is None and row.status not in ENDED], now, queue)
