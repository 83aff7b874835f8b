"""
What a turn reads, its run and the run's inbox, in one query; and the commit of a plain turn.

A plain turn changes only the run, its log and inbox, and the steps that end and begin with it.  On PostgreSQL its
commit is one statement, elsewhere several in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, select, text

from ..events import Event
from . import run_log
from .claims import Claim
from .database import Store
from .event_rows import to_row
from .run_log import TURN_LIMIT, InboxItem, inbox_item
from .runs import Run
from .schema import inbox, runs
from .statements import Prepared
from .transitions import StepStatus

#: A turn with more events or more inbox items is not committed as a plain turn: each number needs its own statement.
MOST = 8
_EVENT = ("seq", "at", "kind", "op_id", "phase", "data", "value")
_BIG = frozenset({"seq", "at"})
_ADVANCE = (
    "UPDATE durable_runs SET turn = :turn + 1, seq = :seq, last_at = :last_at, status = :status,"
    " started_at = :run_started_at, completed_at = :completed_at, python_version = :python_version,"
    " blocked = NULL, blocked_version = NULL, turn_tries = NULL, turn_tried = NULL"
)
_AS_READ = "durable_runs.id = :run AND durable_runs.turn = :turn"
#: For a turn that has not read the run: no other turn may have been tried meanwhile.
_UNTRIED = " AND durable_runs.turn_tried IS NULL"
_HAS_CLAIM = (
    "durable_steps.run_id = :run AND durable_steps.op_id = :op AND durable_steps.claim = :claim"
    " AND NOT durable_steps.cancelled"
)
_CONTINUE_WITH_NEXT = (
    "UPDATE durable_steps SET op_id = :next_op, name = :next_name, attempt = 1, claim = :next_claim,"
    " claimed_at = :now, started_at = :now, queue = :queue, semantics = :semantics, message_id = NULL,"
    " deadline_at = NULL, heartbeat = NULL, heartbeat_at = NULL, not_before = 0, sends = 0, sent_at = NULL"
)
_STEP_VALUES = {
    "run_id": ":run",
    "op_id": ":next_op",
    "name": ":next_name",
    "attempt": "1",
    "status": f"'{StepStatus.CLAIMED}'",
    "claim": ":next_claim",
    "claimed_at": ":now",
    "started_at": ":now",
    "worker_id": ":worker_id",
    "queue": ":queue",
    "semantics": ":semantics",
    "not_before": "0",
    "cancelled": "false",
    "sends": "0",
}
_INSERT_STEP = f"INSERT INTO durable_steps ({', '.join(_STEP_VALUES)})"


_INBOX = [column.label(f"item_{column.name}") for column in inbox.c]
_TURN = Prepared(
    select(runs, *_INBOX)
    .outerjoin(inbox, inbox.c.run_id == runs.c.id)
    .where(runs.c.id == bindparam("run"))
    .order_by(inbox.c.id)
    .limit(TURN_LIMIT)
)


def read(tx: Connection, run_id: str) -> tuple[Run | None, list[InboxItem]]:
    """The run, and its inbox items as ``run_log.read_inbox`` returns them, read at one moment."""
    rows = _TURN.rows(tx, {"run": run_id})
    if not rows:
        return None, []
    run = Run(**{name: getattr(rows[0], name) for name in runs.c.keys()})  # noqa: SIM118
    return run, [inbox_item(tx, run_id, row, "item_") for row in rows if row.item_id is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainTurn:
    """
    What a plain turn writes.

    Attributes:
        before, after: The run's row as it was read, and as it becomes.
        new: The new events with their ``seq``; at least one.
        drained: Ids of the inbox items that have become events.
        ends: The attempt that ran in place and ends with this turn: its outcome is among the events, and was never in
            the inbox.
        begins: The attempt that this process runs next, in place.
        worker_id: This process.
    """

    before: Run
    after: Run
    new: Sequence[Event]
    drained: Sequence[int] = ()
    ends: Claim | None = None
    begins: Claim | None = None
    worker_id: str


class _NotWritten(Exception):
    """Rolls the transaction of a plain turn back."""


def commit(store: Store, turn: PlainTurn) -> bool:
    """
    Commit the turn.

    Returns:
        False, and nothing is written, when another turn has been committed, the attempt was given up, or the inbox has
        an item that the turn must not ignore.
    """
    try:
        with store.single_statement() as tx:
            if not _write(tx, turn):
                raise _NotWritten
    except _NotWritten:
        return False
    return True


def _write(tx: Connection, turn: PlainTurn) -> bool:
    parameters = _parameters(turn)
    if tx.dialect.name == "postgresql":
        rows = [to_row(tx, turn.after.id, event) for event in turn.new]
        parameters |= {f"{name}_{n}": row[name] for n, row in enumerate(rows) for name in _EVENT}
        sizes = len(turn.drained), len(turn.new)
        statement = _at_once(_needs_empty_inbox(turn), turn.ends is not None, turn.begins is not None, *sizes)
        return statement.changed(tx, parameters) == len(turn.new)
    parts = _one_by_one(_needs_empty_inbox(turn), turn.ends is not None, turn.begins is not None, len(turn.drained))
    if not all(tx.execute(each, parameters).rowcount for each in parts):
        return False
    run_log.append(tx, turn.after.id, turn.new)
    return True


def _needs_empty_inbox(turn: PlainTurn) -> bool:
    """Whether the inbox must have no other items: the turn has not read it, or ends the run."""
    return turn.ends is not None or turn.after.ended


def _parameters(turn: PlainTurn) -> dict[str, Any]:
    run = turn.after
    values: dict[str, Any] = {"run": run.id, "turn": turn.before.turn, "seq": run.seq, "last_at": run.last_at}
    values |= {"status": run.status, "run_started_at": run.started_at, "completed_at": run.completed_at}
    values |= {"python_version": run.python_version}
    values |= {f"drained_{n}": each for n, each in enumerate(turn.drained)}
    if turn.ends is not None:
        values |= {"op": turn.ends.op_id, "claim": turn.ends.claim}
    if turn.begins is not None:
        begins = turn.begins
        values |= {"next_op": begins.op_id, "next_name": begins.name, "next_claim": begins.claim}
        values |= {"now": begins.claimed_at, "queue": begins.queue, "semantics": begins.semantics}
        values |= {"worker_id": turn.worker_id}
    return values


def _fence(needs_empty_inbox: bool, ends: bool, drained: int) -> str:
    if not needs_empty_inbox:
        return _AS_READ
    others = f" AND durable_inbox.id NOT IN ({_drained(drained)})" if drained else ""
    inbox_is_empty = f" AND NOT EXISTS (SELECT 1 FROM durable_inbox WHERE durable_inbox.run_id = :run{others})"
    return _AS_READ + (_UNTRIED if ends else "") + inbox_is_empty


def _drained(count: int) -> str:
    return ", ".join(f":drained_{n}" for n in range(count))


@cache
def _one_by_one(needs_empty_inbox: bool, ends: bool, begins: bool, drained: int) -> tuple[TextClause, ...]:
    """The statements without the log's, each of which has to change a row; they lock the run, then the step."""
    parts = [f"{_ADVANCE} WHERE {_fence(needs_empty_inbox, ends, drained)}"]
    if ends and begins:
        parts.append(f"{_CONTINUE_WITH_NEXT} WHERE {_HAS_CLAIM}")
    elif ends:
        parts.append(f"DELETE FROM durable_steps WHERE {_HAS_CLAIM}")
    elif begins:
        parts.append(f"{_INSERT_STEP} VALUES ({', '.join(_STEP_VALUES.values())})")
    if drained:
        parts.append(f"DELETE FROM durable_inbox WHERE durable_inbox.id IN ({_drained(drained)})")
    return tuple(map(text, parts))


