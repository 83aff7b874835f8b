"""Runs: one row each, which a turn moves on under the fence of its number."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, func, insert, select, update

from . import vault
from .attributes import matching
from .schema import inbox, runs

ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run's row."""

    id: str
    name: str
    status: str
    turn: int
    seq: int
    last_at: int
    queue: str | None
    priority: int | None
    digest: str
    idempotency_key: str | None
    code_version: str | None
    python_version: str | None
    parent_run_id: str | None
    parent_op_id: str | None
    not_before: int | None
    blocked: str | None
    blocked_version: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    turn_tries: int | None = None
    turn_tried: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def find(tx: Connection, run_id: str) -> Run | None:
    """The run of this id."""
    return _one(tx, runs.c.id == run_id)


def find_by_key(tx: Connection, key: str) -> Run | None:
    """The run that an idempotency key started."""
    return _one(tx, runs.c.idempotency_key == key)


def _one(tx: Connection, where: Any) -> Run | None:
    row = tx.execute(select(runs).where(where)).mappings().one_or_none()
    return None if row is None else Run(**row)


def create(tx: Connection, run: Run) -> None:
    """Insert the row.  IntegrityError: the id or the key is taken."""
    tx.execute(insert(runs), values(tx, run))


def values(tx: Connection, run: Run) -> dict[str, Any]:
    """A new run's row by column, as it is stored."""
    row = {name: getattr(run, name) for name in runs.c.keys()}  # noqa: SIM118
    return row | {"digest": vault.of(tx).keyed(run.digest)}


def advance(tx: Connection, run: Run, **changes: Any) -> bool:
    """The fence: move the run on from the turn that was read; False when another turn was here."""
    if run.turn_tried is not None:
        changes |= {"turn_tries": None, "turn_tried": None}
    moved = tx.execute(
        update(runs).where(runs.c.id == run.id, runs.c.turn == run.turn).values(turn=run.turn + 1, **changes)
    )
    return moved.rowcount == 1


def advance_unseen(tx: Connection, run: Run, **changes: Any) -> bool:
    """The fence of a turn that has not read the run: False also when it has news, or a turn of it was tried."""
    inbox_is_empty = ~exists().where(inbox.c.run_id == runs.c.id)
    untouched = (runs.c.id == run.id, runs.c.turn == run.turn, runs.c.turn_tried.is_(None), inbox_is_empty)
    moved = tx.execute(update(runs).where(*untouched).values(turn=run.turn + 1, **changes))
    return moved.rowcount == 1


def record_tries(tx: Connection, run: Run, *, tries: int, tried: str) -> bool:
    """Note the tries of the run's next turn; False when somebody else did, or that turn was here."""
    known = runs.c.turn_tried.is_(None) if run.turn_tried is None else runs.c.turn_tried == run.turn_tried
    noted = tx.execute(
        update(runs)
        .where(runs.c.id == run.id, runs.c.turn == run.turn, known)
        .values(turn_tries=tries, turn_tried=tried)
    )
    return noted.rowcount == 1


def lock(tx: Connection, run_id: str) -> Run | None:
    """The run, kept from any turn until this transaction ends."""
    row = tx.execute(select(runs).where(runs.c.id == run_id).with_for_update()).mappings().one_or_none()
    return None if row is None else Run(**row)


def invalidate_turn(tx: Connection, run_id: str) -> None:
    """Have the turn that is under way think again: its fence fails."""
    tx.execute(update(runs).where(runs.c.id == run_id).values(turn=runs.c.turn + 1))


def unblock(tx: Connection, run_id: str) -> bool:
    """Let a blocked run be tried again by the code that blocked it; False when it is not blocked."""
    changed = tx.execute(
        update(runs).where(runs.c.id == run_id, runs.c.status == "blocked").values(blocked_version=None)
    )
    return changed.rowcount == 1


def newest(
    tx: Connection,
    *,
    status: str | None,
    name: str | None,
    attributes: Mapping[str, str],
    since: int,
    limit: int,
    after: tuple[int, str] | None = None,
) -> list[Run]:
    """
    The newest runs, by status, by name and by attributes, all of which have to match, created *since* then.

    Args:
        after: ``(created_at, id)`` of the last run of the page before.
    """
    query = select(runs).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    query = query.where(*matching(runs.c.id, attributes))
    if status is not None:
        query = query.where(runs.c.status == status)
    if name is not None:
        query = query.where(runs.c.name == name)
    if since:
        query = query.where(runs.c.created_at >= since)
    if after is not None:
        at, run_id = after
        query = query.where(runs.c.created_at <= at, (runs.c.created_at < at) | (runs.c.id < run_id))
    return [Run(**row) for row in tx.execute(query).mappings()]


def count(tx: Connection, *, statuses: Collection[str], name: str | None, limit: int) -> int:
    """How many runs are of these statuses, and of this name; counts no further than *limit*."""
    some = select(runs.c.id).where(runs.c.status.in_(statuses), *_named(name)).limit(limit).subquery()
    return tx.execute(select(func.count()).select_from(some)).scalar_one()


def page(
    tx: Connection, *, status: str, name: str | None, after: tuple[int, str], upto: int, limit: int
) -> list[tuple[int, str]]:
    """The next runs of a status, oldest first, each as ``(created_at, id)``, by which the next page begins."""
    at, run_id = after
    query = select(runs.c.created_at, runs.c.id).where(
        runs.c.status == status,
        *_named(name),
        runs.c.created_at >= at,
        runs.c.created_at <= upto,
        (runs.c.created_at > at) | (runs.c.id > run_id),
    )
    return [(row.created_at, row.id) for row in tx.execute(query.order_by(runs.c.created_at, runs.c.id).limit(limit))]


def _named(name: str | None) -> list[Any]:
    return [] if name is None else [runs.c.name == name]


def open_children(tx: Connection, run_id: str, limit: int | None = None) -> list[Run]:
    """The runs that this one has called, and that have not ended; at most *limit*."""
    query = select(runs).where(runs.c.parent_run_id == run_id, runs.c.status.not_in(ENDED)).order_by(runs.c.id)
    return [Run(**row) for row in tx.execute(query.limit(limit)).mappings()]


def record_end(tx: Connection, run_id: str, *, seq: int, at: int) -> None:
    """Note where the log ends for good, in a transaction that has passed the fence."""
    tx.execute(update(runs).where(runs.c.id == run_id).values(seq=seq, last_at=at, completed_at=at))
