"""
Admits the steps for which their limits have room: one transaction for one line.

It locks the rows of all keys that it decides about, in their order; SQLite has one writer.  It reads as many waiting
steps as there is room for, and one more, so that a long line costs no more than a short one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, select, update

from . import limit_lines
from .limit_rooms import Rooms, lock_keys
from .limits import (
    ADMITTED,
    BATCH,
    CHECK_IN_USE,
    CHECK_WAITING,
    IS_STEP,
    WAITING,
    LimitKey,
    any_of,
    check_at,
    count_in_use,
    delete_rows,
    is_key,
    is_line,
    is_one_of,
    rows_of,
)
from .outbox import SendTimes
from .schema import limit_keys, step_limits, steps
from .steps import ROW, StepRow
from .transitions import StepStatus


@dataclass(frozen=True, slots=True)
class Admission:
    """
    What may run now.

    Attributes:
        rows: The admitted attempts, whose messages have to be sent.
        again_at: When more may run, if a time decides it; None otherwise.
        needs: Other limits of the first steps.  Nothing is admitted; call ``admit`` again, and let it lock these too.
    """

    rows: Sequence[StepRow] = ()
    again_at: int | None = None
    needs: Collection[LimitKey] = ()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A step in line: its row in each of its limits, and whether it has ended."""

    run_id: str
    op_id: str
    has_ended: bool
    rows: dict[LimitKey, dict[str, Any]] = field(default_factory=dict)


def admit_after(
    tx: Connection, run_id: str, op_id: str, now: int, sending: SendTimes
) -> tuple[Admission, list[LimitKey]]:
    """
    Delete the rows of a step that has ended, and admit what follows.

    Returns:
        What is admitted; and the limits of the step.  If they are several, their lines are left to the caller.
    """
    found = rows_of(tx, run_id, op_id)
    keys = [key for key, _ in found]
    ended = [(run_id, op_id, key.name) for key, is_alive in found if not is_alive]
    if len(keys) == 1:
        return admit(tx, keys[0], now, sending, ended=ended), keys
    delete_rows(tx, ended)
    return Admission(), keys


def admit(
    tx: Connection,
    key: LimitKey,
    now: int,
    sending: SendTimes,
    *,
    also: Collection[LimitKey] = (),
    ended: Sequence[tuple[str, str, str]] = (),
) -> Admission:
    """
    Admit the first steps of a line for which all limits have room, and set when their messages are sent.

    Args:
        also: Keys to lock beside this one.
        ended: Rows of steps that have ended; they are deleted once the key is locked.
    """
    locked = lock_keys(tx, {key, *also})
    delete_rows(tx, ended)
    if key not in locked:
        return Admission()
    if (delayed_until := locked[key].delayed_until) is not None and delayed_until <= now:
        limit_lines.end_delays(tx, key, now)
        locked[key].delayed_until = limit_lines.delayed_until(tx, key)
    rooms = Rooms(tx, locked, now)
    room = min(rooms.of(key), BATCH)
    found = _first_in_line(tx, key, room + 1)
    line, has_more = found[:room], len(found) > room
    needs = {each for step in line if not step.has_ended for each in step.rows} - locked.keys()
    if needs and not also:
        return Admission(needs=needs)
    admitted: list[tuple[str, str]] = []
    moved_on = 0
    for step in line:
        if step.has_ended:
            delete_rows(tx, [(step.run_id, step.op_id, each.name) for each in step.rows])
        elif not locked.keys() >= step.rows.keys():
            has_more = True
        elif (full := next((each for each in step.rows if each != key and not rooms.of(each)), None)) is None:
            admitted.append((step.run_id, step.op_id))
            for each in step.rows:
                rooms.take(each)
        else:
            # At most as many go on to a later line as have room here: more would have to come back.
            moved_on += full.rank > key.rank
            limit_lines.leave(tx, step.run_id, step.op_id, key.name)
            limit_lines.enter(tx, [step.rows[full]])
            check_at(tx, [full], now + CHECK_WAITING)
    rows = _send(tx, admitted, sending)
    rooms.write_rates()
    has_admitted = bool(admitted)
    again_at = _plan_check(tx, key, rooms, has_more=has_more, waits_elsewhere=moved_on > 0, has_admitted=has_admitted)
    return Admission(rows, again_at)


