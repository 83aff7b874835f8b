"""
Admits the steps for which their limits have room: one transaction for one line.

It locks the rows of all keys that it decides about, in their order; SQLite has one writer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, func, select, update

from .limits import (
    ADMITTED,
    BATCH,
    CHECK_IN_USE,
    CHECK_WAITING,
    ELSEWHERE,
    IS_STEP,
    WAITING,
    LimitKey,
    Numbers,
    any_of,
    check_at,
    count_in_use,
    delete_rows,
    is_key,
    is_line,
    is_of,
    is_one_of,
)
from .outbox import SendTimes
from .schema import limit_keys, limits, step_limits, steps
from .steps import ROW, StepRow
from .transitions import StepStatus


@dataclass(frozen=True, slots=True)
class Admission:
    """
    What may run now.

    Attributes:
        rows: The admitted attempts, whose messages have to be sent.
        again_at: When more may run, if a time decides it; None otherwise.
    """

    rows: Sequence[StepRow] = ()
    again_at: int | None = None


def admit(tx: Connection, key: LimitKey, now: int, sending: SendTimes) -> Admission:
    """Admit the first steps of a line for which all limits have room, and set when their messages are sent."""
    line = _first_in_line(tx, key, now)
    locked = _lock(tx, {key, *(each for keys in line.values() for each in keys)})
    if key not in locked:
        return Admission()
    if line:  # read again, since another process may have admitted some before the rows were locked
        line = _first_in_line(tx, key, now, deletes_gone=True)
    rooms = _Rooms(tx, locked, now)
    admitted: list[tuple[str, str]] = []
    moved_on = 0
    for step, keys in line.items():
        # No more go on to a later line than have room here: of many, it would be held up by those of one key.
        if moved_on >= rooms.of(key):
            break
        if not locked.keys() >= set(keys):
            continue
        full = next((each for each in keys if each != key and not rooms.of(each)), None)
        if full is None:
            admitted.append(step)
            for each in keys:
                rooms.take(each)
        else:
            moved_on += full.rank > key.rank
            _move(tx, step, keys, to=full)
            check_at(tx, [full], now + CHECK_WAITING)
    rows = _send(tx, admitted, sending)
    rooms.write_rates()
    return Admission(rows, _plan_check(tx, key, rooms, waits_elsewhere=bool(moved_on)))


@dataclass(slots=True)
class _Key:
    """A key's row, locked, and the numbers of its limit."""

    numbers: Numbers | None
    recovers_at: int
    paused_until: int | None
    has_changed: bool = field(default=False)


