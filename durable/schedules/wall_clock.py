"""
Wall-clock times of a time zone as moments, so that each wall-clock time happens once.

Where the clock is set back, an hour of wall-clock times happens twice: the first time counts.  Where it is set forward,
an hour of them does not happen: all of them are the moment of the change.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from .. import duration

_SECOND = timedelta(seconds=1)


def to_wall(micros: int, zone: ZoneInfo) -> datetime:
    """What the clock shows at a moment, as a naive datetime."""
    return duration.to_datetime(micros).astimezone(zone).replace(tzinfo=None)


def to_moment(wall: datetime, zone: ZoneInfo) -> int:
    """The moment at which the clock shows *wall* for the first time; that of the change when it never does."""
    before, after = wall.replace(tzinfo=zone, fold=0), wall.replace(tzinfo=zone, fold=1)
    moment = before.astimezone(UTC)
    is_in_gap = moment.astimezone(zone).replace(tzinfo=None) != wall
    return duration.from_datetime(_change(after.astimezone(UTC), moment, zone) if is_in_gap else moment)


def _change(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """The first moment after *early* at which the zone has the UTC offset that it has at *late*."""
    offset = late.astimezone(zone).utcoffset()
    while late - early > _SECOND:
        middle = early + (late - early) / 2
        middle = middle.replace(microsecond=0)
        if middle <= early:
            break
        if middle.astimezone(zone).utcoffset() == offset:
            late = middle
        else:
            early = middle
    return late
