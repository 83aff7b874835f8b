"""
When a schedule fires: a cron expression in a time zone, or an interval.

cronsim parses cron expressions, and Celery its own ``crontab``.  A timing only computes; it is stored as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .. import duration
from ..errors import ConfigurationError
from . import wall_clock

SECOND = 1_000_000

#: Units in which people read an interval.
_UNITS = (("d", 86_400 * SECOND), ("h", 3_600 * SECOND), ("m", 60 * SECOND))

#: How far ``last_until`` looks back, each time when nothing was nearer.
_LOOKS_BACK = (60 * SECOND, 3_600 * SECOND, 86_400 * SECOND, 32 * 86_400 * SECOND, 400 * 86_400 * SECOND)

#: Names that cron tables have for common expressions.
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Timing(Protocol):
    """The planned times of a schedule.  Moments are microseconds since 1970 UTC."""

    def next_after(self, moment: int) -> int | None:
        """The first planned time after a moment; None when there is none."""

    def describe(self) -> str:
        """The timing as its author wrote it, without the time zone."""

    def to_json(self) -> str:
        """What ``from_json`` makes the timing of again."""


@dataclass(frozen=True, slots=True)
class Every:
    """Every multiple of an interval since 1970 UTC: ``every="15m"`` is at :00, :15, :30 and :45."""

    interval: int

    def next_after(self, moment: int) -> int | None:
        following = (moment // self.interval + 1) * self.interval
        return following if following <= duration.LATEST else None

    def describe(self) -> str:
        for unit, size in _UNITS:
            if self.interval % size == 0:
                return f"every {self.interval // size}{unit}"
        return f"every {duration.to_text(self.interval)}"

    def to_json(self) -> str:
        return json.dumps({"every": self.interval})


@dataclass(frozen=True, slots=True)
class Cron:
    """
    A cron expression in a time zone.

    Attributes:
        weekdays: Only these days of the week, Sunday is 0; from a ``crontab`` of Celery, whose days have to match in
            every field.
    """

    expression: str
    zone: ZoneInfo
    weekdays: tuple[int, ...] | None = None

    def next_after(self, moment: int) -> int | None:
        return next((each for each in self._from(moment) if each > moment), None)

    def _from(self, moment: int) -> Iterator[int]:
        """The planned times from shortly before *moment* on; several may be the same moment, that of a change."""
        # Naive times: cronsim would repeat and skip times at a change by rules of its own.
        for wall in CronSim(self.expression, wall_clock.to_wall(moment, self.zone)):
            if self.weekdays is None or wall.isoweekday() % 7 in self.weekdays:
                yield wall_clock.to_moment(wall, self.zone)

    def describe(self) -> str:
        if self.weekdays is None:
            return self.expression
        return f"{self.expression} (only on weekdays {','.join(map(str, self.weekdays))})"

    def to_json(self) -> str:
        return json.dumps({"cron": self.expression, "weekdays": self.weekdays, "tz": self.zone.key})


@lru_cache(maxsize=4_096)
def from_json(text: str) -> Timing:
    """The timing of text that ``to_json`` returned."""
    fields = json.loads(text)
    if "every" in fields:
        return Every(fields["every"])
    weekdays = fields["weekdays"]
    return Cron(fields["cron"], ZoneInfo(fields["tz"]), None if weekdays is None else tuple(weekdays))


def make(cron: Any, every: Any, tz: Any) -> Timing:
    """
    The timing that the arguments of ``schedule`` describe.

    Raises:
        ConfigurationError: None or both are given, one is malformed, there is no such time zone, or it never fires.
    """
    if (cron is None) == (every is None):
        raise ConfigurationError('Give a schedule either cron="0 3 * * *" or every="15m".')
    zone = _zone(tz)
    return _every(every) if cron is None else _cron(cron, zone)


def _every(every: Any) -> Timing:
    try:
        interval = duration.to_micros(every, what="every")
    except ValueError as error:
        raise ConfigurationError(f"{error}") from None
    if interval < SECOND:
        raise ConfigurationError(f"every={every!r} is shorter than a second.")
    return Every(interval)


def _cron(cron: Any, zone: ZoneInfo) -> Timing:
    text, weekdays = _parts(cron)
    fields = _ALIASES.get(text.strip().lower(), text).split()
    if len(fields) != 5:
        raise ConfigurationError(
            f"cron={text!r} has {len(fields)} fields.  Write five: minute, hour, day of the month, month, day of the"
            ' week; for example "0 3 * * 1-5" for 03:00 from Monday to Friday.'
        )
    timing = Cron(" ".join(fields), zone, weekdays)
    try:
        is_empty = timing.next_after(0) is None
    except CronSimError as error:
        raise ConfigurationError(
            f"cron={text!r} cannot be read, or never fires: {error}.  The fields are minute (0-59), hour (0-23), day of"
            " the month (1-31), month (1-12), day of the week (0-7); each may be *, a list, a range, or have a step."
        ) from None
    if is_empty:
        raise ConfigurationError(f"cron={text!r} never fires: no day in the calendar has this date.")
    return timing


def _parts(cron: Any) -> tuple[str, tuple[int, ...] | None]:
    """The expression; and for Celery's ``crontab`` the days of the week, which have to match as well."""
    if isinstance(cron, str):
        return cron, None
    sets = [getattr(cron, name, None) for name in ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")]
    if not all(isinstance(each, set) for each in sets):
        raise ConfigurationError(
            f'cron={cron!r} is a {type(cron).__name__}.  Give a str such as "0 3 * * *", or a'
            " celery.schedules.crontab; for a fixed interval, give every=…"
        )
    minute, hour, day, month, weekdays = (tuple(sorted(each)) for each in sets if each is not None)
    fields = [_field(minute, 60), _field(hour, 24), _field(day, 31), _field(month, 12), "*"]
    return " ".join(fields), None if len(weekdays) == 7 else weekdays


def _field(values: Sequence[int], how_many: int) -> str:
    return "*" if len(values) == how_many else ",".join(map(str, values))


def _zone(tz: Any) -> ZoneInfo:
    if isinstance(tz, ZoneInfo) and tz.key:
        return tz
    try:
        return ZoneInfo(tz)
    except Exception:
        # For a malformed name it raises ValueError, for the name of a folder an OSError, for no str a TypeError.
        raise ConfigurationError(
            f'tz={tz!r} is no time zone.  Write its IANA name, such as "Europe/Vienna".  If the name is right, this'
            " machine has no time zones: pip install tzdata."
        ) from None


def last_until(timing: Timing, moment: int, since: int) -> int:
    """The last planned time until a moment.  *since* is a planned time that is not later, and may be long ago."""
    for length in _LOOKS_BACK:
        begin = max(since, moment - length)
        found = timing.next_after(begin - 1)
        if found is not None and found <= moment:
            break
    else:
        found = since
    last = since if found is None else found
    while (following := timing.next_after(last)) is not None and following <= moment:
        last = following
    return last


def between(timing: Timing, start: datetime, end: datetime) -> Iterator[int]:
    """The planned times from *start* to *end*, both included."""
    until = duration.from_datetime(end)
    moment = duration.from_datetime(start) - 1
    while (following := timing.next_after(moment)) is not None and following <= until:
        yield following
        moment = following
