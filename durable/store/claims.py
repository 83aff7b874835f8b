"""
Claims: a process takes an attempt, sends heartbeats for it, and checks that the attempt is still its own.

A claim is a random id.  Whatever a process writes for an attempt is guarded by the claim, so that an attempt that was
given up meanwhile can record nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, TextClause, case, func, select, text, update

from ..http import Request
from . import vault
from .database import Store
from .runs import trace_context
from .schema import events, runs, steps
from .statements import Prepared
from .transitions import StepStatus
from .vault import Vault


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """An attempt that this process runs, and what it needs for that; values are as stored until ``decrypted``."""

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
    #: The run's turn when the attempt was claimed.
    run_turn: int
    semantics: str | None = None
    deadline_at: int | None = None
    heartbeat: str | None = None
    #: What the run carries from its start; see runs.trace_context.
    trace_context: str | None = None
    #: Since when the attempt could start: its call, or the time that a retry waited for.
    scheduled_at: int | None = None
    #: The time for which a schedule has started the run.
    scheduled_for: int | None = None
    #: The run that the run was forked from.
    forked_from: str | None = None
    #: Only for an attempt that runs in place, without a message: the queue that its message would go to, and the
    #: webhook requests among its arguments, loaded by the turn.
    queue: str | None = None
    requests: Mapping[str, Request] = field(default_factory=dict, compare=False, repr=False)


#: What the process needs for an attempt: the fields of its ``Claim``.
_CLAIM = (
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
        case((steps.c.not_before > events.c.at, steps.c.not_before), else_=events.c.at).label("scheduled_at"),
        events.c.value.label("args"),
        runs.c.name.label("run_name"),
        func.coalesce(runs.c.started_at, runs.c.created_at).label("run_started_at"),
        runs.c.turn.label("run_turn"),
        runs.c.trace_context,
        runs.c.scheduled_for,
        runs.c.forked_from,
    )
    .join(events, (events.c.run_id == steps.c.run_id) & (events.c.op_id == steps.c.op_id))
    .join(runs, runs.c.id == steps.c.run_id)
    .where(events.c.phase == "created")
)


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
    Claim an attempt that is due; None when it is not due, or another process has it.

    A second call with the same *by* returns the same claim, so a caller may repeat it when a commit's acknowledgment
    was lost.

    Args:
        by: The claim, a random id.
        now: The database's clock, as SQL without parameters.
        semantics: How the attempt is delivered; recorded so that a process that gives it up need not know the step.
        timeout: How long the attempt may take, in microseconds.
    """
    parameters = {"run": run_id, "op": op_id, "attempt": attempt, "by": by, "worker_id": worker_id}
    parameters |= {"timeout": timeout, "message_id": message_id, "semantics": semantics}
    if tx.dialect.name == "postgresql":
        taken = _at_once(str(now)).one(tx, parameters)
        if taken is not None:
            return Claim(**taken._asdict())
        is_mine = False
    else:
        is_mine = tx.execute(_take(str(now)), parameters).rowcount == 1
    step = (steps.c.run_id == run_id, steps.c.op_id == op_id)
    if not is_mine:
        is_mine = tx.execute(select(steps.c.claim).where(*step)).scalar_one_or_none() == by
    return Claim(**tx.execute(_CLAIM.where(*step)).mappings().one()) if is_mine else None


def commit_claim(
    store: Store,
    run_id: str,
    op_id: str,
    attempt: int,
    *,
    by: str,
    worker_id: str,
    message_id: str | None,
    semantics: str,
    timeout: int | None,
    is_synced: bool = True,
) -> Claim | None:
    """
    As ``claim``, in a transaction of its own.

    Args:
        is_synced: Return only when the claim is on disk.  A claim that is lost when the database crashes makes another
            process run the attempt too, and only that one can record its outcome.
    """
    if not is_synced and store.dialect == "postgresql":
        parameters = {"run": run_id, "op": op_id, "attempt": attempt, "by": by, "worker_id": worker_id}
        parameters |= {"timeout": timeout, "message_id": message_id, "semantics": semantics}
        with store.single_statement() as tx:
            taken = _at_once_unsynced(store.sql_now_text).one(tx, parameters)
        if taken is not None:
            return Claim(**taken._asdict())
    with store.single_statement() if is_synced else store.unsynced() as tx:
        return claim(
            tx,
            run_id,
            op_id,
            attempt,
            by=by,
            worker_id=worker_id,
            message_id=message_id,
            now=store.sql_now,
            semantics=semantics,
            timeout=timeout,
        )


def set_claimed(now: str) -> str:
    """SQL: what an UPDATE of ``durable_steps`` sets that claims an attempt."""
    return (
        f"status = '{StepStatus.CLAIMED}', claim = :by, worker_id = :worker_id, message_id = :message_id,"
        f" claimed_at = {now}, started_at = COALESCE(started_at, {now}), semantics = :semantics,"
        f" deadline_at = {now} + :timeout, heartbeat_at = NULL, next_send_at = NULL, offered_seq = NULL"
    )


