"""
Limits of workflows: which runs may begin.

As with steps (``limits.py``), a run waits in one line at a time: that of a limit without room, those with keys first.
A run that is admitted uses its slots until its own row says that it has ended, so that no slot can leak.  The next
generation of a run takes the rows over.

The transactions that start and end a run write only rows of that run: those of one key do not wait for each other, also
in the transactions of callers.  ``admit_runs.py`` takes new runs into their lines after the commit, and admits those
that follow on an ended one.  What a crash leaves undone, the sweep finds by the state: NEW, or LEFT.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update

from .limits import LimitKey, Numbers, level_of
from .outbox import SendTimes
from .runs import Run
from .schema import inbox, limits, run_limit_keys, run_limits, runs
from .transitions import ENDED
from .upsert import upsert

#: The most runs of one line that are admitted in one transaction.
BATCH = 100

# The states of a run in one of its limits.  NEW: it is not in the line yet.  CANCELLING: it makes room for another.
# LEFT: it has ended.
NEW, WAITING, ELSEWHERE, ADMITTED = "new", "waiting", "elsewhere", "admitted"
CANCELLING, LEFT = "cancelling", "left"

#: The states of a run in the limit that it waits for.
IN_LINE = (NEW, WAITING)
#: The states of a run that has a slot.
HELD = (ADMITTED, CANCELLING)


class RunLimit(NamedTuple):
    """
    A limit of a new run.

    Attributes:
        on_conflict: What happens when there is no room: "queue", "cancel_new" or "cancel_running".
        wait, at_most: Of a debounce, in microseconds; None for other limits.
    """

    key: LimitKey
    on_conflict: str = "queue"
    wait: int | None = None
    at_most: int | None = None


class LineKey(NamedTuple):
    """A key's row: when its rate has recovered, and for a debounce the run that was started last."""

    recovers_at: int
    next_check_at: int | None
    waiting_run_id: str | None
    waits_since: int | None


class Declared(NamedTuple):
    """A limit in the database: its numbers in force, and its kind."""

    numbers: Numbers
    kind: str | None


# Runs


def enter(tx: Connection, new: Sequence[tuple[Run, Sequence[RunLimit]]]) -> None:
    """Note that these new runs, in this order, wait for their limits.  Their messages are not sent."""
    rows = []
    for place, (run, its_limits) in enumerate(new, 1 - len(new)):
        # A microsecond apart, so that they begin in the order of their starts.
        ready_at = max((run.not_before or 0), run.created_at + sum(each.wait or 0 for each in its_limits)) + place
        first = min((each.key for each in its_limits), key=lambda key: key.rank, default=None)
        for key, on_conflict, *_ in its_limits:
            state = {"state": NEW if key == first else ELSEWHERE, "ready_at": ready_at, "on_conflict": on_conflict}
            rows.append({"run_id": run.id, "level": level_of(run.priority)} | key._asdict() | state)
    if rows:
        tx.execute(insert(run_limits), rows)


def hold(tx: Connection, run_id: str) -> None:
    """Send nothing for a new run until it is admitted."""
    tx.execute(update(inbox).where(inbox.c.run_id == run_id).values(next_send_at=None, sent_at=None))


def release(tx: Connection, run_ids: Collection[str], sending: SendTimes) -> None:
    """Note when the messages of admitted runs are sent."""
    held = inbox.c.run_id.in_(run_ids) & inbox.c.next_send_at.is_(None)
    tx.execute(update(inbox).where(held).values(sending.values()))


def states_of(tx: Connection, run_id: str) -> list[tuple[LimitKey, str]]:
    """The limits of a run, each with its state."""
    query = select(run_limits.c.name, run_limits.c.key, run_limits.c.state).where(run_limits.c.run_id == run_id)
    return [(LimitKey(row.name, row.key), row.state) for row in tx.execute(query.order_by(run_limits.c.name))]


def hand_over(tx: Connection, run_id: str, next_run_id: str) -> None:
    """Give the slots of a run to its next generation."""
    tx.execute(update(run_limits).where(run_limits.c.run_id == run_id).values(run_id=next_run_id))


def leave(tx: Connection, run_id: str) -> None:
    """Note that a run ends, in the transaction of its end; the admission of those that follow deletes the rows."""
    tx.execute(update(run_limits).where(run_limits.c.run_id == run_id).values(state=LEFT))


