"""
Decides what a schedule does now: which planned times start a run, which wait, and what the next one is.

This is pure: the same row, time and runs always give the same plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from ..store import ScheduleRow
from .timing import Timing, from_json, last_until

#: A planned time that is later than this was missed: nothing fired it.  Recovery from a crash takes less.
GRACE = 60_000_000
#: How often a planned time that waits for the end of a run is looked at.
HELD_POLL = 1_000_000
#: The most planned times that one plan handles.
MOST_TIMES = 100


@dataclass(frozen=True, slots=True)
class Position:
    """Where a schedule is: the next planned time, and when it is fired; both None when there is none."""

    planned_at: int | None
    fire_at: int | None


@dataclass(frozen=True, slots=True)
class SchedulePlan:
    """
    What to do.

    Attributes:
        starts: The planned times that start a run.
        cancels: The runs to cancel.
        skipped: How many planned times start no run because another goes on.
        is_held: The position waits for the end of a run.
    """

    starts: Sequence[int]
    cancels: Sequence[str]
    position: Position
    skipped: int = 0
    is_held: bool = False


def decide(row: ScheduleRow, now: int, open_runs: Sequence[str]) -> SchedulePlan:
    """
    Decide by the schedule's rules for overlap and for missed times.

    Args:
        open_runs: The runs of the schedule that go on.
    """
    assert row.planned_at is not None
    timing = from_json(row.timing)
    times, handled = _due(row, timing, now)
    if row.overlap == "cancel":
        times = times[-1:]
    starts: list[int] = []
    skipped = 0
    for planned in times:
        is_busy = bool(open_runs or starts)
        if is_busy and row.overlap == "queue":
            return SchedulePlan(starts, (), Position(planned, now + HELD_POLL), is_held=True)
        if is_busy and row.overlap == "skip":
            skipped += 1
        else:
            starts.append(planned)
    cancels = open_runs if starts and row.overlap == "cancel" else ()
    return SchedulePlan(starts, cancels, after(row, timing, handled), skipped)


def after(row: ScheduleRow, timing: Timing, moment: int) -> Position:
    """The position at the first planned time after a moment."""
    return position_at(row.name, row.jitter, _within(timing.next_after(moment), row.until_at))


def position_at(name: str, jitter: int, planned: int | None) -> Position:
    """The position at a planned time."""
    return Position(planned, None if planned is None else planned + _delay(name, jitter, planned))


def first(name: str, timing: Timing, jitter: int, until: int | None, now: int) -> Position:
    """The position of a new schedule."""
    return position_at(name, jitter, _within(timing.next_after(now), until))


def upcoming(row: ScheduleRow, now: int, count: int) -> list[int]:
    """The next planned times after *now*, at most *count*."""
    timing, moment, found = from_json(row.timing), now, list[int]()
    while len(found) < count:
        following = _within(timing.next_after(moment), row.until_at)
        if following is None:
            break
        found.append(following)
        moment = following
    return found


def _due(row: ScheduleRow, timing: Timing, now: int) -> tuple[list[int], int]:
    """The planned times that are to start a run now, and the last one that is dealt with."""
    assert row.planned_at is not None
    begin = row.planned_at
    was_missed = begin + _delay(row.name, row.jitter, begin) < now - GRACE
    if row.catch_up == "all" or not (was_missed or row.is_held):
        times = _each(row, timing, now)
        return times, times[-1] if times else begin - 1
    last = _last(row, timing, now)
    is_late = last + _delay(row.name, row.jitter, last) < now - GRACE
    if row.catch_up == "none" and is_late and not row.is_held:
        return [], last
    return [last], last


def _each(row: ScheduleRow, timing: Timing, now: int) -> list[int]:
    """Each planned time from the position until now, at most ``MOST_TIMES``."""
    times: list[int] = []
    planned = row.planned_at
    while planned is not None and planned + _delay(row.name, row.jitter, planned) <= now and len(times) < MOST_TIMES:
        times.append(planned)
        planned = _within(timing.next_after(planned), row.until_at)
    return times


def _last(row: ScheduleRow, timing: Timing, now: int) -> int:
    """The last planned time whose moment to fire has come."""
    assert row.planned_at is not None
    until = now if row.until_at is None else min(now, row.until_at)
    last = last_until(timing, until, row.planned_at)
    if last > row.planned_at and last + _delay(row.name, row.jitter, last) > now:
        last = last_until(timing, last - 1, row.planned_at)
    return last


def _within(planned: int | None, until: int | None) -> int | None:
    return None if planned is None or (until is not None and planned > until) else planned


def _delay(name: str, jitter: int, planned: int) -> int:
    """The share of the jitter that a planned time gets: the same in each process, and after a crash."""
    if not jitter:
        return 0
    drawn = sha256(f"{name} {planned}".encode()).digest()
    return int.from_bytes(drawn[:8]) % (jitter + 1)
