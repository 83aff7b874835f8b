"""
Limits of steps: their numbers and keys, and how many slots are in use.

``limit_lines.py`` keeps the order in which steps wait.  ``admit_steps.py`` takes the first of a line, and sets when its
message is sent.  An admitted step uses a slot while its own row says that the attempt is sent or claimed.  So whatever
ends an attempt, or gives it up, frees the slot with it: no slot can leak.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, case, delete, func, or_, select, update

from .outbox import SendTimes
from .schema import limit_keys, limits, run_limit_keys, step_limits, steps
from .transitions import StepStatus
from .upsert import upsert

#: The sending times of what is not admitted.
NOT_SENT = SendTimes(None, None)

#: The most steps of one line that are admitted in one transaction.
BATCH = 100

# The states of a step in one of its limits: it waits in its line; in the line of another one; for the time of its next
# attempt; or for nothing, since it is admitted.
WAITING, ELSEWHERE, DELAYED, ADMITTED = "waiting", "elsewhere", "delayed", "admitted"

#: Joins a step to its limits.
IS_STEP = and_(steps.c.run_id == step_limits.c.run_id, steps.c.op_id == step_limits.c.op_id)

#: A key is checked again after so long, in microseconds: a process may have died between the end of an attempt and the
#: admission of the next one.
CHECK_WAITING = 5_000_000
CHECK_IN_USE = 60_000_000


#: The priorities are 0 to this one, which comes first.
HIGHEST_PRIORITY = 9


def level_of(priority: int | None) -> int:
    """The place of a priority in a line, from 0 for the highest; none counts as 0."""
    return HIGHEST_PRIORITY - min(max(priority or 0, 0), HIGHEST_PRIORITY)


class LimitKey(NamedTuple):
    """A limit, and what is counted on its own; the key is empty for a limit without keys."""

    name: str
    key: str

    @property
    def rank(self) -> tuple[bool, str]:
        """Of its limits a step waits for the first by rank: few of one key are in a line that all keys share."""
        return self.key == "", self.name


class Numbers(NamedTuple):
    """The numbers of a limit that are in force; ``per`` is None for a limit of concurrency."""

    n: int
    per: int | None
    burst: int | None

    @property
    def share(self) -> int:
        """What one of them takes of the time of a rate."""
        return max(1, (self.per or 0) // self.n)

    def room(self, in_use: int, recovers_at: int, now: int) -> int:
        """
        How many more may begin.

        Args:
            in_use: How many slots are in use; a rate has none.
            recovers_at: When a rate will have recovered.
        """
        if self.per is None:
            return max(0, self.n - in_use)
        return max(0, ((self.burst or 1) * self.share - max(0, recovers_at - now)) // self.share)

    def opens_at(self, recovers_at: int) -> int:
        """When a rate has room for one more."""
        return recovers_at - ((self.burst or 1) - 1) * self.share


# What the code declares, and what is set at run time


def declare(tx: Connection, name: str, numbers: Numbers, kind: str | None = None) -> None:
    """
    Record the numbers of a limit as the code of this process declares them.

    Args:
        kind: None for a limit of steps, "runs" or "debounce".
    """
    declared = {**numbers._asdict(), "kind": kind}
    upsert(tx, limits, [{"name": name, **declared}], lambda _: declared)


def set_number(tx: Connection, name: str, n: int | None, now: int) -> bool:
    """
    Set the number of a limit, whatever the code declares, and have its keys checked at once.

    Args:
        n: None for the number that the code declares.

    Returns:
        False for an unknown limit.
    """
    if tx.execute(select(limits.c.name).where(limits.c.name == name)).first() is None:
        return False
    tx.execute(update(limits).where(limits.c.name == name).values(set_n=n))
    for keys in (limit_keys, run_limit_keys):
        tx.execute(update(keys).where(keys.c.name == name).values(next_check_at=now))
    return True


def pause(tx: Connection, run_id: str, op_id: str, name: str, until: int) -> bool:
    """
    Let no attempt begin before *until* that has the key of a step's limit.

    Returns:
        False when the step has no limit of that name.
    """
    keys = [key for key in keys_of(tx, run_id, op_id) if key.name == name]
    for key in keys:
        check_at(tx, [key], until)
        is_earlier = or_(limit_keys.c.paused_until.is_(None), limit_keys.c.paused_until < until)
        tx.execute(update(limit_keys).where(*is_key(key), is_earlier).values(paused_until=until))
    return bool(keys)


def resume(tx: Connection, name: str, key: str | None, now: int) -> int:
    """End the pauses of a limit, of one key or all, and have the keys checked at once.  Return how many there were."""
    paused = (limit_keys.c.name == name, limit_keys.c.paused_until > now)
    of_key = () if key is None else (limit_keys.c.key == key,)
    ended = update(limit_keys).where(*paused, *of_key).values(paused_until=None, next_check_at=now)
    return tx.execute(ended).rowcount


# Keys


def keys_of(tx: Connection, run_id: str, op_id: str | None = None) -> list[LimitKey]:
    """The limits of one step, or of all steps of the run."""
    query = select(step_limits.c.name, step_limits.c.key).where(step_limits.c.run_id == run_id).distinct()
    return sorted(
        LimitKey(*row) for row in tx.execute(query.where(*([] if op_id is None else [step_limits.c.op_id == op_id])))
    )


def rows_of(tx: Connection, run_id: str, op_id: str) -> list[tuple[LimitKey, bool]]:
    """The limits of a step, each with whether the step has not ended."""
    query = select(step_limits.c.name, step_limits.c.key, steps.c.run_id).outerjoin(steps, IS_STEP)
    rows = tx.execute(query.where(step_limits.c.run_id == run_id, step_limits.c.op_id == op_id)).all()
    return sorted((LimitKey(row.name, row.key), row.run_id is not None) for row in rows)


def keys_due(tx: Connection, now: int, limit: int) -> list[LimitKey]:
    """The keys that the sweep checks now, those first that have waited longest."""
    due = select(limit_keys.c.name, limit_keys.c.key).where(limit_keys.c.next_check_at <= now)
    return [LimitKey(*row) for row in tx.execute(due.order_by(limit_keys.c.next_check_at).limit(limit))]


def count_in_use(tx: Connection, key: LimitKey) -> int:
    """How many slots of a key are in use; deletes rows of steps that have ended."""
    uses = func.sum(case((steps.c.status.in_((StepStatus.PENDING, StepStatus.CLAIMED)), 1), else_=0))
    of_key = select(func.count(), uses, func.count(steps.c.run_id)).select_from(step_limits).outerjoin(steps, IS_STEP)
    rows, in_use, alive = tx.execute(of_key.where(*is_line(key, ADMITTED))).one()
    if alive < rows:
        gone = select(step_limits.c.run_id, step_limits.c.op_id).outerjoin(steps, IS_STEP)
        gone = gone.where(*is_line(key, ADMITTED), steps.c.run_id.is_(None)).limit(BATCH)
        delete_rows(tx, [(row.run_id, row.op_id, key.name) for row in tx.execute(gone).all()])
    return int(in_use or 0)


# Rows


def check_at(tx: Connection, keys: Iterable[LimitKey], at: int) -> None:
    """Have these keys checked at a time, or earlier; in their order, since it locks their rows."""
    rows = [{**key._asdict(), "recovers_at": 0, "next_check_at": at} for key in sorted(keys)]
    if rows:
        is_later = or_(limit_keys.c.next_check_at.is_(None), limit_keys.c.next_check_at > at)
        upsert(
            tx, limit_keys, rows, lambda _: {"next_check_at": case((is_later, at), else_=limit_keys.c.next_check_at)}
        )


def is_line(key: LimitKey, state: str) -> tuple[ColumnElement[bool], ...]:
    return step_limits.c.name == key.name, step_limits.c.key == key.key, step_limits.c.state == state


def is_key(key: LimitKey) -> tuple[ColumnElement[bool], ...]:
    return limit_keys.c.name == key.name, limit_keys.c.key == key.key


def is_of(run_id: str, op_id: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return step_limits.c.run_id == run_id, step_limits.c.op_id == op_id, step_limits.c.name == name


def is_one_of(found: Collection[tuple[str, str]]) -> ColumnElement[bool]:
    return any_of(step_limits, found)


def any_of(table: Table, found: Iterable[tuple[str, ...]]) -> ColumnElement[bool]:
    """Whether a row has one of these primary keys, or begins of them.  MariaDB takes no index for ``(a, b) IN …``."""
    columns = list(table.primary_key.columns)
    return or_(*(and_(*(column == value for column, value in zip(columns, each, strict=False))) for each in found))


def delete_rows(tx: Connection, rows: Sequence[tuple[str, str, str]]) -> None:
    for first in range(0, len(rows), BATCH):
        tx.execute(delete(step_limits).where(any_of(step_limits, rows[first : first + BATCH])))
