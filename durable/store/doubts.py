"""Attempts in doubt: nobody knows what became of them, and they are never repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update

from .claims import Claim
from .runs import Run
from .schema import runs, steps
from .steps import ClaimedAttempt


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A step in doubt; ``why`` is a sentence for whoever has to resolve it."""

    run_id: str
    op_id: str
    name: str
    attempt: int
    claim: str
    claimed_at: int
    why: str


_DOUBTS = select(
    steps.c.run_id, steps.c.op_id, steps.c.name, steps.c.attempt, steps.c.claim, steps.c.claimed_at, steps.c.doubt
)


def enter(tx: Connection, held: Claim | ClaimedAttempt, why: str) -> bool:
    """Put a claimed attempt in doubt; False when it is not held any more, or its call was given up."""
    changed = tx.execute(
        update(steps)
        .where(
            steps.c.run_id == held.run_id,
            steps.c.op_id == held.op_id,
            steps.c.claim == held.claim,
            steps.c.status == "claimed",
            ~steps.c.cancelled,
        )
        .values(status="in_doubt", doubt=why, deadline_at=None)
    )
    return changed.rowcount == 1


def is_in_doubt(tx: Connection, held: Claim | ClaimedAttempt) -> bool:
    """Whether this very attempt is."""
    found = select(steps.c.claim).where(
        steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.status == "in_doubt"
    )
    return tx.execute(found).scalar_one_or_none() == held.claim


def leave(tx: Connection, doubt: InDoubt) -> bool:
    """Take a step off the list; False when somebody else has resolved it."""
    gone = tx.execute(
        delete(steps).where(
            steps.c.run_id == doubt.run_id,
            steps.c.op_id == doubt.op_id,
            steps.c.claim == doubt.claim,
            steps.c.status == "in_doubt",
        )
    )
    return gone.rowcount == 1


def of_run(tx: Connection, run_id: str) -> list[InDoubt]:
    """The run's steps in doubt."""
    query = _DOUBTS.where(steps.c.run_id == run_id, steps.c.status == "in_doubt").order_by(steps.c.op_id)
    return [InDoubt(*row) for row in tx.execute(query)]


def has_any(tx: Connection, run_id: str) -> bool:
    """Whether a step of the run is in doubt."""
    found = select(steps.c.op_id).where(steps.c.run_id == run_id, steps.c.status == "in_doubt").limit(1)
    return tx.execute(found).first() is not None


def oldest(tx: Connection, limit: int) -> list[InDoubt]:
    """Steps in doubt of all runs, those of the oldest runs first."""
    query = _DOUBTS.join(runs, runs.c.id == steps.c.run_id).where(
        runs.c.status == "blocked", steps.c.status == "in_doubt"
    )
    return [InDoubt(*row) for row in tx.execute(query.order_by(runs.c.created_at).limit(limit))]


def block(tx: Connection, run_id: str, doubts: Sequence[InDoubt]) -> None:
    """Stop the run's turns, those under way too, until its doubts are resolved; without any it goes on."""
    reason = "\n".join(doubt.why for doubt in doubts)
    changes = {"status": "blocked", "blocked": reason} if doubts else {"status": "running", "blocked": None}
    tx.execute(update(runs).where(runs.c.id == run_id).values(turn=runs.c.turn + 1, blocked_version=None, **changes))


def settle(tx: Connection, run: Run | None) -> None:
    """After an outcome was recorded of what may have been in doubt: the run goes on if that was all."""
    if run is not None and run.status == "blocked" and not run.ended:
        block(tx, run.id, of_run(tx, run.id))
