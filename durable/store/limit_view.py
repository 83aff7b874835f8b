"""
What people see of limits: what of each key is in use, and which steps and runs wait.

At most ``MOST_WAITING`` steps that wait, and as many runs, are counted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, Subquery, and_, func, select

from .gauges import MOST_WAITING
from .limits import ADMITTED, BATCH, IS_STEP, WAITING, LimitKey, any_of
from .run_limits import HELD, IN_LINE
from .schema import limit_keys, limits, run_limits, runs, step_limits, steps
from .transitions import ENDED, StepStatus

_USES = and_(step_limits.c.state == ADMITTED, steps.c.status.in_((StepStatus.PENDING, StepStatus.CLAIMED)))
_WAITS = step_limits.c.state == WAITING
_RUN_USES = and_(run_limits.c.state.in_(HELD), runs.c.status.not_in(ENDED))


@dataclass(frozen=True, slots=True)
class LimitState:
    """
    A limit and one of its keys.

    Attributes:
        n: The number in force; None for a limit of which the database does not know.
        is_set: Whether the number was set at run time.
        per: In microseconds; None for a limit of concurrency.
        kind: None for a limit of steps, "runs", or "debounce", which waits for *per*.
        in_use: How many attempts are sent, or run; how many runs have begun, and not ended.
        waiting: How many wait for this limit.
        oldest: Since when the first of them waits.
        paused_until: Until when no attempt begins; None if it is not paused.
    """

    name: str
    key: str
    n: int | None
    is_set: bool
    per: int | None
    kind: str | None = None
    in_use: int = 0
    waiting: int = 0
    oldest: int | None = None
    paused_until: int | None = None


def states(tx: Connection, limit: int, now: int) -> list[LimitState]:
    """
    All limits by name, each with the keys that are in use or waited for, those with most waiting first.

    If steps or runs wait for more than *limit* keys, those with most waiting are returned.
    """
    found = [*_states_of_steps(tx, limit, now), *_states_of_runs(tx, limit)]
    return sorted(found, key=lambda each: (each.name, -each.waiting, each.key))


def _states_of_steps(tx: Connection, limit: int, now: int) -> list[LimitState]:
    some = _waiting()
    counted = select(some.c.name, some.c.key, func.count(), func.min(some.c.ready_at)).group_by(some.c.name, some.c.key)
    waiting = {LimitKey(name, key): (int(count), oldest) for name, key, count, oldest in tx.execute(counted)}
    known = {
        row.name: row
        for row in tx.execute(select(limits).where(limits.c.kind.is_(None)).order_by(limits.c.name).limit(limit))
    }
    busiest = sorted(waiting, key=lambda key: (-waiting[key][0], key))
    checked = select(limit_keys.c.name, limit_keys.c.key).order_by(limit_keys.c.next_check_at).limit(limit)
    keys = list(dict.fromkeys([*busiest, *(LimitKey(*row) for row in tx.execute(checked))]))[:limit]
    used = _used(tx, keys)
    found = []
    for key in [*keys, *(LimitKey(name, "") for name in known if name not in {key.name for key in keys})]:
        in_use, paused_until = used.get(key, (0, None))
        count, oldest = waiting.get(key, (0, None))
        is_paused = paused_until is not None and paused_until > now
        state = _state(known.get(key.name), key, in_use, waiting=count, oldest=oldest)
        found.append(replace(state, paused_until=paused_until if is_paused else None))
    return found


def backlog(tx: Connection) -> dict[str, int]:
    """How many steps or runs wait for each limit."""
    found: dict[str, int] = {}
    for some in (_waiting(), _waiting_runs()):
        counted = select(some.c.name, func.count()).group_by(some.c.name)
        found |= {name: int(count) for name, count in tx.execute(counted)}
    return found


@dataclass(frozen=True, slots=True)
class RunWait:
    """What a run waits for before it begins: a limit that has no room, or until *ready_at*."""

    limit: LimitState
    ready_at: int


def _states_of_runs(tx: Connection, limit: int) -> list[LimitState]:
    some, using = _waiting_runs(), _runs_with_slots()
    counted = select(some.c.name, some.c.key, func.count(), func.min(some.c.ready_at)).group_by(some.c.name, some.c.key)
    waiting = {LimitKey(name, key): (int(count), oldest) for name, key, count, oldest in tx.execute(counted)}
    of_key = select(using.c.name, using.c.key, func.count()).group_by(using.c.name, using.c.key)
    used = {LimitKey(name, key): int(count) for name, key, count in tx.execute(of_key)}
    known = {
        row.name: row
        for row in tx.execute(select(limits).where(limits.c.kind.is_not(None)).order_by(limits.c.name).limit(limit))
    }
    keys = sorted(waiting.keys() | used.keys(), key=lambda key: (-waiting.get(key, (0, None))[0], key))[:limit]
    found = []
    for key in [*keys, *(LimitKey(name, "") for name in known if name not in {key.name for key in keys})]:
        count, oldest = waiting.get(key, (0, None))
        found.append(_state(known.get(key.name), key, used.get(key, 0), waiting=count, oldest=oldest))
    return found


def wait_before_begin(tx: Connection, run_id: str) -> RunWait | None:
    """What a run that has not begun waits for; None if no limit holds it."""
    mine = (run_limits.c.run_id == run_id, run_limits.c.state.in_(IN_LINE))
    row = tx.execute(select(run_limits.c.name, run_limits.c.key, run_limits.c.ready_at).where(*mine)).first()
    if row is None:
        return None
    key = LimitKey(row.name, row.key)
    in_use = select(func.count()).select_from(run_limits).join(runs, runs.c.id == run_limits.c.run_id)
    in_use = in_use.where(run_limits.c.name == key.name, run_limits.c.key == key.key, _RUN_USES)
    known = tx.execute(select(limits).where(limits.c.name == key.name)).one_or_none()
    return RunWait(_state(known, key, tx.execute(in_use).scalar_one()), row.ready_at)


def waits_of_run(tx: Connection, run_id: str, limit: int) -> dict[str, LimitState]:
    """By operation: the limit that a step of the run waits for."""
    query = (
        select(step_limits.c.op_id, step_limits.c.name, step_limits.c.key, step_limits.c.ready_at)
        .where(step_limits.c.run_id == run_id, _WAITS)
        .order_by(step_limits.c.op_id)
        .limit(limit)
    )
    rows = tx.execute(query).all()
    keys = {LimitKey(row.name, row.key) for row in rows}
    used = _used(tx, keys)
    known = {row.name: row for row in tx.execute(select(limits).where(limits.c.name.in_({key.name for key in keys})))}
    found = {key: _state(known.get(key.name), key, used.get(key, (0, None))[0]) for key in keys}
    return {row.op_id: found[LimitKey(row.name, row.key)] for row in rows}


def _waiting() -> Subquery:
    """The steps that wait, in the order of an index."""
    # Every name is greater than the empty text; written like this, every database uses the index.
    query = select(step_limits.c.name, step_limits.c.key, step_limits.c.ready_at).where(step_limits.c.name > "", _WAITS)
    order = (step_limits.c.name, step_limits.c.key, step_limits.c.state, step_limits.c.ready_at)
    return query.order_by(*order).limit(MOST_WAITING).subquery()


def _waiting_runs() -> Subquery:
    """The runs that wait; those that are cancelled at this moment are not left out."""
    query = select(run_limits.c.name, run_limits.c.key, run_limits.c.ready_at)
    return query.where(run_limits.c.state.in_(IN_LINE)).limit(MOST_WAITING).subquery()


def _runs_with_slots() -> Subquery:
    query = select(run_limits.c.name, run_limits.c.key).join(runs, runs.c.id == run_limits.c.run_id)
    return query.where(_RUN_USES).limit(MOST_WAITING).subquery()


def _used(tx: Connection, keys: Collection[LimitKey]) -> dict[LimitKey, tuple[int, int | None]]:
    """By key: how many slots are in use, and until when it is paused."""
    of_key = (step_limits.c.name == limit_keys.c.name, step_limits.c.key == limit_keys.c.key)
    in_use = select(func.count()).select_from(step_limits).join(steps, IS_STEP).where(*of_key, _USES)
    columns = (limit_keys.c.name, limit_keys.c.key, limit_keys.c.paused_until, in_use.scalar_subquery().label("in_use"))
    found: dict[LimitKey, tuple[int, int | None]] = {}
    ordered = sorted(keys)
    for first in range(0, len(ordered), BATCH):
        query = select(*columns).where(any_of(limit_keys, ordered[first : first + BATCH]))
        found |= {LimitKey(row.name, row.key): (int(row.in_use), row.paused_until) for row in tx.execute(query)}
    return found


def _state(row: Row[Any] | None, key: LimitKey, in_use: int, waiting: int = 0, oldest: int | None = None) -> LimitState:
    n, per = (None, None) if row is None else (row.n if row.set_n is None else row.set_n, row.per)
    kind = None if row is None else row.kind
    is_set = row is not None and row.set_n is not None
    return LimitState(*key, n=n, is_set=is_set, per=per, kind=kind, in_use=in_use, waiting=waiting, oldest=oldest)
