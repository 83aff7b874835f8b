"""
Rows of runs.

Each turn increments ``turn`` with ``WHERE turn = <the number it read>``.  This is the fence: of two turns that read the
same row, the second changes no row and must not commit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ARRAY, Connection, String, any_, bindparam, insert, literal, select, text, update

from ..errors import DecryptionError
from . import pauses, vault
from .attributes import matching
from .schema import runs
from .statements import Prepared
from .transitions import ENDED, RunStatus
from .vault import Vault

#: The place of the trace context within its run, which encryption binds it to.
_CONTEXT = "trace_context"


# Without slots, so that ``changed`` need not call the constructor.
@dataclass(frozen=True, kw_only=True)
class Run:
    """
    A run's row.

    Attributes:
        status: The text of a ``RunStatus``.
    """

    id: str
    name: str
    status: str
    turn: int
    seq: int
    last_at: int
    queue: str | None
    priority: int | None
    digest: str
    created_at: int
    idempotency_key: str | None = None
    code_version: str | None = None
    python_version: str | None = None
    parent_run_id: str | None = None
    parent_op_id: str | None = None
    not_before: int | None = None
    blocked: str | None = None
    blocked_version: str | None = None
    started_at: int | None = None
    completed_at: int | None = None
    turn_tries: int | None = None
    turn_tried: str | None = None
    trace_context: str | None = None
    mistake_at: int | None = None
    first_run_id: str | None = None
    generation: int | None = None
    scheduled_for: int | None = None
    forked_from: str | None = None
    paused_at: int | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def changed(self, changes: Mapping[str, Any]) -> Run:
        """Return the row with other values in these columns.  ``dataclasses.replace`` takes ten times as long."""
        after = object.__new__(Run)
        after.__dict__.update(self.__dict__, **changes)
        return after


def find(tx: Connection, run_id: str) -> Run | None:
    """The run with this id."""
    return _one(tx, runs.c.id == run_id)


_TURN = Prepared(select(runs.c.turn).where(runs.c.id == bindparam("run")))


def find_turn(tx: Connection, run_id: str) -> int | None:
    """The number of the run's turns that are committed."""
    row = _TURN.one(tx, {"run": run_id})
    return None if row is None else int(row.turn)


def names_of(tx: Connection, ids: Collection[str]) -> dict[str, str]:
    """The workflows of these runs, by run."""
    rows = tx.execute(select(runs.c.id, runs.c.name).where(runs.c.id.in_(ids)))
    return {row.id: row.name for row in rows}


def find_by_key(tx: Connection, key: str) -> Run | None:
    """The run that was started with this idempotency key."""
    return _one(tx, runs.c.idempotency_key == key)


def find_by_keys(tx: Connection, keys: Collection[str]) -> list[Run]:
    """The runs that were started with one of these idempotency keys."""
    if not keys:
        return []
    column = runs.c.idempotency_key
    # One array on PostgreSQL: a list of parameters is compared one by one where the planner takes no index.
    is_array = tx.dialect.name == "postgresql"
    is_one = column == any_(literal(list(keys), ARRAY(String))) if is_array else column.in_(keys)
    return [Run(**row) for row in tx.execute(select(runs).where(is_one)).mappings()]


def _one(tx: Connection, where: Any) -> Run | None:
    row = tx.execute(select(runs).where(where)).mappings().one_or_none()
    return None if row is None else Run(**row)


def create(tx: Connection, run: Run) -> None:
    """Insert the row; raises IntegrityError when the id or the idempotency key exists."""
    tx.execute(insert(runs), values(tx, run))


def values(tx: Connection, run: Run) -> dict[str, Any]:
    """The columns of a new run's row, its digest and its trace context as they are stored."""
    row = {name: getattr(run, name) for name in runs.c.keys()}  # noqa: SIM118
    own_vault = vault.of(tx)
    sealed = own_vault.seal(tx, run.id, _CONTEXT, run.trace_context)
    return row | {"digest": own_vault.keyed(run.digest), "trace_context": sealed}


def trace_context(own_vault: Vault, run_id: str, stored: str | None) -> str | None:
    """The trace context of a run, decrypted; None when this process does not have the key."""
    try:
        return own_vault.unseal(run_id, _CONTEXT, stored)
    except DecryptionError:
        return None


def advance(tx: Connection, run: Run, **changes: Any) -> bool:
    """Increment the turn and write *changes*; False when another turn has been committed since the run was read."""
    if run.turn_tried is not None:
        changes |= {"turn_tries": None, "turn_tried": None}
    return _advance(tx, run, changes, "")


def advance_unseen(tx: Connection, run: Run, **changes: Any) -> bool:
    """As ``advance``, for a turn that has not read the run; False also when the run has inbox items or crash notes."""
    return _advance(tx, run, changes, _IS_UNTOUCHED)


_IS_UNTOUCHED = (
    " AND durable_runs.turn_tried IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM durable_inbox WHERE durable_inbox.run_id = durable_runs.id)"
)


def _advance(tx: Connection, run: Run, changes: Mapping[str, Any], condition: str) -> bool:
    changed = _advancing(tuple(changes), condition).changed(tx, {**changes, "of_run": run.id, "of_turn": run.turn})
    return changed == 1


@lru_cache(maxsize=64)
def _advancing(columns: tuple[str, ...], condition: str) -> Prepared:
    """The fence, for each set of columns that a turn changes."""
    changed = "".join(f", {name} = :{name}" for name in columns)
    where = f"durable_runs.id = :of_run AND durable_runs.turn = :of_turn{condition}"
    return Prepared(text(f"UPDATE durable_runs SET turn = :of_turn + 1{changed} WHERE {where}"))


