"""
The lines of limits: the order in which steps wait.

A step waits in one line at a time: that of a limit without room, those with keys first.  In a line, steps of a higher
priority come first.  Among those of one priority, owners take turns: a step's place is the one behind its owner's last
step in the line, but never before the first place that is still waiting.  So an owner that comes late begins at the
head of the line, and not behind all that the others have waiting there.  (This is start-time fair queueing with equal
weights: P. Goyal et al., SIGCOMM 1996.)  To find a place takes two looks into an index, however long the line is.

The owner is the run at the top of the step's parents.  In a line that the step comes to from the line of a key, the
owner is that key.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, case, insert, literal_column, select, union_all, update

from .limits import (
    ADMITTED,
    BATCH,
    DELAYED,
    ELSEWHERE,
    IS_STEP,
    WAITING,
    LimitKey,
    any_of,
    check_at,
    delete_rows,
    is_line,
    is_of,
    keys_of,
    level_of,
)
from .schema import step_limits, steps
from .transitions import StepStatus

#: The most lines that one query looks into.
_LINES = 50


@dataclass(frozen=True, slots=True)
class LimitedCall:
    """A new step, its limits, and its priority as Celery counts it on RabbitMQ: the highest comes first."""

    op_id: str
    keys: Sequence[LimitKey]
    priority: int | None = None

    @property
    def level(self) -> int:
        """The priority as the table has it."""
        return level_of(self.priority)


class Share(NamedTuple):
    """What one owner has in one level of a line."""

    key: LimitKey
    level: int
    owner: str


def first_of(keys: Sequence[LimitKey]) -> LimitKey:
    """The limit for which a step waits first."""
    return min(keys, key=lambda each: each.rank)


def wait(tx: Connection, run_id: str, root_id: str, calls: Sequence[LimitedCall], now: int) -> None:
    """
    Put new steps into the lines of their limits.

    Args:
        root_id: The run at the top of the run's parents.
        calls: In their order.
    """
    rows: list[dict[str, Any]] = []
    for number, call in enumerate(calls, 1 - len(calls)):
        first = first_of(call.keys)
        # A microsecond apart, so that they begin in the order of their calls.
        row = {"run_id": run_id, "op_id": call.op_id, "ready_at": now + number, "level": call.level, "place": 0}
        for key in call.keys:
            own = {"state": WAITING if key == first else ELSEWHERE, "owner": _owner(key, first, root_id)}
            rows.append(row | key._asdict() | own)
    if rows:
        _give_places(tx, [row for row in rows if row["state"] == WAITING])
        tx.execute(insert(step_limits), rows)
        check_at(tx, {key for call in calls for key in call.keys}, now)


def _owner(key: LimitKey, first: LimitKey, root_id: str) -> str:
    return first.key if first.key and first != key else root_id


def wait_again(tx: Connection, run_id: str, op_id: str, ready_at: int) -> list[LimitKey]:
    """Give the slots of a step back, and let it wait for another attempt at a time; its limits, if it has any."""
    keys = keys_of(tx, run_id, op_id)
    for key in keys:
        state = DELAYED if key == first_of(keys) else ELSEWHERE
        changes = {"state": state, "ready_at": ready_at}
        tx.execute(update(step_limits).where(*is_of(run_id, op_id, key.name)).values(changes))
    check_at(tx, keys, ready_at)
    return keys


def end_delays(tx: Connection, key: LimitKey, now: int) -> None:
    """Put steps into the line of a key whose next attempt may begin now."""
    columns = (step_limits.c.run_id, step_limits.c.op_id, step_limits.c.level, step_limits.c.owner)
    due = select(*columns).where(*is_line(key, DELAYED), step_limits.c.ready_at <= now)
    rows = [
        dict(row) | key._asdict() for row in tx.execute(due.order_by(step_limits.c.ready_at).limit(BATCH)).mappings()
    ]
    enter(tx, rows)


def delayed_until(tx: Connection, key: LimitKey) -> int | None:
    """When the first of a key's attempts may begin that are not ready yet."""
    first = select(step_limits.c.ready_at).where(*is_line(key, DELAYED)).order_by(step_limits.c.ready_at).limit(1)
    return tx.execute(first).scalar_one_or_none()


