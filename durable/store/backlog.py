"""What waits to be done, over all runs: bounded looks at the work lists, for people who look at them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select

from .schema import events, inbox, runs, steps
from .vault import MARK

#: So much of a value tells the key that it is encrypted with.
_HEAD = 20

#: Rows of a list that one look reads.
BOUND = 10_000


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that waits for a process which knows *name*: a step of it, or its workflow."""

    name: str
    run_id: str
    created_at: int


def pending_steps(tx: Connection) -> list[WaitingRun]:
    """Attempts that nobody has claimed, longest overdue first."""
    query = (
        select(steps.c.name, steps.c.run_id, runs.c.created_at)
        .join(runs, runs.c.id == steps.c.run_id)
        .where(steps.c.next_send_at.is_not(None))
        .order_by(steps.c.next_send_at)
    )
    return [WaitingRun(*row) for row in tx.execute(query.limit(BOUND))]


def runs_with_inbox_items(tx: Connection) -> list[WaitingRun]:
    """Runs that have news for a turn, blocked ones left out; the name is the workflow's."""
    oldest = select(inbox.c.run_id).order_by(inbox.c.id).limit(BOUND).subquery()
    query = (
        select(runs.c.name, runs.c.id, runs.c.created_at)
        .distinct()
        .join(oldest, oldest.c.run_id == runs.c.id)
        .where(runs.c.status.in_(("pending", "running")))
    )
    return [WaitingRun(*row) for row in tx.execute(query)]


def encrypted_heads(tx: Connection, limit: int) -> dict[str, str]:
    """The beginnings of encrypted values that the oldest news and the next steps wait with, each with a run's id."""
    head = func.substr(inbox.c.value, 1, _HEAD)
    news = select(inbox.c.run_id, head.label("head")).where(func.substr(inbox.c.value, 1, 1) == MARK)
    arguments = (
        select(steps.c.run_id, func.substr(events.c.value, 1, _HEAD).label("head"))
        .join(events, (events.c.run_id == steps.c.run_id) & (events.c.op_id == steps.c.op_id))
        .where(events.c.phase == "created", steps.c.next_send_at.is_not(None))
        .where(func.substr(events.c.value, 1, 1) == MARK)
    )
    found: dict[str, str] = {}
    for query in (news.order_by(inbox.c.id), arguments.order_by(steps.c.next_send_at)):
        for row in tx.execute(query.limit(limit)):
            found.setdefault(row.head, row.run_id)
    return found


def queues_of_runs(tx: Connection) -> set[str | None]:
    """The queues to which turns of the oldest open runs go; None is the application's default one."""
    found: set[str | None] = set()
    for status in ("pending", "running"):
        oldest = select(runs.c.queue).where(runs.c.status == status).order_by(runs.c.created_at).limit(BOUND)
        found |= set(tx.execute(select(oldest.subquery().c.queue).distinct()).scalars())
    return found


def blocked(tx: Connection, shown: int) -> tuple[int, list[str]]:
    """How many runs are blocked by their code, at most ``BOUND``, and the ids of the oldest."""
    in_doubt = exists().where(steps.c.run_id == runs.c.id, steps.c.status == "in_doubt")
    all_of_them = select(runs.c.id).where(runs.c.status == "blocked", ~in_doubt).order_by(runs.c.created_at)
    count = tx.execute(select(func.count()).select_from(all_of_them.limit(BOUND).subquery())).scalar_one()
    return count, list(tx.execute(all_of_them.limit(shown)).scalars())
