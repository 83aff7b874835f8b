"""What people see of limits: what of each key is in use, and which steps wait."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, func, select

from .limits import ADMITTED, IS_STEP, WAITING, LimitKey
from .schema import limits, step_limits, steps
from .transitions import StepStatus

_USES = and_(step_limits.c.state == ADMITTED, steps.c.status.in_((StepStatus.PENDING, StepStatus.CLAIMED)))
_WAITS = step_limits.c.state == WAITING


@dataclass(frozen=True, slots=True)
class LimitState:
    """
    A limit and one of its keys.

    Attributes:
        n: The number in force; None for a limit of which the database does not know.
        is_set: Whether the number was set at run time.
        per: In microseconds; None for a limit of concurrency.
        in_use: How many attempts are sent, or run.
        waiting: How many wait for this limit.
        oldest: Since when the first of them waits.
    """

    name: str
    key: str
    n: int | None
    is_set: bool
    per: int | None
    in_use: int = 0
    waiting: int = 0
    oldest: int | None = None


def states(tx: Connection, limit: int) -> list[LimitState]:
    """All limits by name, each with the keys that are in use or waited for, those with most waiting steps first."""
    of_keys = (
        select(
            step_limits.c.name,
            step_limits.c.key,
            func.sum(case((_USES, 1), else_=0)).label("in_use"),
            func.sum(case((_WAITS, 1), else_=0)).label("waiting"),
            func.min(case((_WAITS, step_limits.c.ready_at))).label("oldest"),
        )
        .join(steps, IS_STEP)
        .group_by(step_limits.c.name, step_limits.c.key)
        .subquery()
    )
    query = (
        select(limits, of_keys.c.key, of_keys.c.in_use, of_keys.c.waiting, of_keys.c.oldest)
        .outerjoin(of_keys, of_keys.c.name == limits.c.name)
        .order_by(limits.c.name, of_keys.c.waiting.desc(), of_keys.c.key)
        .limit(limit)
    )
    return [
        LimitState(
            name=row.name,
            key=row.key or "",
            n=row.n if row.set_n is None else row.set_n,
            is_set=row.set_n is not None,
            per=row.per,
            in_use=int(row.in_use or 0),
            waiting=int(row.waiting or 0),
            oldest=row.oldest,
        )
        for row in tx.execute(query)
    ]


def waits_of_run(tx: Connection, run_id: str, limit: int) -> dict[str, LimitState]:
    """By operation: the limit that a step of the run waits for."""
    query = (
        select(step_limits.c.op_id, step_limits.c.name, step_limits.c.key, step_limits.c.ready_at)
        .where(step_limits.c.run_id == run_id, _WAITS)
        .order_by(step_limits.c.op_id)
        .limit(limit)
    )
    rows = tx.execute(query).all()
    found = {key: _state(tx, key) for key in {LimitKey(row.name, row.key) for row in rows}}
    return {row.op_id: found[LimitKey(row.name, row.key)] for row in rows}


def _state(tx: Connection, key: LimitKey) -> LimitState:
    row = tx.execute(select(limits).where(limits.c.name == key.name)).one_or_none()
    in_use = (
        select(func.count())
        .select_from(step_limits)
        .join(steps, IS_STEP)
        .where(step_limits.c.name == key.name, step_limits.c.key == key.key, _USES)
    )
    n, per = (None, None) if row is None else (row.n if row.set_n is None else row.set_n, row.per)
    is_set = row is not None and row.set_n is not None
    return LimitState(*key, n=n, is_set=is_set, per=per, in_use=tx.execute(in_use).scalar_one())
