"""
The backlog over all runs, for ``durable doctor`` and operators.

Each query reads a bounded number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select

from .schema import events, inbox, runs, steps
from .transitions import RunStatus, StepStatus
from .vault import MARK

#: Characters of an encrypted value that contain the id of its key.
_HEAD = 20

#: Rows that one query reads.
BOUND = 10_000


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run that waits for a process that has registered *name*: one of its steps, or its workflow."""

    name: str
    run_id: str
    created_at: int


def pending_steps(tx: Connection) -> list[WaitingRun]:
    """Unclaimed attempts, longest overdue first."""
    query = (
        select(steps.c.name, steps.c.run_id, runs.c.created_at)
        .join(runs, runs.c.id == steps.c.run_id)
        .where(steps.c.next_send_at.is_not(None))
        .order_by(steps.c.next_send_at)
    )
    return [WaitingRun(*row) for row in tx.execute(query.limit(BOUND))]


def runs_with_inbox_items(tx: Connection) -> list[WaitingRun]:
    """Runs that are not blocked, nor held by a limit, and have inbox items for a turn; the name is the workflow's."""
    oldest = (
        select(inbox.c.run_id).where(inbox.c.next_send_at.is_not(None)).order_by(inbox.c.id).limit(BOUND).subquery()
    )
    query = (
        select(runs.c.name, runs.c.id, runs.c.created_at)
        .distinct()
        .join(oldest, oldest.c.run_id == runs.c.id)
        .where(runs.c.status.in_((RunStatus.PENDING, RunStatus.RUNNING)))
    )
    return [WaitingRun(*row) for row in tx.execute(query)]


def encrypted_heads(tx: Connection, limit: int) -> dict[str, str]:
    """The beginnings of encrypted values in the oldest inbox items and pending steps, each with the id of a run."""
    head = func.substr(inbox.c.value, 1, _HEAD)
    items = select(inbox.c.run_id, head.label("head")).where(func.substr(inbox.c.value, 1, 1) == MARK)
    arguments = (
        select(steps.c.run_id, func.substr(events.c.value, 1, _HEAD).label("head"))
        .join(events, (events.c.run_id == steps.c.run_id) & (events.c.op_id == steps.c.op_id))
        .where(events.c.phase == "created", steps.c.next_send_at.is_not(None))
        .where(func.substr(events.c.value, 1, 1) == MARK)
    )
    found: dict[str, str] = {}
    for query in (items.order_by(inbox.c.id), arguments.order_by(steps.c.next_send_at)):
        for row in tx.execute(query.limit(limit)):
            found.setdefault(row.head, row.run_id)
    return found


def queues_of_runs(tx: Connection) -> set[str | None]:
    """The queues that turns of the oldest open runs go to; None stands for the application's default queue."""
    found: set[str | None] = set()
    for status in (RunStatus.PENDING, RunStatus.RUNNING):
        oldest = select(runs.c.queue).where(runs.c.status == status).order_by(runs.c.created_at).limit(BOUND)
        found |= set(tx.execute(select(oldest.subquery().c.queue).distinct()).scalars())
    return found


def blocked(tx: Connection, shown: int) -> tuple[int, list[str]]:
    """How many runs are blocked by their code, counted up to ``BOUND``, and the ids of the oldest *shown* ones."""
    in_doubt = exists().where(steps.c.run_id == runs.c.id, steps.c.status == StepStatus.IN_DOUBT)
    all_of_them = select(runs.c.id).where(runs.c.status == RunStatus.BLOCKED, ~in_doubt).order_by(runs.c.created_at)
    count = tx.execute(select(func.count()).select_from(all_of_them.limit(BOUND).subquery())).scalar_one()
    return count, list(tx.execute(all_of_them.limit(shown)).scalars())


def failures(tx: Connection, since: int) -> list[tuple[str, int]]:
    """
    The workflow and the end of each run that has failed at *since* or later, newest run first; at most ``BOUND``.

    Of the runs that have failed, it reads those that were started last.
    """
    newest = (
        select(runs.c.name, runs.c.completed_at)
        .where(runs.c.status == RunStatus.FAILED)
        .order_by(runs.c.created_at.desc())
        .limit(BOUND)
        .subquery()
    )
    rows = tx.execute(select(newest).where(newest.c.completed_at >= since))
    return [(row.name, row.completed_at) for row in rows]