def _first_in_line(tx: Connection, key: LimitKey, count: int) -> list[_Waiting]:
    """The first steps of a line, each with its rows in all its limits."""
    order = (step_limits.c.level, step_limits.c.place, step_limits.c.ready_at)
    first = (
        select(step_limits.c.run_id, step_limits.c.op_id, *order)
        .where(*is_line(key, WAITING))
        .order_by(*order)
        .limit(count)
        .subquery()
    )
    of_step = (step_limits.c.run_id == first.c.run_id) & (step_limits.c.op_id == first.c.op_id)
    columns = (step_limits.c.name, step_limits.c.key, step_limits.c.level, step_limits.c.owner, steps.c.status)
    query = (
        select(first.c.run_id, first.c.op_id, *columns)
        .join(step_limits, of_step)
        .outerjoin(steps, IS_STEP)
        .order_by(first.c.level, first.c.place, first.c.ready_at, first.c.run_id, first.c.op_id, step_limits.c.name)
    )
    found: dict[tuple[str, str], _Waiting] = {}
    for row in tx.execute(query).mappings():
        has_ended = row["status"] != StepStatus.PENDING
        step = found.setdefault((row["run_id"], row["op_id"]), _Waiting(row["run_id"], row["op_id"], has_ended))
        step.rows[LimitKey(row["name"], row["key"])] = {name: row[name] for name in row if name != "status"}
    return list(found.values())


def _send(tx: Connection, admitted: Sequence[tuple[str, str]], sending: SendTimes) -> list[StepRow]:
    """Note that these steps are admitted, and when their messages are sent; without those that end meanwhile."""
    if not admitted:
        return []
    pending = (any_of(steps, admitted), steps.c.status == StepStatus.PENDING)
    tx.execute(update(steps).where(*pending).values(sending.values()))
    tx.execute(update(step_limits).where(is_one_of(admitted)).values(state=ADMITTED))
    rows = [StepRow(**row) for row in tx.execute(ROW.where(*pending)).mappings()]
    by_step = {(row.run_id, row.op_id): row for row in rows}
    return [by_step[step] for step in admitted if step in by_step]


def _plan_check(
    tx: Connection, key: LimitKey, rooms: Rooms, *, has_more: bool, waits_elsewhere: bool, has_admitted: bool
) -> int | None:
    """
    Set when a key is checked next, or delete its row.  Return the time at which more may run, if a time decides.

    Args:
        has_more: Steps wait in its line.
        waits_elsewhere: Its room is left for steps that wait for another limit.
    """
    row, again_at = rooms.keys[key], None
    if has_more:
        if not waits_elsewhere:
            again_at = rooms.now if rooms.of(key) else rooms.opens_at(key)
        next_check_at = rooms.now + CHECK_WAITING if again_at is None else again_at
        if row.delayed_until is not None:
            next_check_at = min(next_check_at, row.delayed_until)
    elif row.delayed_until is not None:
        again_at = next_check_at = row.delayed_until
    elif has_admitted or _has_steps(tx, key, rooms):
        next_check_at = rooms.now + CHECK_IN_USE
    else:
        next_check_at = max(row.recovers_at, row.paused_until or 0)
        if next_check_at <= rooms.now:
            tx.execute(delete(limit_keys).where(*is_key(key)))
            return None
    tx.execute(update(limit_keys).where(*is_key(key)).values(next_check_at=next_check_at))
    return again_at


def _has_steps(tx: Connection, key: LimitKey, rooms: Rooms) -> bool:
    """Whether a step has this limit; deletes rows of steps that have ended."""
    in_use = rooms.in_use[key] if key in rooms.in_use else count_in_use(tx, key)
    of_key = select(step_limits.c.op_id).where(step_limits.c.name == key.name, step_limits.c.key == key.key)
    return in_use > 0 or tx.execute(of_key.limit(1)).first() is not None
