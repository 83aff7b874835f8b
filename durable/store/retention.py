"""Ended runs, oldest end first, and their deletion with all that is theirs."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, or_, select, union_all

from .runs import ENDED
from .schema import attributes, events, hooks, inbox, payloads, references, requests, runs, steps, waits


class EndedRun(NamedTuple):
    """A run that has ended, and how many events it has."""

    ended_at: int
    id: str
    events: int


def ended(tx: Connection, *, after: tuple[int, str], before: int, limit: int) -> list[EndedRun]:
    """The next runs that ended before then; *after*: the end and the id of the last one seen."""
    at, run_id = after
    query = select(runs.c.completed_at, runs.c.id, runs.c.seq).where(
        runs.c.completed_at >= at,
        runs.c.completed_at < before,
        or_(runs.c.completed_at > at, runs.c.id > run_id),
    )
    rows = tx.execute(query.order_by(runs.c.completed_at, runs.c.id).limit(limit))
    return [EndedRun(*row) for row in rows]


def lock(tx: Connection, ids: Collection[str]) -> set[str]:
    """Those of these runs that have ended and that nobody else has locked; locked until the transaction ends."""
    query = select(runs.c.id).where(runs.c.id.in_(ids), runs.c.status.in_(ENDED))
    return set(tx.execute(query.with_for_update(skip_locked=True)).scalars())


def in_use(tx: Connection, ids: Collection[str], before: int) -> set[str]:
    """
    Those of these runs that something still asks for.

    There is work left of them, or a run that they called, or that names a request of theirs, did not end before then.
    """
    work = [select(table.c.run_id).where(table.c.run_id.in_(ids)) for table in (inbox, steps, waits)]
    called = select(runs.c.parent_run_id).where(runs.c.parent_run_id.in_(ids), _stays(before))
    named = (
        select(references.c.owner_run_id)
        .join(runs, runs.c.id == references.c.run_id)
        .where(references.c.owner_run_id.in_(ids), _stays(before))
    )
    return set(tx.execute(union_all(*work, called, named)).scalars())


def _stays(before: int) -> ColumnElement[bool]:
    return or_(runs.c.completed_at.is_(None), runs.c.completed_at >= before)


def remove(tx: Connection, ids: Collection[str]) -> None:
    """Delete these runs and what is theirs."""
    for table in (attributes, references, payloads, requests, hooks, events):
        tx.execute(delete(table).where(table.c.run_id.in_(ids)))
    tx.execute(delete(runs).where(runs.c.id.in_(ids)))
