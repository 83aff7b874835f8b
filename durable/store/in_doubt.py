"""
Steps in doubt: it is unknown whether an attempt of an at-most-once step did its work.

durable never repeats such an attempt.  It blocks the run until an operator, or the attempt's own process, says what
happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from .claimed_attempts import ClaimedAttempt
from .claims import Claim
from .runs import Run
from .schema import runs, steps
from .transitions import RunStatus, StepStatus


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A step in doubt; ``why`` explains it to the operator who resolves it."""

    run_id: str
    op_id: str
    name: str
    attempt: int
    claim: str
    claimed_at: int
    why: str


_IN_DOUBT = select(
    steps.c.run_id, steps.c.op_id, steps.c.name, steps.c.attempt, steps.c.claim, steps.c.claimed_at, steps.c.doubt
)


def enter(tx: Connection, held: Claim | ClaimedAttempt, why: str) -> bool:
    """Put a claimed attempt in doubt; False when it was given up, or its call was cancelled."""
    changed = tx.execute(
        update(steps)
        .where(
            steps.c.run_id == held.run_id,
            steps.c.op_id == held.op_id,
            steps.c.claim == held.claim,
            steps.c.status == StepStatus.CLAIMED,
            ~steps.c.cancelled,
        )
        .values(status=StepStatus.IN_DOUBT, doubt=why, deadline_at=None)
    )
    return changed.rowcount == 1


def is_in_doubt(tx: Connection, held: Claim | ClaimedAttempt) -> bool:
    """Whether this attempt is in doubt."""
    found = select(steps.c.claim).where(
        steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.status == StepStatus.IN_DOUBT
    )
    return tx.execute(found).scalar_one_or_none() == held.claim


def leave(tx: Connection, step: InDoubt) -> bool:
    """Delete the step's row; False when it has been resolved meanwhile."""
    deleted = tx.execute(
        delete(steps).where(
            steps.c.run_id == step.run_id,
            steps.c.op_id == step.op_id,
            steps.c.claim == step.claim,
            steps.c.status == StepStatus.IN_DOUBT,
        )
    )
    return deleted.rowcount == 1


def of_run(tx: Connection, run_id: str) -> list[InDoubt]:
    """The run's steps in doubt."""
    query = _IN_DOUBT.where(steps.c.run_id == run_id, steps.c.status == StepStatus.IN_DOUBT).order_by(steps.c.op_id)
    return [InDoubt(*row) for row in tx.execute(query)]


def has_any(tx: Connection, run_id: str) -> bool:
    """Whether any step of the run is in doubt."""
    found = select(steps.c.op_id).where(steps.c.run_id == run_id, steps.c.status == StepStatus.IN_DOUBT).limit(1)
    return tx.execute(found).first() is not None


def oldest(tx: Connection, limit: int) -> list[InDoubt]:
    """Steps in doubt over all runs, those of the oldest runs first."""
    query = _IN_DOUBT.join(runs, runs.c.id == steps.c.run_id).where(
        runs.c.status == RunStatus.BLOCKED, steps.c.status == StepStatus.IN_DOUBT
    )
    return [InDoubt(*row) for row in tx.execute(query.order_by(runs.c.created_at).limit(limit))]


def block(tx: Connection, run_id: str, in_doubt: Sequence[InDoubt]) -> None:
    """Block the run if steps are in doubt, else unblock it; a turn that is under way fails at its fence."""
    reason = "\n".join(step.why for step in in_doubt)
    changes: dict[str, Any] = (
        {"status": RunStatus.BLOCKED, "blocked": reason} if in_doubt else {"status": RunStatus.RUNNING, "blocked": None}
    )
    changes |= {"blocked_version": None, "mistake_at": None}
    tx.execute(update(runs).where(runs.c.id == run_id).values(turn=runs.c.turn + 1, **changes))


def unblock_if_resolved(tx: Connection, run: Run | None) -> None:
    """After an outcome was recorded: unblock a run whose steps are no longer in doubt.  None does nothing."""
    if run is not None and run.status == RunStatus.BLOCKED:
        block(tx, run.id, of_run(tx, run.id))
