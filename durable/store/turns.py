"""
What a turn reads, its run and the run's inbox, in one query; and the commit of a plain turn.

A plain turn changes only the run, its log and inbox, and the steps that end, begin and are created with it.  On
PostgreSQL its commit is one statement, elsewhere several in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import BindParameter, Connection, TextClause, bindparam, or_, select, text

from ..events import Event
from . import run_log, steps, waits
from . import turn_leases as leases
from .claims import Claim
from .database import NOW, Store
from .outbox import SendTimes
from .run_log import TURN_LIMIT, InboxItem, inbox_item
from .runs import Run
from .schema import inbox, runs, turn_leases
from .statements import Prepared, array
from .transitions import StepStatus
from .waits import DueWait

#: The run's row becomes that of the next turn.
_ADVANCE = (
    "UPDATE durable_runs SET turn = :turn + 1, seq = :seq, last_at = :last_at, status = :status,"
    " started_at = :run_started_at, completed_at = :completed_at, python_version = :python_version,"
    " blocked = NULL, blocked_version = NULL, mistake_at = NULL, turn_tries = NULL, turn_tried = NULL"
)
#: The row of the step that ends becomes that of the step that begins.
_CONTINUE = (
    "UPDATE durable_steps SET op_id = :next_op, name = :next_name, attempt = 1, claim = :next_claim,"
    " claimed_at = :now, started_at = :now, queue = :queue, semantics = :semantics, message_id = NULL,"
    " interruptions = NULL, deadline_at = NULL, heartbeat = NULL, heartbeat_at = NULL, not_before = 0, sends = 0,"
    " sent_at = NULL"
)
_BEGIN = (
    "INSERT INTO durable_steps (run_id, op_id, name, attempt, status, claim, claimed_at, started_at, worker_id,"
    " queue, semantics, not_before, cancelled, sends)"
    f" SELECT :run, :next_op, :next_name, 1, '{StepStatus.CLAIMED}', :next_claim, :now, :now, :worker_id,"
    " :queue, :semantics, 0, false, 0"
)
_IS_DUE = "durable_waits.run_id = :run AND durable_waits.op_id = :op AND durable_waits.due_at <= {now}"
_HAS_CLAIM = (
    "durable_steps.run_id = :run AND durable_steps.op_id = :op AND durable_steps.claim = :claim"
    " AND NOT durable_steps.cancelled"
)

_INBOX = [column.label(f"item_{column.name}") for column in inbox.c]
_IS_FREE = or_(
    turn_leases.c.holder.is_(None),
    turn_leases.c.holder == bindparam("holder"),
    turn_leases.c.expires_at <= bindparam("now"),
)
_TURN = Prepared(
    select(runs, *_INBOX)
    .outerjoin(turn_leases, turn_leases.c.run_id == runs.c.id)
    .outerjoin(inbox, (inbox.c.run_id == runs.c.id) & _IS_FREE)
    .where(runs.c.id == bindparam("run"))
    .order_by(inbox.c.id)
    .limit(TURN_LIMIT)
)
_OF_ITEM = [f"durable_inbox.{column.name} AS item_{column.name}" for column in inbox.c]
_COLUMNS = ", ".join([*(f"durable_runs.{column.name}" for column in runs.c), *_OF_ITEM])
_TAKE_AND_READ = Prepared(
    text(
        f"WITH lease AS ({leases.TAKE.format(now=NOW['postgresql'])} RETURNING {leases.HAS_WAITED} AS has_waited)"
        f" SELECT {_COLUMNS}, (SELECT has_waited FROM lease) FROM durable_runs"
        " LEFT JOIN durable_inbox ON durable_inbox.run_id = durable_runs.id"
        " WHERE durable_runs.id = :run AND EXISTS (SELECT 1 FROM lease) ORDER BY durable_inbox.id LIMIT :limit"
    )
)


def read(tx: Connection, run_id: str, now: int, holder: str | None = None) -> tuple[Run | None, list[InboxItem]]:
    """
    The run, and its inbox items as ``run_log.read_inbox`` returns them, read at one moment.

    No items while another than *holder* has the lease of the run's turns.
    """
    rows = _TURN.rows(tx, {"run": run_id, "now": now, "holder": holder})
    return _run_and_items(tx, rows) if rows else (None, [])


def _run_and_items(tx: Connection, rows: Sequence[Any]) -> tuple[Run, list[InboxItem]]:
    run = Run(**{name: getattr(rows[0], name) for name in runs.c.keys()})  # noqa: SIM118
    return run, [inbox_item(tx, run.id, row, "item_") for row in rows if row.item_id is not None]


@contextmanager
def read_under_lease(
    store: Store, run_id: str, holder: str, *, worker_id: str, ttl: int
) -> Iterator[tuple[Connection, Run, list[InboxItem]] | None]:
    """
    Take the lease of a run's turns, as ``turn_leases.take`` does, and read as ``read`` does: at once on PostgreSQL.

    Yields the connection to read more with, the run and its inbox; None while another holder has the lease.
    """
    if store.dialect == "postgresql":
        parameters = {"run": run_id, "holder": holder, "worker_id": worker_id, "ttl": ttl, "limit": TURN_LIMIT}
        with store.unsynced() as tx:
            rows = _TAKE_AND_READ.rows(tx, parameters)
            if rows and rows[0].has_waited:
                rows = _TURN.rows(tx, {"run": run_id, "now": store.now(), "holder": holder})
            yield (tx, *_run_and_items(tx, rows)) if rows else None
        return
    if not leases.take(store, run_id, holder, worker_id=worker_id, ttl=ttl):
        yield None
        return
    with store.read() as tx:
        run, items = read(tx, run_id, store.now(), holder)
        yield None if run is None else (tx, run, items)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainTurn:
    """
    What a plain turn writes.

    Attributes:
        before, after: The run's row as it was read, and as it becomes.
        new: The new events with their ``seq``; at least one.
        drained: Ids of the inbox items that have become events.
        ends: The attempt that ran in place and ends with this turn, or the wait: its outcome is among the events, and
            was never in the inbox.
        is_unread: Whether the turn has read neither the run's row nor its inbox.
        releases: Who holds the lease of the run's turns, if the turn releases it.
        begins: The attempt that this process runs next, in place.
        creates: The rows of other new steps, as ``steps.create`` takes them, and when their messages are sent.
        waits: The rows of new waits, as ``waits.create`` takes them.
        withdraws: The operations of waits that the run no longer has; not of the wait that ends.
        worker_id: This process.
    """

    before: Run
    after: Run
    new: Sequence[Event]
    drained: Sequence[int] = ()
    ends: Claim | DueWait | None = None
    is_unread: bool = False
    releases: str | None = None
    begins: Claim | None = None
    creates: Sequence[dict[str, Any]] = ()
    waits: Sequence[dict[str, Any]] = ()
    withdraws: Sequence[str] = ()
    sending: SendTimes
    worker_id: str


class _NotWritten(Exception):
    """Rolls the transaction of a plain turn back."""


def commit(store: Store, turn: PlainTurn) -> bool:
    """
    Commit the turn.

    Returns:
        False, and nothing is written, when another turn has been committed, the attempt was given up, the wait is over
        or not due by the database's clock, or the inbox has an item that the turn must not ignore.
    """
    try:
        with store.single_statement() as tx:
            if not _write(tx, turn, store.sql_now_text):
                raise _NotWritten
    except _NotWritten:
        return False
    return True


def commit_all(store: Store, turns: Sequence[PlainTurn]) -> list[bool]:
    """
    Commit turns of several runs in one transaction; each is written or not, as with ``commit``.

    Args:
        turns: In the order of their runs' ids, so that two such transactions do not wait for each other.
    """
    now = store.sql_now_text
    with store.begin() as tx:
        if store.dialect == "postgresql":
            counts = Prepared.changed_by_each(tx, [_statement_of(tx, turn, now) for turn in turns])
            return [count == len(turn.new) for count, turn in zip(counts, turns, strict=True)]
        written = []
        for turn in turns:
            savepoint = tx.begin_nested()
            written.append(_write(tx, turn, now))
            savepoint.commit() if written[-1] else savepoint.rollback()
        return written


def _statement_of(tx: Connection, turn: PlainTurn, now: str) -> tuple[Prepared, dict[str, Any]]:
    """The statement of a turn on PostgreSQL, which adds as many rows to the log as the turn has events, or none."""
    ends = None if turn.ends is None else "wait" if isinstance(turn.ends, DueWait) else "step"
    statement = _statement(
        ends,
        now,
        is_unread=turn.is_unread,
        begins=turn.begins is not None,
        creates=bool(turn.creates),
        creates_waits=bool(turn.waits),
        withdraws=bool(turn.withdraws),
        releases=turn.releases is not None,
    )
    parameters = _parameters(turn) | run_log.event_parameters(tx, turn.after.id, turn.new)
    parameters |= {"drained": array(turn.drained)}
    if turn.creates:
        parameters |= steps.first_attempt_parameters(turn.creates, turn.sending)
    if turn.waits:
        parameters |= waits.new_parameters(turn.waits)
    if turn.withdraws:
        parameters |= {"withdrawn": array(turn.withdraws)}
    return statement, parameters


def _write(tx: Connection, turn: PlainTurn, now: str) -> bool:
    if tx.dialect.name == "postgresql":
        statement, values = _statement_of(tx, turn, now)
        return statement.changed(tx, values) == len(turn.new)
    parameters = _parameters(turn)

    # Each has to change a row.  They lock the run, then the step or the wait.
    parts = [_ADVANCE_UNTOUCHED if turn.is_unread else _ADVANCE_AS_READ]
    if isinstance(turn.ends, Claim):
        parts.append(_END_STEP if turn.begins is None else _CONTINUE_WITH_NEXT)
    else:
        parts += [_end_wait(now)] if turn.ends is not None else []
        parts += [_BEGIN_STEP] if turn.begins is not None else []
    if turn.drained:
        parts.append(_DRAIN)
    parameters |= {"drained": turn.drained}
    if not all(tx.execute(part, parameters).rowcount for part in parts):
        return False
    run_log.append(tx, turn.after.id, turn.new)
    steps.create(tx, turn.creates, turn.sending)
    waits.withdraw(tx, turn.after.id, turn.withdraws)
    waits.create(tx, turn.waits)
    if turn.releases is not None:
        leases.RELEASE.changed(tx, parameters)
    return True


def _parameters(turn: PlainTurn) -> dict[str, Any]:
    run = turn.after
    values: dict[str, Any] = {"run": run.id, "turn": turn.before.turn, "seq": run.seq, "last_at": run.last_at}
    values |= {"status": run.status, "run_started_at": run.started_at, "completed_at": run.completed_at}
    values |= {"python_version": run.python_version, "ends_run": run.ended, "holder": turn.releases}
    if turn.ends is not None:
        values |= {"op": turn.ends.op_id, "claim": turn.ends.claim if isinstance(turn.ends, Claim) else None}
    if turn.begins is not None:
        begins = turn.begins
        values |= {"next_op": begins.op_id, "next_name": begins.name, "next_claim": begins.claim}
        values |= {"now": begins.claimed_at, "queue": begins.queue, "semantics": begins.semantics}
        values |= {"worker_id": turn.worker_id}
    return values


# The fence: the run is as the turn has read it, and no inbox item is left behind by a turn that ends the run, or that
# has not read the inbox.  A turn that has read nothing needs to find no notes of a crash either.

_OTHER_ITEMS = "SELECT 1 FROM durable_inbox WHERE durable_inbox.run_id = :run"
_IS_AS_READ = "durable_runs.id = :run AND durable_runs.turn = :turn"
_IS_UNTOUCHED = f"{_IS_AS_READ} AND durable_runs.turn_tried IS NULL AND NOT EXISTS ({_OTHER_ITEMS})"


# One statement each for PostgreSQL: each part writes only if the part before it has found or written a row.

_FENCED = (
    f"fenced AS (SELECT id FROM durable_runs WHERE {_IS_AS_READ} AND (NOT :ends_run"
    f" OR NOT EXISTS ({_OTHER_ITEMS} AND durable_inbox.id <> ALL (CAST(:drained AS bigint[])))) FOR UPDATE)"
)
_FENCED_UNTOUCHED = f"fenced AS (SELECT id FROM durable_runs WHERE {_IS_UNTOUCHED} FOR UPDATE)"
_ADVANCED = f"advanced AS ({_ADVANCE} FROM {{source}} WHERE durable_runs.id = :run RETURNING 1)"
_DRAINED = (
    "drained AS (DELETE FROM durable_inbox USING advanced WHERE durable_inbox.id = ANY (CAST(:drained AS bigint[])))"
)
_WITHDRAWN = (
    "withdrawn AS (DELETE FROM durable_waits USING advanced"
    " WHERE durable_waits.run_id = :run AND durable_waits.op_id = ANY (CAST(:withdrawn AS text[])))"
)
_RELEASED = (
    "released AS (DELETE FROM durable_turn_leases USING advanced"
    " WHERE durable_turn_leases.run_id = :run AND durable_turn_leases.holder = :holder)"
)
_LOG = f"INSERT INTO durable_events ({run_log.EVENT_COLUMNS}) SELECT :run, new.* FROM advanced, {run_log.NEW_EVENTS}"


@lru_cache(maxsize=256)
def _statement(
    ends: str | None,
    now: str,
    *,
    is_unread: bool,
    begins: bool,
    creates: bool,
    creates_waits: bool,
    withdraws: bool,
    releases: bool,
) -> Prepared:
    """The statement of a turn that *ends* a "step" or a "wait", *begins* an attempt, *creates* others, and so on."""
    parts = [_FENCED_UNTOUCHED if is_unread else _FENCED]
    if ends is None:
        parts.append(_ADVANCED.format(source="fenced"))
    else:
        if ends == "wait":
            ended = f"DELETE FROM durable_waits USING fenced WHERE {_IS_DUE.format(now=now)}"
        elif begins:
            ended = f"{_CONTINUE} FROM fenced WHERE {_HAS_CLAIM}"
        else:
            ended = f"DELETE FROM durable_steps USING fenced WHERE {_HAS_CLAIM}"
        parts += [f"ended AS ({ended} RETURNING 1)", _ADVANCED.format(source="ended")]
    if not is_unread:
        parts.append(_DRAINED)
    if begins and ends != "step":
        parts.append(f"begun AS ({_BEGIN} FROM advanced)")
    if creates:
        parts.append(f"created AS ({steps.insert_first_attempts('advanced')})")
    if creates_waits:
        parts.append(f"waiting AS ({waits.insert_new('advanced')})")
    if withdraws:
        parts.append(_WITHDRAWN)
    if releases:
        parts.append(_RELEASED)
    return Prepared(text(f"WITH {', '.join(parts)} {_LOG}"))


# One statement for each part, for the other databases.

_IDS: BindParameter[Any] = bindparam("drained", expanding=True)
_ADVANCE_AS_READ = text(
    f"{_ADVANCE} WHERE {_IS_AS_READ} AND (NOT :ends_run"
    f" OR NOT EXISTS ({_OTHER_ITEMS} AND durable_inbox.id NOT IN :drained))"
).bindparams(_IDS)
_ADVANCE_UNTOUCHED = text(f"{_ADVANCE} WHERE {_IS_UNTOUCHED}")
_CONTINUE_WITH_NEXT = text(f"{_CONTINUE} WHERE {_HAS_CLAIM}")
_END_STEP = text(f"DELETE FROM durable_steps WHERE {_HAS_CLAIM}")
_BEGIN_STEP = text(_BEGIN)
_DRAIN = text("DELETE FROM durable_inbox WHERE durable_inbox.id IN :drained").bindparams(_IDS)


@lru_cache(maxsize=16)
def _end_wait(now: str) -> TextClause:
    return text(f"DELETE FROM durable_waits WHERE {_IS_DUE.format(now=now)}")