def using(tx: Connection, key: LimitKey) -> list[tuple[str, str]]:
    """The runs that have a slot of a key, oldest first, each with its state; deletes rows of runs that have ended."""
    query = (
        select(run_limits.c.run_id, run_limits.c.state, runs.c.status)
        .outerjoin(runs, runs.c.id == run_limits.c.run_id)
        .where(is_of(key), run_limits.c.state.in_(HELD))
        .order_by(run_limits.c.ready_at, run_limits.c.run_id)
    )
    rows = tx.execute(query).all()
    drop(tx, key, [row.run_id for row in rows if row.status is None or row.status in ENDED])
    return [(row.run_id, row.state) for row in rows if row.status is not None and row.status not in ENDED]


def drop(tx: Connection, key: LimitKey, run_ids: Sequence[str]) -> None:
    """Delete the rows of these runs in a limit."""
    for first in range(0, len(run_ids), BATCH):
        some = run_limits.c.run_id.in_(run_ids[first : first + BATCH])
        tx.execute(delete(run_limits).where(some, run_limits.c.name == key.name))


# Keys


def keys_due(tx: Connection, now: int, limit: int) -> list[LimitKey]:
    """The keys that the sweep checks now: first those with runs that are new, or have left."""
    new = select(run_limits.c.name, run_limits.c.key, func.min(run_limits.c.ready_at).label("at"))
    new = new.where(run_limits.c.state.in_((NEW, LEFT))).group_by(run_limits.c.name, run_limits.c.key)
    due = select(run_limit_keys.c.name, run_limit_keys.c.key).where(run_limit_keys.c.next_check_at <= now)
    found = [LimitKey(row.name, row.key) for row in tx.execute(new.order_by("at").limit(limit))]
    rows = tx.execute(due.order_by(run_limit_keys.c.next_check_at).limit(limit - len(found)))
    return list(dict.fromkeys((*found, *(LimitKey(row.name, row.key) for row in rows))))


def next_time(tx: Connection, now: int) -> int | None:
    """When a time lets a run begin that waits: its own, or that of a rate; None when only the end of another does."""
    in_line = run_limits.c.state.in_(IN_LINE)
    own = select(func.min(run_limits.c.ready_at)).where(in_line, run_limits.c.ready_at > now)
    rates = (
        select(func.min(run_limit_keys.c.next_check_at))
        .join(limits, limits.c.name == run_limit_keys.c.name)
        .join(run_limits, (run_limits.c.name == run_limit_keys.c.name) & (run_limits.c.key == run_limit_keys.c.key))
        .where(in_line, limits.c.per.is_not(None))
    )
    moments = [at for query in (own, rates) if (at := tx.execute(query).scalar()) is not None]
    return min(moments, default=None)


def lock_keys(tx: Connection, wanted: Collection[LimitKey], check_at: int) -> dict[LimitKey, LineKey]:
    """
    Lock the rows of these keys, in their order, and read them.

    Args:
        check_at: When the sweep checks those that have had no row.
    """
    new = [{**key._asdict(), "recovers_at": 0, "next_check_at": check_at} for key in sorted(wanted)]
    upsert(tx, run_limit_keys, new, lambda _: {"name": run_limit_keys.c.name})
    columns = run_limit_keys.c
    query = select(columns.name, columns.key, *(columns[name] for name in LineKey._fields))
    found: dict[LimitKey, LineKey] = {}
    for name in {key.name for key in wanted}:
        keys = [key.key for key in wanted if key.name == name]
        rows = tx.execute(query.where(columns.name == name, columns.key.in_(keys)).with_for_update())
        found |= {LimitKey(name, key): LineKey(*rest) for _, key, *rest in rows}
    return found


def change_key(tx: Connection, key: LimitKey, **changes: object) -> None:
    """Change the row of a key, which is locked."""
    tx.execute(update(run_limit_keys).where(_is_key(key)).values(**changes))


def remove_key(tx: Connection, key: LimitKey) -> None:
    """Delete the row of a key, which is locked and has nothing to say."""
    tx.execute(delete(run_limit_keys).where(_is_key(key)))


def declared(tx: Connection, names: Collection[str]) -> Mapping[str, Declared]:
    """The limits with these names that the database knows."""
    number = func.coalesce(limits.c.set_n, limits.c.n)
    query = select(limits.c.name, limits.c.kind, number, limits.c.per, limits.c.burst)
    rows = tx.execute(query.where(limits.c.name.in_(names)))
    return {name: Declared(Numbers(*numbers), kind) for name, kind, *numbers in rows}


# Conditions


def is_of(key: LimitKey) -> ColumnElement[bool]:
    """Whether a run's row is of this limit and key."""
    return (run_limits.c.name == key.name) & (run_limits.c.key == key.key)


def _is_key(key: LimitKey) -> ColumnElement[bool]:
    return (run_limit_keys.c.name == key.name) & (run_limit_keys.c.key == key.key)
