"""
What can be wrong with limits, for ``durable doctor``.

Each query reads a bounded number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, exists, func, or_, select

from .backlog import BOUND
from .limit_rooms import LockedKey, of_limit, room_of
from .limits import ADMITTED, DELAYED, ELSEWHERE, IS_STEP, WAITING, Numbers
from .schema import limit_keys, limits, step_limits, steps, workers
from .transitions import StepStatus

#: The most keys that are examined: those that are checked next.
MOST_KEYS = 200


@dataclass(frozen=True, slots=True)
class KeyState:
    """
    A key that has a row.

    Attributes:
        numbers: Those in force; None for a limit of which the database does not know.
        waits_since: Since when the first step of its line waits; None if none does.
        room: How many attempts may begin now.
        is_left: Whether its room is left for steps that wait for another limit.
    """

    name: str
    key: str
    numbers: Numbers | None
    in_use: int
    room: int
    paused_until: int | None
    waits_since: int | None
    is_left: bool


@dataclass(frozen=True, slots=True)
class WrongSlot:
    """A step whose slot and attempt do not fit, and in what."""

    name: str
    run_id: str
    op_id: str
    what: str


def set_numbers(tx: Connection) -> dict[str, int]:
    """The numbers that are set at run time, by limit."""
    query = select(limits.c.name, limits.c.set_n).where(limits.c.set_n.is_not(None)).order_by(limits.c.name)
    return {row.name: row.set_n for row in tx.execute(query.limit(BOUND))}


def key_states(tx: Connection, now: int) -> list[KeyState]:
    """The keys that are checked next, with what is in use and waits."""
    of_key = (step_limits.c.name == limit_keys.c.name, step_limits.c.key == limit_keys.c.key)
    in_line = select(step_limits.c.ready_at).where(*of_key, step_limits.c.state == WAITING)
    first = in_line.order_by(step_limits.c.level, step_limits.c.place, step_limits.c.ready_at).limit(1)
    uses = (step_limits.c.state == ADMITTED, steps.c.status.in_((StepStatus.PENDING, StepStatus.CLAIMED)))
    in_use = select(func.count()).select_from(step_limits).join(steps, IS_STEP).where(*of_key, *uses)
    elsewhere = select(step_limits.c.op_id).where(*of_key, step_limits.c.state == ELSEWHERE)
    query = (
        select(
            limit_keys.c.name,
            limit_keys.c.key,
            limit_keys.c.recovers_at,
            limit_keys.c.paused_until,
            *of_limit(),
            first.scalar_subquery().label("waits_since"),
            in_use.scalar_subquery().label("in_use"),
            exists(elsewhere).label("has_elsewhere"),
        )
        .order_by(limit_keys.c.next_check_at)
        .limit(MOST_KEYS)
    )
    found = []
    for row in tx.execute(query):
        numbers = None if row.n is None else Numbers(row.n, row.per, row.burst)
        locked = LockedKey(numbers, row.recovers_at, row.paused_until, None)
        found.append(
            KeyState(
                name=row.name,
                key=row.key,
                numbers=numbers,
                in_use=row.in_use,
                room=room_of(locked, row.in_use, now),
                paused_until=row.paused_until,
                waits_since=row.waits_since,
                # Steps go on from the line of a key to a line that all keys share.
                is_left=bool(row.key and row.has_elsewhere),
            )
        )
    return found


def wrong_slots(tx: Connection, now: int, beating_since: int) -> list[WrongSlot]:
    """
    Steps that hold a slot and cannot use it, or use one without holding it: there are none.

    Args:
        beating_since: A process without a heartbeat since then is gone, and its attempts are given up.
    """
    some = select(step_limits).order_by(step_limits.c.run_id, step_limits.c.op_id, step_limits.c.name).limit(BOUND)
    row = some.subquery()
    is_step = and_(steps.c.run_id == row.c.run_id, steps.c.op_id == row.c.op_id)
    no_key = ~exists().where(limit_keys.c.name == row.c.name, limit_keys.c.key == row.c.key)
    is_gone = ~exists().where(workers.c.id == steps.c.worker_id, workers.c.beat_at >= beating_since)
    faults = {
        "holds a slot, and no message will be sent for it": and_(
            row.c.state == ADMITTED,
            steps.c.status == StepStatus.PENDING,
            steps.c.sent_at.is_(None),
            steps.c.next_send_at.is_(None),
        ),
        "holds a slot for a process that is gone": and_(
            row.c.state == ADMITTED,
            steps.c.status == StepStatus.CLAIMED,
            steps.c.worker_id.is_not(None),
            steps.c.claimed_at < beating_since,
            is_gone,
        ),
        "runs without a slot": and_(row.c.state.in_((WAITING, DELAYED)), steps.c.status == StepStatus.CLAIMED),
        "waits for a limit that is not checked": and_(row.c.state.in_((WAITING, DELAYED)), no_key),
    }
    wrong = select(
        row.c.name, row.c.run_id, row.c.op_id, *(fault.label(f"f{n}") for n, fault in enumerate(faults.values()))
    )
    query = wrong.join(steps, is_step).where(or_(*faults.values())).limit(BOUND)
    return [
        WrongSlot(found.name, found.run_id, found.op_id, next(what for n, what in enumerate(faults) if found[3 + n]))
        for found in tx.execute(query)
    ]
