"""How many more attempts each key has room for, while its row is locked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Label, func, select, update

from .limits import BATCH, DELAYED, LimitKey, Numbers, any_of, count_in_use, is_key
from .schema import limit_keys, limits, step_limits


@dataclass(slots=True)
class LockedKey:
    """A key's row, locked, and the numbers of its limit."""

    numbers: Numbers | None
    recovers_at: int
    paused_until: int | None
    delayed_until: int | None
    has_changed: bool = field(default=False)


def room_of(row: LockedKey, in_use: int, now: int) -> int:
    """How many more attempts of a key may begin, when so many are in use."""
    if row.paused_until is not None and row.paused_until > now:
        return 0
    if row.numbers is None:  # the limit is unknown: nothing limits the steps
        return BATCH
    return row.numbers.room(in_use, row.recovers_at, now)


class Rooms:
    """How many more attempts may begin now, by key; each is counted once, when it is first asked for."""

    def __init__(self, tx: Connection, locked: Mapping[LimitKey, LockedKey], now: int) -> None:
        self.now = now
        self.keys = locked
        self.in_use: dict[LimitKey, int] = {}
        self._tx = tx
        self._rooms: dict[LimitKey, int] = {}

    def of(self, key: LimitKey) -> int:
        if key not in self._rooms:
            numbers = self.keys[key].numbers
            if numbers is not None and numbers.per is None:
                self.in_use[key] = count_in_use(self._tx, key)
            self._rooms[key] = room_of(self.keys[key], self.in_use.get(key, 0), self.now)
        return self._rooms[key]

    def take(self, key: LimitKey) -> None:
        """Count one more attempt."""
        self._rooms[key] = self.of(key) - 1
        row = self.keys[key]
        if row.numbers is not None and row.numbers.per is not None:
            row.recovers_at = max(row.recovers_at, self.now) + row.numbers.share
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
        return row.numbers.opens_at(row.recovers_at)

    def write_rates(self) -> None:
        for key, row in self.keys.items():
            if row.has_changed:
                self._tx.execute(update(limit_keys).where(*is_key(key)).values(recovers_at=row.recovers_at))


def of_limit() -> list[Label[int]]:
    """The numbers in force of a key's limit, as columns of a query of keys: ``n``, ``per`` and ``burst``."""
    numbers = {"n": func.coalesce(limits.c.set_n, limits.c.n), "per": limits.c.per, "burst": limits.c.burst}
    is_limit = limits.c.name == limit_keys.c.name
    return [select(number).where(is_limit).scalar_subquery().label(name) for name, number in numbers.items()]


def lock_keys(tx: Connection, wanted: Collection[LimitKey]) -> dict[LimitKey, LockedKey]:
    """Lock the rows of these keys, in their order, and read them with the numbers of their limits."""
    delayed = select(func.min(step_limits.c.ready_at)).where(
        step_limits.c.name == limit_keys.c.name,
        step_limits.c.key == limit_keys.c.key,
        step_limits.c.state == DELAYED,
    )
    query = (
        select(
            limit_keys.c.name,
            limit_keys.c.key,
            limit_keys.c.recovers_at,
            limit_keys.c.paused_until,
            *of_limit(),
            delayed.scalar_subquery().label("delayed_until"),
        )
        .where(any_of(limit_keys, sorted(wanted)))
        .order_by(limit_keys.c.name, limit_keys.c.key)
        .with_for_update(of=limit_keys if tx.dialect.name == "postgresql" else None)
    )
    locked = {}
    for row in tx.execute(query):
        known = None if row.n is None else Numbers(row.n, row.per, row.burst)
        locked[LimitKey(row.name, row.key)] = LockedKey(known, row.recovers_at, row.paused_until, row.delayed_until)
    return locked
