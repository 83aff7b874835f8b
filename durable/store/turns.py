"""What a turn reads: its run and the run's news, in one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, bindparam, select, text

from ..events import Event
from . import run_log
from .claims import Claim
from .event_rows import to_row
from .run_log import TURN_LIMIT, InboxItem, news
from .runs import Run
from .schema import inbox, runs
from .statements import Prepared

#: A turn with more events, or more news, is no plain one: each number has statements of its own.
MOST = 8
_EVENT = ("seq", "at", "kind", "op_id", "phase", "data", "value")
_BIG = frozenset({"seq", "at"})
_MOVE = (
    "UPDATE durable_runs SET turn = :turn + 1, seq = :seq, last_at = :last_at, status = :status,"
    " started_at = :run_started_at, completed_at = :completed_at, python_version = :python_version,"
    " blocked = NULL, blocked_version = NULL, turn_tries = NULL, turn_tried = NULL"
)
_AS_READ = "durable_runs.id = :run AND durable_runs.turn = :turn"
#: One that did not read the run has to find it as it left it: nobody has tried a turn of it since.
_UNTRIED = " AND durable_runs.turn_tried IS NULL"
_MINE = (
    "durable_steps.run_id = :run AND durable_steps.op_id = :op AND durable_steps.claim = :claim"
    " AND NOT durable_steps.cancelled"
)
_PASS = (
    "UPDATE durable_steps SET op_id = :next_op, name = :next_name, attempt = 1, claim = :next_claim,"
    " claimed_at = :now, started_at = :now, queue = :queue, semantics = :semantics, message_id = NULL,"
    " deadline_at = NULL, heartbeat = NULL, heartbeat_at = NULL, not_before = 0, sends = 0, sent_at = NULL"
)
_BEGIN = {
    "run_id": ":run",
    "op_id": ":next_op",
    "name": ":next_name",
    "attempt": "1",
    "status": "'claimed'",
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
_BEGUN = f"INSERT INTO durable_steps ({', '.join(_BEGIN)})"


_NEWS = [column.label(f"news_{column.name}") for column in inbox.c]
_TURN = Prepared(
    select(runs, *_NEWS)
    .outerjoin(inbox, inbox.c.run_id == runs.c.id)
    .where(runs.c.id == bindparam("run"))
    .order_by(inbox.c.id)
    .limit(TURN_LIMIT)
)


def read(tx: Connection, run_id: str) -> tuple[Run | None, list[InboxItem]]:
    """The run, and its news as ``log.drain`` returns them, as they were at one moment."""
    rows = _TURN.rows(tx, {"run": run_id})
    if not rows:
        return None, []
    run = Run(**{name: getattr(rows[0], name) for name in runs.c.keys()})  # noqa: SIM118
    return run, [news(tx, run_id, row, "news_") for row in rows if row.news_id is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainTurn:
    """
    What is written.

    Attributes:
        before, after: The run's row, as it was read and as it becomes.
        new: The log's new events, with their ``seq``; at least one.
        drained: Ids of the news that are in the log now.
        ends: The attempt whose outcome is among the events, though not among the news: nobody else has heard of it.
        begins: The attempt that is run next.
        worker_id: This process.
    """

    before: Run
    after: Run
    new: Sequence[Event]
    drained: Sequence[int] = ()
    ends: Claim | None = None
    begins: Claim | None = None
    worker_id: str


def write(tx: Connection, turn: PlainTurn) -> bool:
    """
    Write it.

    False when another turn was here, the attempt was given up, or there is news that the turn must not pass by.
    Then what was written must be undone, except on PostgreSQL, where nothing was.
    """
    known = _values(turn)
    if tx.dialect.name == "postgresql":
        known |= _events(tx, turn)
        sizes = len(turn.drained), len(turn.new)
        statement = _at_once(_is_alone(turn), turn.ends is not None, turn.begins is not None, *sizes)
        return statement.changed(tx, known) == len(turn.new)
    parts = _one_by_one(_is_alone(turn), turn.ends is not None, turn.begins is not None, len(turn.drained))
    if not all(tx.execute(each, known).rowcount for each in parts):
        return False
    run_log.append(tx, turn.after.id, turn.new)
    return True


def _is_alone(turn: PlainTurn) -> bool:
    """Whether news that the turn has not read forbid it: it did not look for any, or nobody will after it."""
    return turn.ends is not None or turn.after.ended


def _values(turn: PlainTurn) -> dict[str, Any]:
    run = turn.after
    known: dict[str, Any] = {"run": run.id, "turn": turn.before.turn, "seq": run.seq, "last_at": run.last_at}
    known |= {"status": run.status, "run_started_at": run.started_at, "completed_at": run.completed_at}
    known |= {"python_version": run.python_version}
    known |= {f"drained_{n}": each for n, each in enumerate(turn.drained)}
    if turn.ends is not None:
        known |= {"op": turn.ends.op_id, "claim": turn.ends.claim}
    return known if turn.begins is None else known | _beginning(turn.begins, turn.worker_id)


def _events(tx: Connection, turn: PlainTurn) -> dict[str, Any]:
    rows = [to_row(tx, turn.after.id, event) for event in turn.new]
    return {f"{name}_{n}": row[name] for n, row in enumerate(rows) for name in _EVENT}


def _beginning(to: Claim, worker_id: str) -> dict[str, Any]:
    return {
        "next_op": to.op_id,
        "next_name": to.name,
        "next_claim": to.claim,
        "now": to.claimed_at,
        "queue": to.queue,
        "semantics": to.semantics,
        "worker_id": worker_id,
    }


def _fence(alone: bool, ends: bool, drained: int) -> str:
    if not alone:
        return _AS_READ
    others = f" AND durable_inbox.id NOT IN ({_drained(drained)})" if drained else ""
    inbox_is_empty = f" AND NOT EXISTS (SELECT 1 FROM durable_inbox WHERE durable_inbox.run_id = :run{others})"
    return _AS_READ + (_UNTRIED if ends else "") + inbox_is_empty


def _drained(count: int) -> str:
    return ", ".join(f":drained_{n}" for n in range(count))


@cache
def _one_by_one(alone: bool, ends: bool, begins: bool, drained: int) -> tuple[TextClause, ...]:
    """The fence, and what follows it but the log, each of which has to change something; locks: run, then step."""
    parts = [f"{_MOVE} WHERE {_fence(alone, ends, drained)}"]
    if ends and begins:
        parts.append(f"{_PASS} WHERE {_MINE}")
    elif ends:
        parts.append(f"DELETE FROM durable_steps WHERE {_MINE}")
    elif begins:
        parts.append(f"{_BEGUN} VALUES ({', '.join(_BEGIN.values())})")
    if drained:
        parts.append(f"DELETE FROM durable_inbox WHERE durable_inbox.id IN ({_drained(drained)})")
    return tuple(map(text, parts))


@cache
def _at_once(alone: bool, ends: bool, begins: bool, drained: int, new: int) -> Prepared:
    """The same in one statement of PostgreSQL: each part writes only if the one before has."""
    fence = f"SELECT id FROM durable_runs WHERE {_fence(alone, ends, drained)} FOR UPDATE"
    parts, last = [f"here AS ({fence})"], "here"
    if ends:
        step = f"{_PASS} FROM here" if begins else "DELETE FROM durable_steps USING here"
        parts.append(f"step AS ({step} WHERE {_MINE} RETURNING 1)")
        last = "step"
    parts.append(f"moved AS ({_MOVE} FROM {last} WHERE durable_runs.id = :run RETURNING 1)")
    if begins and not ends:
        parts.append(f"begun AS ({_BEGUN} SELECT {', '.join(_BEGIN.values())} FROM moved)")
    if drained:
        ids = f"durable_inbox.id IN ({_drained(drained)})"
        parts.append(f"gone AS (DELETE FROM durable_inbox USING moved WHERE {ids})")
    rows = ", ".join("(" + ", ".join(_cast(name, n) for name in _EVENT) + ")" for n in range(new))
    written = f"INSERT INTO durable_events (run_id, {', '.join(_EVENT)})"
    return Prepared(text(f"WITH {', '.join(parts)} {written} SELECT :run, new.* FROM moved, (VALUES {rows}) AS new"))


def _cast(name: str, n: int) -> str:
    return f"CAST(:{name}_{n} AS {'bigint' if name in _BIG else 'text'})"
