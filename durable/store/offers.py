"""
Offered steps: a process that is at work on their run takes them, one after the other, without a message.

An offered step is a pending one whose message was not sent.  Its ``offered_seq`` is the ``seq`` of its call.  The sweep
sends it when its time is over and its queue is empty.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from ..codec import EXAMINED_LENGTH
from ..events import AttemptEnded
from . import claims, end_operation, run_log, steps
from .claims import Claim
from .database import Store
from .outbox import SendTimes
from .schema import steps as rows
from .statements import Prepared, array
from .steps import StepRow

#: The first offered step of a run, of one queue and with one of these names, that no other transaction has locked.
_FIRST = (
    select(rows.c.op_id)
    .where(
        rows.c.run_id == bindparam("run"),
        rows.c.queue == bindparam("queue"),
        rows.c.offered_seq.is_not(None),
        rows.c.name.in_(bindparam("names", expanding=True)),
    )
    .order_by(rows.c.offered_seq)
    .limit(1)
    .with_for_update(skip_locked=True)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Taker:
    """
    A process that takes offered steps.

    Attributes:
        queue, names: It takes only steps of this queue, and with these names.
        worker_id: The process.
        semantics: The ``semantics`` of these steps.
    """

    queue: str
    names: Collection[str]
    worker_id: str
    semantics: str

    def parameters(self, run_id: str, by: str | None = None) -> dict[str, Any]:
        """The parameters of the statements for PostgreSQL."""
        values: dict[str, Any] = {"run": run_id, "queue": self.queue, "names": array(self.names)}
        values |= {"by": by, "worker_id": self.worker_id, "semantics": self.semantics}
        return values | {"timeout": None, "message_id": None}


def claim_next(store: Store, run_id: str, taker: Taker, *, by: str, is_synced: bool = True) -> Claim | None:
    """
    Claim the offered step of a run that was called first; None when none is left for this process.

    Args:
        by: The claim, a random id.
        is_synced: As for ``claims.commit_claim``.
    """
    with store.single_statement() if is_synced else store.unsynced() as tx:
        if tx.dialect.name == "postgresql":
            taken = _claim_next(store.sql_now_text, is_synced=is_synced).one(tx, taker.parameters(run_id, by))
            return None if taken is None else Claim(**taken._asdict())
        return _claim_first(store, tx, run_id, taker, by)


def commit_outcome_and_claim_next(
    store: Store, held: Claim, ended: AttemptEnded, sending: SendTimes, taker: Taker, *, by: str
) -> tuple[bool, Claim | None]:
    """
    Record an attempt's outcome as ``end_operation.commit``, and claim the run's next offered step, in one transaction.

    Args:
        ended: It refers to no request, and has no large value.
        by: The claim, a random id.

    Returns:
        Whether the outcome is recorded, and the claim.  When the attempt was given up, nothing is written.
    """
    with store.single_statement() as tx:
        if tx.dialect.name != "postgresql":
            if not end_operation.write(tx, held, ended, sending):
                return False, None
            return True, _claim_first(store, tx, held.run_id, taker, by)
        parameters = taker.parameters(held.run_id, by) | {"op": held.op_id, "claim": held.claim}
        parameters |= run_log.inbox_parameters(tx, held.run_id, ended, sending)
        found = _end_and_claim_next(store.sql_now_text).one(tx, parameters)
        if found is None:
            return False, None
        fields = found._asdict()
        return True, Claim(**fields) if fields["claim"] is not None else None


def commit_next_sent(store: Store, run_id: str, taker: Taker, sending: SendTimes) -> StepRow | None:
    """End the offer of the step that was called first, since its message is sent after the commit; None for none."""
    with store.single_statement() as tx:
        if tx.dialect.name == "postgresql":
            marked = _MARK_NEXT.one(tx, taker.parameters(run_id) | sending.values())
            return None if marked is None else StepRow(**marked._asdict())
        op_id = _first(tx, run_id, taker)
        row = None if op_id is None else steps.pending(tx, run_id, op_id, 1)
        if row is not None:
            steps.set_send_times(tx, row, sending)
        return row


def _first(tx: Connection, run_id: str, taker: Taker) -> str | None:
    return tx.execute(_FIRST, {"run": run_id, "queue": taker.queue, "names": list(taker.names)}).scalar_one_or_none()


def _claim_first(store: Store, tx: Connection, run_id: str, taker: Taker, by: str) -> Claim | None:
    op_id = _first(tx, run_id, taker)
    if op_id is None:
        return None
    return claims.claim(
        tx,
        run_id,
        op_id,
        1,
        by=by,
        worker_id=taker.worker_id,
        message_id=None,
        now=store.sql_now,
        semantics=taker.semantics,
    )


# One statement each for PostgreSQL.

_FIRST_AT_ONCE = (
    "first AS (SELECT run_id AS run, op_id AS op FROM durable_steps"
    " WHERE run_id = :run AND queue = :queue AND offered_seq IS NOT NULL AND name = ANY (CAST(:names AS text[]))"
    " ORDER BY offered_seq LIMIT 1 FOR UPDATE SKIP LOCKED)"
)
_IS_FIRST = "FROM first WHERE run_id = first.run AND op_id = first.op RETURNING durable_steps.*"

_MARK_NEXT = Prepared(
    text(
        f"WITH {_FIRST_AT_ONCE}, marked AS (UPDATE durable_steps"
        f" SET next_send_at = :next_send_at, sent_at = :sent_at, sends = :sends, offered_seq = NULL {_IS_FIRST})"
        " SELECT marked.run_id, marked.op_id, marked.name, marked.attempt, marked.not_before, runs.queue,"
        " runs.priority, runs.trace_context, marked.queue AS step_queue,"
        f" CASE WHEN length(called.value) <= {EXAMINED_LENGTH} THEN called.value END AS args"
        f" FROM marked JOIN durable_runs AS runs ON runs.id = marked.run_id{claims.CALLED.format(taken='marked')}"
    )
)


@lru_cache(maxsize=4)
def _claim_next(now: str, *, is_synced: bool) -> Prepared:
    taken = f"taken AS (UPDATE durable_steps SET {claims.set_claimed(now)} {_IS_FIRST})"
    unsynced = "" if is_synced else f" WHERE {claims.UNSYNCED}"
    return Prepared(text(f"WITH {_FIRST_AT_ONCE}, {taken} {claims.SELECT_TAKEN}{unsynced}"))


@lru_cache(maxsize=4)
def _end_and_claim_next(now: str) -> Prepared:
    """Ends an attempt, and claims the next one; a row without a claim when there is none."""
    ended = (
        "deleted AS (DELETE FROM durable_steps WHERE run_id = :run AND op_id = :op AND claim = :claim RETURNING 1),"
        f" posted AS ({run_log.insert_into_inbox('deleted')})"
    )
    first = _FIRST_AT_ONCE.replace("WHERE", "WHERE EXISTS (SELECT 1 FROM deleted) AND", 1)
    taken = f"taken AS (UPDATE durable_steps SET {claims.set_claimed(now)} {_IS_FIRST})"
    next_one = f"SELECT next.* FROM deleted LEFT JOIN ({claims.SELECT_TAKEN}) AS next ON true"
    return Prepared(text(f"WITH {ended}, {first}, {taken} {next_one}"))
