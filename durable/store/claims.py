"""Claims: an attempt taken by a process, its signs of life, and whether it is still that process's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select, update

from .. import vault
from ..schema import events, runs, steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """An attempt that this process runs, and what it needs for it; large values are references."""

    claim: str
    run_id: str
    op_id: str
    name: str
    attempt: int
    started_at: int
    claimed_at: int
    args: str
    run_name: str
    run_started_at: int
    #: The number of the run's turn when the attempt was claimed.
    run_turn: int
    semantics: str | None = None
    deadline_at: int | None = None
    heartbeat: str | None = None
    #: Of one that no message carried: the queue from which it would have come.
    queue: str | None = None


def claim(
    tx: Connection,
    run_id: str,
    op_id: str,
    attempt: int,
    *,
    by: str,
    worker_id: str,
    message_id: str | None,
    now: Any,
    semantics: str | None = None,
    timeout: int | None = None,
) -> Claim | None:
    """
    Take an attempt that is due; None when there is nothing to take.  Again with the same *by*: the same claim.

    Args:
        now: The database's clock, as SQL.
        semantics: How the attempt is delivered: whoever gives it up need not know the step.
        timeout: How long it may take, in microseconds.
    """
    taken = tx.execute(
        update(steps)
        .where(
            steps.c.run_id == run_id,
            steps.c.op_id == op_id,
            steps.c.attempt == attempt,
            steps.c.status == "pending",
            steps.c.not_before <= now,
        )
        .values(
            status="claimed",
            claim=by,
            worker_id=worker_id,
            message_id=message_id,
            claimed_at=now,
            started_at=func.coalesce(steps.c.started_at, now),
            semantics=semantics,
            deadline_at=None if timeout is None else now + timeout,
            heartbeat_at=None,
            next_send_at=None,
        )
    )
    return _claimed(tx, run_id, op_id) if taken.rowcount == 1 or _holder(tx, run_id, op_id) == by else None


def _holder(tx: Connection, run_id: str, op_id: str) -> str | None:
    """The claim that holds a step now."""
    return tx.execute(
        select(steps.c.claim).where(steps.c.run_id == run_id, steps.c.op_id == op_id)
    ).scalar_one_or_none()


def not_before(tx: Connection, run_id: str, op_id: str, attempt: int) -> int | None:
    """When a pending attempt may start."""
    return tx.execute(
        select(steps.c.not_before).where(
            steps.c.run_id == run_id,
            steps.c.op_id == op_id,
            steps.c.attempt == attempt,
            steps.c.status == "pending",
        )
    ).scalar_one_or_none()


def _claimed(tx: Connection, run_id: str, op_id: str) -> Claim:
    row = (
        tx.execute(
            select(
                steps.c.claim,
                steps.c.run_id,
                steps.c.op_id,
                steps.c.name,
                steps.c.attempt,
                steps.c.started_at,
                steps.c.claimed_at,
                steps.c.semantics,
                steps.c.deadline_at,
                steps.c.heartbeat,
                events.c.value.label("args"),
                runs.c.name.label("run_name"),
                func.coalesce(runs.c.started_at, runs.c.created_at).label("run_started_at"),
                runs.c.turn.label("run_turn"),
            )
            .join(events, (events.c.run_id == steps.c.run_id) & (events.c.op_id == steps.c.op_id))
            .join(runs, runs.c.id == steps.c.run_id)
            .where(steps.c.run_id == run_id, steps.c.op_id == op_id, events.c.phase == "created")
        )
        .mappings()
        .one()
    )
    kept = vault.of(tx)
    args = kept.unseal(run_id, op_id, row["args"])
    return Claim(**{**row, "args": args, "heartbeat": kept.unseal(run_id, _heartbeat(op_id), row["heartbeat"])})


def is_held(tx: Connection, held: Claim) -> bool:
    """Whether the attempt is still this one's; keeps it from being given up until the transaction ends."""
    row = tx.execute(select(steps.c.attempt).where(*_mine(held)).with_for_update()).one_or_none()
    return row is not None


def is_wanted(tx: Connection, held: Claim) -> bool:
    """Whether the call that this attempt is for still waits for an outcome."""
    given_up = tx.execute(
        select(steps.c.cancelled).where(steps.c.run_id == held.run_id, steps.c.op_id == held.op_id)
    ).scalar_one_or_none()
    return given_up is False


def heartbeat(tx: Connection, held: Claim, details: str, now: Any, timeout: int | None) -> bool:
    """
    Keep what an attempt says of itself, and let it go on for *timeout* from now; False when it was given up.

    Without a *timeout* its deadline, if it has one, stays where it is.
    """
    details = vault.of(tx).seal(tx, held.run_id, _heartbeat(held.op_id), details) or ""
    extended = {} if timeout is None else {"deadline_at": now + timeout}
    beaten = tx.execute(update(steps).where(*_mine(held)).values(heartbeat=details, heartbeat_at=now, **extended))
    return beaten.rowcount == 1


def _heartbeat(op_id: str) -> str:
    return f"{op_id} heartbeat"


def _mine(held: Claim) -> tuple[Any, ...]:
    return steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim
