"""
A fork: a run whose log begins with that of another run, its origin.

The origin's row is locked while its fork is written, so that the log that was read is the whole log.  Nothing of the
origin is changed, and it is kept as long as its forks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, literal, select

from .. import codec
from ..events import AttributesSet, ChildCreated, Event, HookReceived, StepCreated, ValuePublished
from . import attributes, published, requests, run_limits, run_log, runs, vault
from .event_rows import from_row
from .limits import NOT_SENT
from .outbox import SendTimes
from .run_limits import RunLimit
from .runs import Run
from .schema import events, references
from .schema import runs as rows
from .transitions import ENDED


def create(
    tx: Connection,
    fork: Run,
    log: Sequence[Event],
    inbox: Sequence[Event],
    sending: SendTimes,
    limits: Sequence[RunLimit] = (),
) -> None:
    """Insert a fork with its log and its inbox; with *limits* it waits for them, and no message is sent."""
    assert fork.forked_from is not None
    runs.create(tx, fork)
    run_log.append(tx, fork.id, log)
    run_log.post_all(tx, [(fork.id, event, NOT_SENT if limits else sending) for event in inbox])
    changes = [event.attributes for event in log if isinstance(event, AttributesSet)]
    attributes.write(tx, fork.id, fork.created_at, changes)
    last_at = log[-1].at if log else 0
    values = [event for event in log if isinstance(event, ValuePublished)]
    published.copy(tx, fork.forked_from, fork.id, values, until=last_at)
    _keep_origins(tx, fork)
    requests.record_references(tx, fork.id, _request_ids((*log, *inbox)))
    if limits:
        run_limits.enter(tx, [(fork, limits)])


def _keep_origins(tx: Connection, fork: Run) -> None:
    """Record that the fork refers to its origin, and to all that its origin refers to: they are kept as long as it."""
    tx.execute(insert(references), {"run_id": fork.id, "owner_run_id": fork.forked_from})
    inherited = select(literal(fork.id), references.c.owner_run_id).where(references.c.run_id == fork.forked_from)
    tx.execute(insert(references).from_select(["run_id", "owner_run_id"], inherited.distinct()))


def _request_ids(found: Iterable[Event]) -> set[str]:
    ids: set[str] = set()
    for event in found:
        if isinstance(event, HookReceived) and event.request_id is not None:
            ids.add(event.request_id)
        text = getattr(event, event.value_field) if event.value_field else None
        ids |= codec.request_ids(text or "")
    return ids


def forks_of(tx: Connection, run_ids: Collection[str], limit: int | None = None) -> list[Run]:
    """The runs that were forked from one of these, oldest first."""
    query = select(rows).where(rows.c.forked_from.in_(run_ids)).order_by(rows.c.created_at, rows.c.id)
    return [Run(**row) for row in tx.execute(query.limit(limit)).mappings()]


def waiting_for_child(tx: Connection, parent_id: str, op_id: str, child_id: str) -> list[Run]:
    """
    The forks of a run, and forks of those, that refer to its child run and have not ended.

    Args:
        op_id: The call that has started the child.
        child_id: The first generation of the child.
    """
    waiting: list[Run] = []
    origins: list[str] = [parent_id]
    while origins:
        forks = forks_of(tx, origins)
        # A fork that calls the child anew has another one, and so have its forks.
        forks = [each for each in forks if _child_of(tx, each.id, op_id) == child_id]
        waiting += [each for each in forks if each.status not in ENDED]
        origins = [each.id for each in forks]
    return waiting


def _child_of(tx: Connection, run_id: str, op_id: str) -> str | None:
    made = run_log.creations(tx, run_id, [op_id])
    return made[0].run_id if made and isinstance(made[0], ChildCreated) else None


def first_caller(tx: Connection, run_id: str, op_id: str) -> str:
    """
    The run that has made this call of a step first: an origin of this run, or the run itself.

    A call is the same if its place in the workflow, its step and its arguments are.
    """
    made: Any = _call(tx, run_id, op_id)
    while made is not None and (origin := _origin(tx, run_id)) is not None:
        before = _call(tx, origin, op_id)
        if not isinstance(before, StepCreated) or (before.name, before.digest) != (made.name, made.digest):
            break
        run_id = origin
    return run_id


def _origin(tx: Connection, run_id: str) -> str | None:
    return tx.execute(select(rows.c.forked_from).where(rows.c.id == run_id)).scalar_one_or_none()


def _call(tx: Connection, run_id: str, op_id: str) -> Event | None:
    """The event that created an operation; a large value stays a reference."""
    mine = (events.c.run_id == run_id, events.c.op_id == op_id, events.c.phase == "created")
    row = tx.execute(select(events).where(*mine)).one_or_none()
    if row is None:
        return None
    return from_row(vault.of(tx), run_id, row.kind, seq=row.seq, at=row.at, op_id=op_id, data=row.data, value=row.value)