class _Rooms:
    """How many more attempts may begin now, by key; each is counted once, when it is first asked for."""

    def __init__(self, tx: Connection, locked: Mapping[LimitKey, _Key], now: int) -> None:
        self.now = now
        self.keys = locked
        self.in_use: dict[LimitKey, int] = {}
        self._tx = tx
        self._rooms: dict[LimitKey, int] = {}

    def of(self, key: LimitKey) -> int:
        if key not in self._rooms:
            self._rooms[key] = self._count(self.keys[key], key)
        return self._rooms[key]

    def _count(self, row: _Key, key: LimitKey) -> int:
        if row.paused_until is not None and row.paused_until > self.now:
            return 0
        if row.numbers is None:  # the limit is unknown: nothing limits the steps
            return BATCH
        if row.numbers.per is None:
            self.in_use[key] = count_in_use(self._tx, key)
            return max(0, row.numbers.n - self.in_use[key])
        share, burst = self._share(row), row.numbers.burst or 1
        used = max(0, row.recovers_at - self.now)
        return max(0, (burst * share - used) // share)

    def _share(self, row: _Key) -> int:
        """What one attempt takes of the time of a rate."""
        assert row.numbers is not None
        assert row.numbers.per is not None
        return max(1, row.numbers.per // row.numbers.n)

    def take(self, key: LimitKey) -> None:
        """Count one more attempt."""
        self._rooms[key] = self.of(key) - 1
        row = self.keys[key]
        if row.numbers is not None and row.numbers.per is not None:
            row.recovers_at = max(row.recovers_at, self.now) + self._share(row)
            row.has_changed = True
        else:
            self.in_use[key] = self.in_use.get(key, 0) + 1

    def opens_at(self, key: LimitKey) -> int | None:
        """When a key without room gets some, if a time decides it."""
        row = self.keys[key]
        if row.paused_until is not None and row.paused_until > self.now:
            return row.paused_until
        if row.numbers is None or row.numbers.per is None:
            return None
        return row.recovers_at - ((row.numbers.burst or 1) - 1) * self._share(row)

    def write_rates(self) -> None:
        for key, row in self.keys.items():
            if row.has_changed:
                self._tx.execute(update(limit_keys).where(*is_key(key)).values(recovers_at=row.recovers_at))


def _first_in_line(
    tx: Connection, key: LimitKey, now: int, *, deletes_gone: bool = False
) -> dict[tuple[str, str], list[LimitKey]]:
    """The first steps of a line that are ready, each with all its limits; without those that have ended."""
    first = (
        select(step_limits.c.run_id, step_limits.c.op_id)
        .where(*is_line(key, WAITING), step_limits.c.ready_at <= now)
        .order_by(step_limits.c.ready_at, step_limits.c.run_id, step_limits.c.op_id)
        .limit(BATCH)
    )
    found: dict[tuple[str, str], list[LimitKey]] = {(row.run_id, row.op_id): [] for row in tx.execute(first)}
    if not found:
        return {}
    columns = (step_limits.c.run_id, step_limits.c.op_id, step_limits.c.name, step_limits.c.key, steps.c.status)
    query = select(*columns).outerjoin(steps, IS_STEP).where(is_one_of(found)).order_by(step_limits.c.name)
    rows = tx.execute(query).all()
    for row in rows:
        found[row.run_id, row.op_id].append(LimitKey(row.name, row.key))
    gone = [(row.run_id, row.op_id, row.name) for row in rows if row.status != StepStatus.PENDING]
    if deletes_gone:
        delete_rows(tx, gone)
    without = {(run_id, op_id) for run_id, op_id, _ in gone}
    return {step: keys for step, keys in found.items() if step not in without}


def _lock(tx: Connection, wanted: Collection[LimitKey]) -> dict[LimitKey, _Key]:
    """Lock the rows of these keys, in their order, and read them."""
    query = (
        select(limit_keys.c.name, limit_keys.c.key, limit_keys.c.recovers_at, limit_keys.c.paused_until)
        .where(any_of(limit_keys, sorted(wanted)))
        .order_by(limit_keys.c.name, limit_keys.c.key)
        .with_for_update()
    )
    rows = tx.execute(query).all()
    number = func.coalesce(limits.c.set_n, limits.c.n)
    of_limits = select(limits.c.name, number, limits.c.per, limits.c.burst).where(
        limits.c.name.in_({row.name for row in rows})
    )
    numbers = {name: Numbers(*each) for name, *each in tx.execute(of_limits)}
    return {LimitKey(row.name, row.key): _Key(numbers.get(row.name), row.recovers_at, row.paused_until) for row in rows}


def _move(tx: Connection, step: tuple[str, str], keys: Iterable[LimitKey], to: LimitKey) -> None:
    """Put a step into another line."""
    for each in keys:
        state = WAITING if each == to else ELSEWHERE
        tx.execute(update(step_limits).where(*is_of(*step, each.name)).values(state=state))


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


def _plan_check(tx: Connection, key: LimitKey, rooms: _Rooms, *, waits_elsewhere: bool) -> int | None:
    """
    Set when a key is checked next, or delete its row.  Return the time at which more may run, if a time decides.

    Args:
        waits_elsewhere: Its room is left for steps that wait for another limit.
    """
    first = select(func.min(step_limits.c.ready_at)).where(*is_line(key, WAITING))
    ready_at = tx.execute(first).scalar_one()
    if ready_at is not None:
        opens_at = max(ready_at, rooms.now) if rooms.of(key) else rooms.opens_at(key)
        opens_at = None if waits_elsewhere else opens_at
        next_check_at = rooms.now + CHECK_WAITING if opens_at is None else opens_at
        tx.execute(update(limit_keys).where(*is_key(key)).values(next_check_at=next_check_at))
        return opens_at
    row = rooms.keys[key]
    if key not in rooms.in_use:
        count_in_use(tx, key)
    of_key = select(step_limits.c.op_id).where(step_limits.c.name == key.name, step_limits.c.key == key.key)
    has_steps = tx.execute(of_key.limit(1)).first() is not None
    keeps_until = max(row.recovers_at, row.paused_until or 0)
    if not has_steps and keeps_until <= rooms.now:
        tx.execute(delete(limit_keys).where(*is_key(key)))
    else:
        next_check_at = rooms.now + CHECK_IN_USE if has_steps else keeps_until
        tx.execute(update(limit_keys).where(*is_key(key)).values(next_check_at=next_check_at))
    return None