@cache
def _at_once(needs_empty_inbox: bool, ends: bool, begins: bool, drained: int, new: int) -> Prepared:
    """One statement for PostgreSQL; each part writes only if the part before it has found or written a row."""
    fence = f"SELECT id FROM durable_runs WHERE {_fence(needs_empty_inbox, ends, drained)} FOR UPDATE"
    parts, last = [f"fenced AS ({fence})"], "fenced"
    if ends:
        step = f"{_CONTINUE_WITH_NEXT} FROM fenced" if begins else "DELETE FROM durable_steps USING fenced"
        parts.append(f"step AS ({step} WHERE {_HAS_CLAIM} RETURNING 1)")
        last = "step"
    parts.append(f"advanced AS ({_ADVANCE} FROM {last} WHERE durable_runs.id = :run RETURNING 1)")
    if begins and not ends:
        parts.append(f"begun AS ({_INSERT_STEP} SELECT {', '.join(_STEP_VALUES.values())} FROM advanced)")
    if drained:
        ids = f"durable_inbox.id IN ({_drained(drained)})"
        parts.append(f"drained AS (DELETE FROM durable_inbox USING advanced WHERE {ids})")
    rows = ", ".join("(" + ", ".join(_cast(name, n) for name in _EVENT) + ")" for n in range(new))
    written = f"INSERT INTO durable_events (run_id, {', '.join(_EVENT)})"
    return Prepared(text(f"WITH {', '.join(parts)} {written} SELECT :run, new.* FROM advanced, (VALUES {rows}) AS new"))


def _cast(name: str, n: int) -> str:
    return f"CAST(:{name}_{n} AS {'bigint' if name in _BIG else 'text'})"
