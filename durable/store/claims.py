"""Claims: an attempt taken by a process, its signs of life, and whether it is still that process's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, TextClause, func, select, text, update

from ..http import Request
from . import vault
from .schema import events, runs, steps
from .statements import Prepared
from .vault import Vault


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """An attempt that this process runs, and what it needs for it; values are as they are stored until ``opened``."""

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
    #: Of one that no message carried: the queue from which it would have come, and the webhook requests among its
    #: arguments that the turn before it has loaded whole.
    queue: str | None = None
    requests: Mapping[str, Request] = field(default_factory=dict, compare=False, repr=False)


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
        now: The database's clock, as SQL without parameters.
        semantics: How the attempt is delivered: whoever gives it up need not know the step.
        timeout: How long it may take, in microseconds.
    """
    known = {"run": run_id, "op": op_id, "attempt": attempt, "by": by, "worker_id": worker_id, "timeout": timeout}
    known |= {"message_id": message_id, "semantics": semantics}
    if tx.dialect.name == "postgresql":
        taken = _at_once(str(now)).one(tx, known)
        if taken is not None:
            return Claim(**taken._asdict())
        is_mine = False
    else:
        is_mine = tx.execute(_take(str(now)), known).rowcount == 1
    return _claimed(tx, run_id, op_id) if is_mine or _holder(tx, run_id, op_id) == by else None


@lru_cache(maxsize=16)
def _take(now: str) -> TextClause:
    """Take it: the hot path's text, made once for each way in which a database says its time."""
    return text(
        "UPDATE durable_steps SET status = 'claimed', claim = :by, worker_id = :worker_id, message_id = :message_id,"
        f" claimed_at = {now}, started_at = COALESCE(started_at, {now}), semantics = :semantics,"
        f" deadline_at = {now} + :timeout, heartbeat_at = NULL, next_send_at = NULL"
        " WHERE run_id = :run AND op_id = :op AND attempt = :attempt AND status = 'pending'"
        f" AND not_before <= {now}"
    )


@lru_cache(maxsize=16)
def _at_once(now: str) -> Prepared:
    """The same with what the process needs for the attempt, in one statement of PostgreSQL."""
    columns = ("claim", "run_id", "op_id", "name", "attempt", "started_at", "claimed_at", "semantics")
    taken = ", ".join(f"taken.{name}" for name in (*columns, "deadline_at", "heartbeat"))
    return Prepared(
        text(
            f"WITH taken AS ({_take(now).text} RETURNING *)"
            f" SELECT {taken}, called.value AS args, runs.name AS run_name,"
            " COALESCE(runs.started_at, runs.created_at) AS run_started_at, runs.turn AS run_turn"
            " FROM taken JOIN durable_runs AS runs ON runs.id = taken.run_id"
            " JOIN durable_events AS called"
            " ON called.run_id = taken.run_id AND called.op_id = taken.op_id AND called.phase = 'created'"
        )
    )


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
    return Claim(**row)


def opened(kept: Vault, held: Claim) -> Claim:
    """A claim whose values are as they were given, large ones still references; DecryptionError: not readable here."""
    args = kept.unseal(held.run_id, held.op_id, held.args) or ""
    return replace(held, args=args, heartbeat=kept.unseal(held.run_id, _heartbeat(held.op_id), held.heartbeat))


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