@lru_cache(maxsize=16)
def _take(now: str) -> TextClause:
    """The UPDATE that claims an attempt; cached for each database's expression of its time."""
    return text(
        f"UPDATE durable_steps SET {set_claimed(now)}"
        f" WHERE run_id = :run AND op_id = :op AND attempt = :attempt AND status = '{StepStatus.PENDING}'"
        f" AND not_before <= {now} AND paused_at IS NULL"
    )


#: A condition that is true; PostgreSQL's commit of its statement does not wait for the disk.
UNSYNCED = "set_config('synchronous_commit', 'off', true) = 'off'"
_TAKEN = ("claim", "run_id", "op_id", "name", "attempt", "started_at", "claimed_at", "semantics")
#: SQL for PostgreSQL: the event that called each of *taken*, which are rows of ``durable_steps`` of the run ``:run``.
#: By that parameter: of a table with partitions, only the run's is touched.  OFFSET keeps the planner from reading
#: all calls of the run to find one.
CALLED = (
    " CROSS JOIN LATERAL (SELECT at, value FROM durable_events"
    " WHERE run_id = :run AND op_id = {taken}.op_id AND phase = 'created' OFFSET 0) AS called"
)
#: SQL for PostgreSQL: a ``Claim`` for each row of ``taken``, which are rows of ``durable_steps`` of the run ``:run``.
SELECT_TAKEN = (
    f"SELECT {', '.join(f'taken.{name}' for name in (*_TAKEN, 'deadline_at', 'heartbeat'))},"
    " GREATEST(called.at, taken.not_before) AS scheduled_at,"
    " called.value AS args, runs.name AS run_name,"
    " COALESCE(runs.started_at, runs.created_at) AS run_started_at, runs.turn AS run_turn, runs.trace_context,"
    " runs.scheduled_for, runs.forked_from"
    f" FROM taken JOIN durable_runs AS runs ON runs.id = taken.run_id{CALLED.format(taken='taken')}"
)


@lru_cache(maxsize=16)
def _at_once(now: str) -> Prepared:
    """The same for PostgreSQL, in one statement that also reads what the process needs for the attempt."""
    return Prepared(text(f"WITH taken AS ({_take(now).text} RETURNING *) {SELECT_TAKEN}"))


@lru_cache(maxsize=16)
def _at_once_unsynced(now: str) -> Prepared:
    """The same, without waiting for the disk."""
    return Prepared(text(f"WITH taken AS ({_take(now).text} RETURNING *) {SELECT_TAKEN} WHERE {UNSYNCED}"))


def not_before(tx: Connection, run_id: str, op_id: str, attempt: int) -> int | None:
    """When a pending attempt may start."""
    return tx.execute(
        select(steps.c.not_before).where(
            steps.c.run_id == run_id,
            steps.c.op_id == op_id,
            steps.c.attempt == attempt,
            steps.c.status == StepStatus.PENDING,
        )
    ).scalar_one_or_none()


def decrypted(vault: Vault, held: Claim) -> Claim:
    """The claim with its values decrypted, large ones still references; DecryptionError when the key is not here."""
    return replace(
        held,
        args=vault.unseal(held.run_id, held.op_id, held.args) or "",
        heartbeat=vault.unseal(held.run_id, _heartbeat(held.op_id), held.heartbeat),
        trace_context=trace_context(vault, held.run_id, held.trace_context),
    )


def is_held(tx: Connection, held: Claim) -> bool:
    """Whether the attempt still has this claim; locks it, so that it is not given up before the transaction ends."""
    row = tx.execute(select(steps.c.attempt).where(*_mine(held)).with_for_update()).one_or_none()
    return row is not None


def is_wanted(tx: Connection, held: Claim) -> bool:
    """Whether the workflow still waits for the outcome: it has not cancelled the call."""
    given_up = tx.execute(
        select(steps.c.cancelled).where(steps.c.run_id == held.run_id, steps.c.op_id == held.op_id)
    ).scalar_one_or_none()
    return given_up is False


def heartbeat(tx: Connection, held: Claim, details: str, now: Any, timeout: int | None) -> bool:
    """
    Record a heartbeat with its *details*, and move the deadline to *timeout* from now.

    Without a *timeout* the deadline stays as it is.  Returns False when the attempt was given up.
    """
    details = vault.of(tx).seal(tx, held.run_id, _heartbeat(held.op_id), details) or ""
    extended = {} if timeout is None else {"deadline_at": now + timeout}
    updated = tx.execute(update(steps).where(*_mine(held)).values(heartbeat=details, heartbeat_at=now, **extended))
    return updated.rowcount == 1


def _heartbeat(op_id: str) -> str:
    return f"{op_id} heartbeat"


def _mine(held: Claim) -> tuple[Any, ...]:
    return steps.c.run_id == held.run_id, steps.c.op_id == held.op_id, steps.c.claim == held.claim