def record_tries(tx: Connection, run: Run, *, tries: int, tried: str) -> bool:
    """Write the crash notes of the run's next turn; False when they or the turn have changed since the run was read."""
    is_unchanged = runs.c.turn_tried.is_(None) if run.turn_tried is None else runs.c.turn_tried == run.turn_tried
    written = tx.execute(
        update(runs)
        .where(runs.c.id == run.id, runs.c.turn == run.turn, is_unchanged)
        .values(turn_tries=tries, turn_tried=tried)
    )
    return written.rowcount == 1


def lock(tx: Connection, run_id: str) -> Run | None:
    """The run, its row locked: no turn of it commits before this transaction ends."""
    row = tx.execute(select(runs).where(runs.c.id == run_id).with_for_update()).mappings().one_or_none()
    return None if row is None else Run(**row)


def invalidate_turn(tx: Connection, run_id: str) -> None:
    """Make the turn that is under way fail at its fence, so that it is done again and reads what has changed."""
    tx.execute(update(runs).where(runs.c.id == run_id).values(turn=runs.c.turn + 1))


def unblock(tx: Connection, run_id: str) -> bool:
    """Let the code version that blocked a run try it again; False when the run is not blocked."""
    changed = tx.execute(
        update(runs).where(runs.c.id == run_id, runs.c.status == RunStatus.BLOCKED).values(blocked_version=None)
    )
    return changed.rowcount == 1


def beginning_with(tx: Connection, prefix: str, limit: int) -> list[Run]:
    """
    The runs whose id begins with *prefix*, in the order of their ids.

    Args:
        prefix: Characters of a generated id: digits and letters from a to f, which all collations sort alike.
    """
    within = (runs.c.id >= prefix, runs.c.id < f"{prefix}g")
    return [Run(**row) for row in tx.execute(select(runs).where(*within).order_by(runs.c.id).limit(limit)).mappings()]


def newest(
    tx: Connection,
    *,
    status: str | None,
    name: str | None,
    attributes: Mapping[str, str],
    since: int,
    limit: int,
    until: int | None = None,
    after: tuple[int, str] | None = None,
    paused: bool = False,
) -> list[Run]:
    """
    The newest runs that match every filter, created at *since* or later.

    Args:
        until: Only runs that were created before.
        after: ``(created_at, id)`` of the last run of the previous page.
        paused: Only runs that are paused.
    """
    query = select(runs).order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)
    query = query.where(*matching(runs.c.id, attributes))
    if status is not None:
        query = query.where(runs.c.status == status)
    if name is not None:
        query = query.where(runs.c.name == name)
    if paused:
        query = query.where(pauses.is_paused())
    if since:
        query = query.where(runs.c.created_at >= since)
    if until is not None:
        query = query.where(runs.c.created_at < until)
    if after is not None:
        at, run_id = after
        query = query.where(runs.c.created_at <= at, (runs.c.created_at < at) | (runs.c.id < run_id))
    return [Run(**row) for row in tx.execute(query).mappings()]


def changed(tx: Connection, since: int, limit: int) -> list[Run]:
    """The runs whose last event is at *since* or later, and the blocked ones; the newest runs first."""
    is_changed = (runs.c.status.not_in(ENDED) | (runs.c.completed_at >= since)) & (runs.c.last_at >= since)
    query = select(runs).where(is_changed | (runs.c.status == RunStatus.BLOCKED))
    rows = tx.execute(query.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit)).mappings()
    return [Run(**row) for row in rows][::-1]


def open_children(tx: Connection, run_id: str, limit: int | None = None) -> list[Run]:
    """Child runs of this run that have not ended; at most *limit*."""
    query = select(runs).where(runs.c.parent_run_id == run_id, runs.c.status.not_in(ENDED)).order_by(runs.c.id)
    return [Run(**row) for row in tx.execute(query.limit(limit)).mappings()]


def open_children_of(tx: Connection, run_ids: Collection[str]) -> list[str]:
    """The ids of the child runs of these runs that have not ended, in their order."""
    query = select(runs.c.id).where(runs.c.parent_run_id.in_(run_ids), runs.c.status.not_in(ENDED))
    return list(tx.execute(query.order_by(runs.c.id)).scalars())


def root_of(tx: Connection, run: Run) -> str:
    """The id of the run at the top of the run's parents; its own, if it has none."""
    if run.parent_run_id is None:
        return run.id
    above = select(runs.c.id, runs.c.parent_run_id).where(runs.c.id == run.parent_run_id).cte("above", recursive=True)
    above = above.union_all(select(runs.c.id, runs.c.parent_run_id).where(runs.c.id == above.c.parent_run_id))
    # A parent that is deleted ends the chain.
    found = {row.id: row.parent_run_id for row in tx.execute(select(above))}
    return next((run_id for run_id, parent in found.items() if parent not in found), run.parent_run_id)


def record_end(tx: Connection, run_id: str, *, seq: int, at: int) -> None:
    """Write the last event's number and time, in a transaction that has passed the fence."""
    _RECORD_END.changed(tx, {"run": run_id, "seq": seq, "at": at})


_RECORD_END = Prepared(
    text("UPDATE durable_runs SET seq = :seq, last_at = :at, completed_at = :at WHERE durable_runs.id = :run")
)