def enter(tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Put steps into lines, in their order; each row is ``{run_id, op_id, name, key, level, owner}``."""
    if not rows:
        return
    _give_places(tx, rows)
    this = [step_limits.c[name] == bindparam(f"of_{name}") for name in ("run_id", "op_id", "name")]
    change = update(step_limits).where(*this).values(state=WAITING, place=bindparam("to_place"))
    tx.execute(change, [{f"of_{name}": row[name] for name in row} | {"to_place": row["place"]} for row in rows])


def leave(tx: Connection, run_id: str, op_id: str, name: str) -> None:
    """Note that a step waits in another line."""
    tx.execute(update(step_limits).where(*is_of(run_id, op_id, name)).values(state=ELSEWHERE))


def forget(tx: Connection, run_id: str) -> list[LimitKey]:
    """Delete the rows of the run's steps that have ended.  Return the keys that may have room now."""
    query = (
        select(step_limits.c.op_id, step_limits.c.name, step_limits.c.key, step_limits.c.state)
        .outerjoin(steps, IS_STEP)
        .where(step_limits.c.run_id == run_id, steps.c.run_id.is_(None))
        .order_by(step_limits.c.op_id, step_limits.c.name)
    )
    gone = tx.execute(query).all()
    delete_rows(tx, [(run_id, row.op_id, row.name) for row in gone])
    return sorted({LimitKey(row.name, row.key) for row in gone if row.state == ADMITTED})


def _give_places(tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Set ``place`` of rows that come into a line, in their order."""
    shares = [Share(LimitKey(row["name"], row["key"]), row["level"], row["owner"] or row["run_id"]) for row in rows]
    places = _next_places(tx, list(dict.fromkeys(shares)))
    for row, share in zip(rows, shares, strict=True):
        row["place"] = places[share]
        places[share] += 1


def _next_places(tx: Connection, shares: Sequence[Share]) -> dict[Share, int]:
    """The place of the next step of each share."""
    places: dict[Share, int] = {}
    for first in range(0, len(shares), _LINES):
        some = shares[first : first + _LINES]
        looks = []
        for number, share in enumerate(some):
            in_line = select(step_limits.c.place).where(
                *is_line(share.key, WAITING), step_limits.c.level == share.level
            )
            of_owner = in_line.where(step_limits.c.owner == share.owner)
            head = in_line.order_by(step_limits.c.place).limit(1).scalar_subquery()
            last = of_owner.order_by(step_limits.c.place.desc()).limit(1).scalar_subquery()
            looks.append(select(literal_column(f"{number}").label("number"), head.label("head"), last.label("last")))
        for row in tx.execute(looks[0] if len(looks) == 1 else union_all(*looks)):
            after = 0 if row.last is None else row.last + 1
            places[some[row.number]] = max(after, row.head or 0)
    return places


def check_runs(tx: Connection, run_ids: Collection[str], now: int) -> None:
    """Have the keys of these runs' steps checked at once; it locks their rows, so it comes before the steps."""
    query = select(step_limits.c.name, step_limits.c.key).where(step_limits.c.run_id.in_(run_ids)).distinct()
    check_at(tx, [LimitKey(*row) for row in tx.execute(query)], now)


def set_aside(tx: Connection, run_ids: Collection[str], *which: ColumnElement[bool]) -> None:
    """
    Give the slots and places of pending steps back, since they are paused; ``check_runs`` comes before.

    Args:
        which: Only steps with these conditions.
    """
    pending = select(step_limits.c.run_id, step_limits.c.op_id).join(steps, IS_STEP).distinct()
    mine = (step_limits.c.run_id.in_(run_ids), steps.c.status == StepStatus.PENDING, *which)
    ids = sorted((row.run_id, row.op_id) for row in tx.execute(pending.where(*mine)))
    for first in range(0, len(ids), BATCH):
        some = any_of(step_limits, ids[first : first + BATCH])
        tx.execute(update(step_limits).where(some).values(state=ELSEWHERE))


def come_back(tx: Connection, run_ids: Collection[str], now: int, *which: ColumnElement[bool]) -> None:
    """Put pending steps that ``set_aside`` took out into their lines again; ``check_runs`` comes before."""
    query = select(step_limits.c.run_id, step_limits.c.op_id, step_limits.c.name, step_limits.c.key)
    mine = (step_limits.c.run_id.in_(run_ids), steps.c.status == StepStatus.PENDING, *which)
    keys: dict[tuple[str, str], list[LimitKey]] = {}
    for row in tx.execute(query.join(steps, IS_STEP).where(*mine).order_by(step_limits.c.run_id, step_limits.c.op_id)):
        keys.setdefault((row.run_id, row.op_id), []).append(LimitKey(row.name, row.key))
    waiting = [(run_id, op_id, first_of(found).name) for (run_id, op_id), found in keys.items()]
    ready_at = case((step_limits.c.ready_at > now, step_limits.c.ready_at), else_=now)
    for first in range(0, len(waiting), BATCH):
        some = any_of(step_limits, waiting[first : first + BATCH])
        tx.execute(update(step_limits).where(some).values(state=DELAYED, ready_at=ready_at))
