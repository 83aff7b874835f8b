"""
What the sweep has to do now, in one statement: most of the time it is nothing.

What is found here may turn out to be nothing, for example a message that is late and not lost.  What is not found here
is not there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, exists, func, or_, select

from .run_limits import LEFT, NEW
from .schema import (
    inbox,
    limit_keys,
    pauses,
    received,
    run_calls,
    run_limit_keys,
    run_limits,
    schedules,
    steps,
    turn_leases,
    waits,
    workers,
)
from .statements import Prepared
from .transitions import StepStatus


class DueWork(NamedTuple):
    """Which kinds of work may be due: there is at least one row."""

    #: Messages of steps, waits and turns to look at.
    steps: bool
    waits: bool
    turns: bool
    #: Calls of the application's functions.
    calls: bool
    #: Leases of turns that have expired.
    turn_leases: bool
    #: Requests to receivers that wait for a hook.
    requests: bool
    #: Keys of limits to check.
    step_limits: bool
    run_limits: bool
    #: What is paused or resumed by name, and has more to be done for it.
    pauses: bool
    #: Attempts whose deadline is past.
    overdue: bool
    #: Attempts of processes that have no row.
    orphans: bool
    #: When the next schedule is to be fired; None: nothing is planned.
    next_fire_at: int | None


def find(tx: Connection, now: int, *, deadline: int, claimed: int) -> DueWork:
    """
    What may be due.

    Args:
        deadline: Attempts with a deadline before this moment are overdue.
        claimed: Attempts that were claimed before this moment, by a process without a row, are orphans.
    """
    row = _DUE.one(tx, {"now": now, "deadline": deadline, "claimed": claimed})
    assert row is not None
    return DueWork._make((*map(bool, row[:-1]), row.next_fire_at))


def _any(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(*conditions)


_now: Any = bindparam("now")
_is_claimed = steps.c.status == StepStatus.CLAIMED
_flags: tuple[ColumnElement[bool], ...] = (
    _any(steps.c.next_send_at <= _now).label("steps"),
    _any(waits.c.next_send_at <= _now).label("waits"),
    _any(inbox.c.next_send_at <= _now).label("turns"),
    _any(run_calls.c.next_send_at <= _now).label("calls"),
    _any(turn_leases.c.expires_at < _now).label("turn_leases"),
    # Written like this, SQLite uses the index.
    _any(received.c.waits_until > 0).label("requests"),
    _any(limit_keys.c.next_check_at <= _now).label("step_limits"),
    or_(
        _any(or_(run_limits.c.state == NEW, run_limits.c.state == LEFT)),
        _any(run_limit_keys.c.next_check_at <= _now),
    ).label("run_limits"),
    _any(pauses.c.next_check_at <= _now).label("pauses"),
    _any(steps.c.deadline_at < bindparam("deadline"), _is_claimed).label("overdue"),
    _any(
        _is_claimed,
        # True for every process; written like this, SQLite uses the index.
        steps.c.worker_id > "",
        steps.c.claimed_at < bindparam("claimed"),
        ~exists().where(workers.c.id == steps.c.worker_id),
    ).label("orphans"),
)
_next_fire_at = select(func.min(schedules.c.fire_at)).scalar_subquery().label("next_fire_at")
_columns: list[Any] = [*_flags, _next_fire_at]
_DUE = Prepared(select(*_columns))
