"""
Admits the runs for which the limits of their workflow have room: one transaction for one line.

It locks the rows of all keys that it decides about, in their order, and then runs that it cancels; SQLite has one
writer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, case, delete, func, select, update

from . import due_turns, run_limits
from .cancel_run import post_cancel
from .due_turns import DriveRow
from .limits import CHECK_IN_USE, LimitKey
from .outbox import SendTimes
from .run_limits import ADMITTED, BATCH, CANCELLING, ELSEWHERE, LEFT, NEW, WAITING, Declared, LineKey
from .schema import run_limits as rows
from .schema import runs
from .transitions import RunStatus

#: By run: all its limits, and what happens when there is no room.
_Line = Mapping[str, Sequence[tuple[LimitKey, str]]]


@dataclass(frozen=True, slots=True)
class RunAdmission:
    """
    What may begin now.

    Attributes:
        drives: What the messages of the admitted and of the cancelled runs are made from.
        again_at: When more may begin, if a time decides it; None otherwise.
    """

    drives: Sequence[DriveRow] = ()
    again_at: int | None = None


def admit(tx: Connection, key: LimitKey, now: int, sending: SendTimes) -> RunAdmission:
    """
    Admit the first runs of a line for which all limits have room, and note when their messages are sent.

    Where a limit says so, runs without room are cancelled, or make room by cancelling those that go on.
    """
    seen = {**_first(tx, key, now, NEW), **_first(tx, key, now, WAITING)}
    wanted = {key, *(each for found in seen.values() for each, _ in found)}
    locked = run_limits.lock_keys(tx, wanted, now + CHECK_IN_USE)
    tx.execute(update(rows).where(run_limits.is_of(key), rows.c.state == NEW).values(state=WAITING))
    tx.execute(delete(rows).where(run_limits.is_of(key), rows.c.state == LEFT))
    # Read again, since another process may have admitted some before the rows were locked.
    line = _first(tx, key, now, WAITING, deletes_gone=True)
    rooms = _RunRooms(tx, locked, now)
    cancelled = _cancel(tx, key, line, rooms, sending)
    admitted: list[str] = []
    moved_on = 0
    for run_id, found in line.items():
        if run_id in cancelled:
            continue
        # No more go on to a later line than have room here: of many, it would be held up by those of one key.
        if moved_on >= rooms.of(key):
            break
        if not locked.keys() >= {each for each, _ in found}:
            continue
        full = next(((each, policy) for each, policy in found if not rooms.of(each)), None)
        if full is None:
            admitted.append(run_id)
            for each, _ in found:
                rooms.take(each)
        else:
            to, policy = full
            moved_on += to.rank > key.rank
            _move(tx, run_id, to, check_at=now + CHECK_IN_USE if policy == "queue" else now)
    if admitted:
        # Not those of a run that is cancelled at this moment, which has left.
        mine = (rows.c.run_id.in_(admitted), rows.c.state.in_((WAITING, ELSEWHERE)))
        tx.execute(update(rows).where(*mine).values(state=ADMITTED))
        run_limits.release(tx, admitted, sending)
    rooms.write_rates()
    again_at = _plan_check(tx, key, rooms, waits_elsewhere=bool(moved_on))
    by_run = {drive.run_id: drive for drive in due_turns.drives(tx, [*admitted, *cancelled])}
    return RunAdmission([by_run[each] for each in (*admitted, *cancelled) if each in by_run], again_at)


class _RunRooms:
    """How many more runs may begin now, by key; each is counted once, when it is first asked for."""

    def __init__(self, tx: Connection, locked: Mapping[LimitKey, LineKey], now: int) -> None:
        self.now = now
        self.limits: Mapping[str, Declared] = run_limits.declared(tx, {key.name for key in locked})
        self.recovers_at = {key: row.recovers_at for key, row in locked.items()}
        #: The keys whose check is due: runs may have ended that no process has taken note of.
        self.due = {key for key, row in locked.items() if row.next_check_at is not None and row.next_check_at <= now}
        self._tx = tx
        self._using: dict[LimitKey, list[tuple[str, str]]] = {}
        self._rooms: dict[LimitKey, int] = {}
        self._changed: set[LimitKey] = set()

    def using(self, key: LimitKey) -> list[tuple[str, str]]:
        """The runs that have a slot, oldest first, each with its state."""
        if key not in self._using:
            self._using[key] = run_limits.using(self._tx, key)
        return self._using[key]

    def of(self, key: LimitKey) -> int:
        if key not in self._rooms:
            self._rooms[key] = self._count(key)
        return self._rooms[key]

    def _count(self, key: LimitKey) -> int:
        limit = self.limits.get(key.name)
        if limit is None or limit.kind == "debounce":  # time alone decides, or the limit is unknown
            return BATCH
        in_use = len(self.using(key)) if limit.numbers.per is None else 0
        return limit.numbers.room(in_use, self.recovers_at[key], self.now)

    def _is_rate(self, key: LimitKey) -> bool:
        limit = self.limits.get(key.name)
        return limit is not None and limit.kind != "debounce" and limit.numbers.per is not None

    def take(self, key: LimitKey) -> None:
        """Count one more run."""
        self._rooms[key] = self.of(key) - 1
        if self._is_rate(key):
            share = self.limits[key.name].numbers.share
            self.recovers_at[key] = max(self.recovers_at[key], self.now) + share
            self._changed.add(key)

    def opens_at(self, key: LimitKey) -> int | None:
        """When a key without room gets some, if a time decides it."""
        if not self._is_rate(key):
            return None
        return self.limits[key.name].numbers.opens_at(self.recovers_at[key])

    def write_rates(self) -> None:
        for key in sorted(self._changed):
            run_limits.change_key(self._tx, key, recovers_at=self.recovers_at[key])


def _first(
    tx: Connection, key: LimitKey, now: int, state: str, *, deletes_gone: bool = False
) -> dict[str, list[tuple[LimitKey, str]]]:
    """The first runs of a line that are ready, each with all its limits; without those that are not pending."""
    mine = select(rows.c.run_id).where(run_limits.is_of(key), rows.c.state == state, rows.c.ready_at <= now)
    ids = list(tx.execute(mine.order_by(rows.c.level, rows.c.ready_at, rows.c.run_id).limit(BATCH)).scalars())
    if not ids:
        return {}
    query = select(rows.c.run_id, rows.c.name, rows.c.key, rows.c.on_conflict, runs.c.status)
    query = query.outerjoin(runs, runs.c.id == rows.c.run_id).where(rows.c.run_id.in_(ids)).order_by(rows.c.name)
    found: dict[str, list[tuple[LimitKey, str]]] = {run_id: [] for run_id in ids}
    gone = set()
    for row in tx.execute(query):
        found[row.run_id].append((LimitKey(row.name, row.key), row.on_conflict))
        if row.status != RunStatus.PENDING:
            gone.add(row.run_id)
    if deletes_gone:
        run_limits.drop(tx, key, sorted(gone))
    return {run_id: each for run_id, each in found.items() if run_id not in gone}


def _cancel(tx: Connection, key: LimitKey, line: _Line, rooms: _RunRooms, sending: SendTimes) -> list[str]:
    """Cancel the runs of a key for which the limit has no room, as it says: the newest of them, or the oldest."""
    limit = rooms.limits.get(key.name)
    policies = {policy for found in line.values() for each, policy in found if each == key}
    if limit is None or limit.numbers.per is not None or policies <= {"queue"}:
        return []
    n = limit.numbers.n
    of_key = f"{key.name} (key {key.key})" if key.key else key.name
    if "cancel_running" not in policies:
        reason = f"the limit {of_key} has no room: {len(rooms.using(key))} of {n} in use"
        surplus = list(line)[rooms.of(key) :]
    else:
        reason = f"a newer run has started, and the limit {of_key} allows {n}"
        going_on = [run_id for run_id, state in rooms.using(key) if state == ADMITTED]
        surplus = [*going_on, *_oldest_first(tx, key, line)][: max(0, len(going_on) + len(line) - n)]
    cancelled = []
    for run_id in surplus:
        row = post_cancel(tx, run_id, reason, rooms.now, sending)
        if row is not None and not row.ended:
            cancelled.append(row.id)
            if run_id in line:
                run_limits.drop(tx, key, [run_id])
            else:
                mine = (rows.c.run_id == row.id, run_limits.is_of(key))
                tx.execute(update(rows).where(*mine).values(state=CANCELLING))
    return cancelled


def _oldest_first(tx: Connection, key: LimitKey, run_ids: Collection[str]) -> list[str]:
    """These runs in the order of their starts."""
    mine = select(rows.c.run_id).where(rows.c.name == key.name, rows.c.run_id.in_(run_ids))
    return list(tx.execute(mine.order_by(rows.c.ready_at, rows.c.run_id)).scalars())


def _move(tx: Connection, run_id: str, to: LimitKey, check_at: int) -> None:
    """Put a run into another line."""
    mine = (rows.c.run_id == run_id, rows.c.state.in_((WAITING, ELSEWHERE)))
    state = case((rows.c.name == to.name, WAITING), else_=ELSEWHERE)
    tx.execute(update(rows).where(*mine).values(state=state))
    run_limits.change_key(tx, to, next_check_at=check_at)


def _plan_check(tx: Connection, key: LimitKey, rooms: _RunRooms, *, waits_elsewhere: bool) -> int | None:
    """
    Set when a key is checked next, or delete its row.  Return the time at which more may begin, if a time decides.

    Args:
        waits_elsewhere: Its room is left for runs that wait for another limit.
    """
    first = select(func.min(rows.c.ready_at)).where(run_limits.is_of(key), rows.c.state == WAITING)
    ready_at = tx.execute(first).scalar_one()
    if ready_at is not None:
        opens_at = max(ready_at, rooms.now) if ready_at > rooms.now or rooms.of(key) else rooms.opens_at(key)
        opens_at = None if waits_elsewhere else opens_at
        run_limits.change_key(tx, key, next_check_at=rooms.now + CHECK_IN_USE if opens_at is None else opens_at)
        return opens_at
    if key in rooms.due:
        rooms.using(key)
    has_runs = tx.execute(select(rows.c.run_id).where(run_limits.is_of(key)).limit(1)).first() is not None
    recovers_at = rooms.recovers_at[key]
    if has_runs or recovers_at > rooms.now:
        run_limits.change_key(tx, key, next_check_at=rooms.now + CHECK_IN_USE if has_runs else recovers_at)
    else:
        run_limits.remove_key(tx, key)
    return None
