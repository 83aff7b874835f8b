"""Runs that have ended, and their deletion with every row of theirs."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, or_, select, union_all

from .schema import (
    attributes,
    audit,
    events,
    hooks,
    inbox,
    paused_runs,
    payloads,
    received,
    references,
    requests,
    run_calls,
    run_limits,
    runs,
    step_limits,
    steps,
    stream_items,
    streams,
    values,
    waits,
)
from .transitions import ENDED


class EndedRun(NamedTuple):
    """A run that has ended, and the number of its events."""

    ended_at: int
    id: str
    events: int


def ended(tx: Connection, *, after: tuple[int, str], before: int, limit: int) -> list[EndedRun]:
    """The next page of runs that ended before *before*; *after* is ``(ended_at, id)`` of the last one seen."""
    at, run_id = after
    query = select(runs.c.completed_at, runs.c.id, runs.c.seq).where(
        runs.c.completed_at >= at,
        runs.c.completed_at < before,
        or_(runs.c.completed_at > at, runs.c.id > run_id),
    )
    rows = tx.execute(query.order_by(runs.c.completed_at, runs.c.id).limit(limit))
    return [EndedRun(*row) for row in rows]


def lock(tx: Connection, ids: Collection[str]) -> set[str]:
    """Lock and return those of these runs that have ended; runs that another transaction has locked are left out."""
    query = select(runs.c.id).where(runs.c.id.in_(ids), runs.c.status.in_(ENDED))
    return set(tx.execute(query.with_for_update(skip_locked=True)).scalars())


def in_use(tx: Connection, ids: Collection[str], before: int) -> set[str]:
    """
    Those of these runs that must be kept.

    They have work left; or a child run, a run that refers to one of their requests, or of a first generation a later
    one, has not ended before *before*.
    """
    work = [select(table.c.run_id).where(table.c.run_id.in_(ids)) for table in (inbox, steps, waits)]
    children = select(runs.c.parent_run_id).where(runs.c.parent_run_id.in_(ids), _is_kept(before))
    referring = (
        select(references.c.owner_run_id)
        .join(runs, runs.c.id == references.c.run_id)
        .where(references.c.owner_run_id.in_(ids), _is_kept(before))
    )
    # The first generation has the id and the key by which the run was started.
    later = select(runs.c.first_run_id).where(
        runs.c.first_run_id.in_(ids), runs.c.first_run_id != runs.c.id, _is_kept(before)
    )
    return set(tx.execute(union_all(*work, children, referring, later)).scalars())


def _is_kept(before: int) -> ColumnElement[bool]:
    return or_(runs.c.completed_at.is_(None), runs.c.completed_at >= before)


def remove(tx: Connection, ids: Collection[str]) -> None:
    """Delete these runs and every row of theirs."""
    kept = (attributes, audit, run_calls, values, references, payloads, received, requests, hooks, events)
    for table in (*kept, stream_items, streams, step_limits, run_limits, paused_runs):
        tx.execute(delete(table).where(table.c.run_id.in_(ids)))
    tx.execute(delete(runs).where(runs.c.id.in_(ids)))
