"""Runs: one row each, which a turn moves on under the fence of its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from ..schema import runs
from .log import has_news

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

    @property
    def ended(self) -> bool:
        return self.status in ENDED


_TURN = select(runs, has_news(runs.c.id).label("news")).where(runs.c.id == bindparam("run"))


def read_turn(tx: Connection, run_id: str) -> tuple[Run | None, bool]:
    """The run and whether its inbox holds anything: all that a turn with nothing to do reads."""
    row = tx.execute(_TURN, {"run": run_id}).mappings().one_or_none()
    if row is None:
        return None, False
    known = dict(row)
    news = bool(known.pop("news"))
    return Run(**known), news


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
    tx.execute(insert(runs), {name: getattr(run, name) for name in runs.c.keys()})  # noqa: SIM118


def advance(tx: Connection, run: Run, **changes: Any) -> bool:
    """The fence: move the run on from the turn that was read; False when another turn was here."""
    moved = tx.execute(
        update(runs).where(runs.c.id == run.id, runs.c.turn == run.turn).values(turn=run.turn + 1, **changes)
    )
    return moved.rowcount == 1


def lock(tx: Connection, run_id: str) -> Run | None:
    """The run, kept from ending until this transaction does."""
    row = tx.execute(select(runs).where(runs.c.id == run_id).with_for_update(read=True)).mappings().one_or_none()
    return None if row is None else Run(**row)


def unblock(tx: Connection, run_id: str) -> bool:
    """Let a blocked run be tried again by the code that blocked it; False when it is not blocked."""
    changed = tx.execute(
        update(runs).where(runs.c.id == run_id, runs.c.status == "blocked").values(blocked_version=None)
    )
    return changed.rowcount == 1


def newest(tx: Connection, *, status: str | None, name: str | None, limit: int) -> list[Run]:
    """The newest runs, by status and by name."""
    query = select(runs).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    if status is not None:
        query = query.where(runs.c.status == status)
    if name is not None:
        query = query.where(runs.c.name == name)
    return [Run(**row) for row in tx.execute(query).mappings()]


def ended(tx: Connection, run_id: str, *, seq: int, at: int) -> None:
    """Note where the log ends for good, in a transaction that has passed the fence."""
    tx.execute(update(runs).where(runs.c.id == run_id).values(seq=seq, last_at=at, completed_at=at))
