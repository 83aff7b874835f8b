"""
Durations ("1h30m") and times, as whole microseconds.

A duration is a str of numbers with units (``ms s m h d w``), a number of seconds, or a timedelta.  A time is
microseconds since 1970 UTC; ``due_at`` also takes an aware datetime.  Other values raise ValueError, whose text shows
the value.
"""

from __future__ import annotations

import math
import re
import reprlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal

_MICROS = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60 * 1_000_000,
    "h": 3_600 * 1_000_000,
    "d": 86_400 * 1_000_000,
    "w": 7 * 86_400 * 1_000_000,
}
_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?(ms|[smhdw])")
_WHOLE = re.compile(rf"(?:{_PART.pattern} ?)+")
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")

_TAKES = 'use a str with the units ms, s, m, h, d, w, such as "1h30m"; a number of seconds; or a timedelta.'

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: The first time that a datetime in UTC can hold.
_EARLIEST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
#: The last one.  No duration is longer than this either.
LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def to_micros(value: str | int | float | timedelta, *, what: str = "duration") -> int:
    """
    *value* in microseconds, rounded to the nearest one.

    Args:
        value: ``"1h30m"``, ``"500 ms"``, seconds as a number (or as a str of one), or a timedelta.
        what: What the value is for.  The text of an error begins with it.

    Raises:
        ValueError: If it is NaN, infinite, negative, too long, or no duration.
    """
    micros = _micros(value, what)
    if micros < 0:
        raise ValueError(f"{what} {_shown(value)} is negative; use 0 or more.")
    if micros > LATEST:
        raise ValueError(f"{what} {_shown(value)} is too long: the calendar ends with the year 9999.")
    return micros


def due_at(value: str | int | float | timedelta | datetime, now: int) -> int:
    """
    The time at which a sleep of *value* that begins at *now* ends.

    An aware datetime is that time itself; it may be in the past.

    Raises:
        ValueError: As ``to_micros``; also for a naive datetime, and for a time after the year 9999 in UTC.
    """
    if isinstance(value, datetime):
        return in_calendar(value)
    due = now + to_micros(value)
    if due > LATEST:
        raise ValueError(f"duration {_shown(value)} ends after the year 9999.")
    return due


def to_datetime(micros: int) -> datetime:
    """The time as an aware datetime, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def iso(micros: int | None) -> str | None:
    """The time as ISO 8601 text in UTC; None for None."""
    return None if micros is None else to_datetime(micros).isoformat()


def from_iso(text: str) -> int:
    """
    The time of ISO 8601 text with a UTC offset: what ``iso`` returns.

    Raises:
        ValueError: For other text, and as ``in_calendar``.
    """
    return in_calendar(datetime.fromisoformat(text))


def to_text(micros: int) -> str:
    """The duration as text for people: ``1.5s``."""
    return f"{micros / 1_000_000:g}s"


def from_datetime(value: datetime) -> int:
    """
    The time of an aware datetime.

    Raises:
        ValueError: For a naive one, which could be in any time zone.
    """
    if value.utcoffset() is None:
        raise ValueError(
            f"{value!r} has no time zone.  Use an aware datetime: now() + timedelta(...), or datetime(..., tzinfo=UTC)."
        )
    return (value - _EPOCH) // _MICROSECOND


def in_calendar(value: datetime) -> int:
    """
    The time of an aware datetime, as ``from_datetime``, that ``to_datetime`` can return.

    Raises:
        ValueError: For a naive one, and for one whose offset puts it outside the years 1 to 9999 in UTC.
    """
    micros = from_datetime(value)
    if not _EARLIEST <= micros <= LATEST:
        raise ValueError(f"{value.isoformat()} is not in the years 1 to 9999 in UTC.")
    return micros


def _micros(value: object, what: str) -> int:
    if isinstance(value, str):
        return _parsed(value, what)
    if isinstance(value, timedelta):
        return value // _MICROSECOND
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what} {_shown(value)} is of type {type(value).__name__}; {_TAKES}")
    if isinstance(value, int):
        return value * 1_000_000
    if not math.isfinite(value):
        raise ValueError(f"{what} {value!r} is not a finite number; {_TAKES}")
    return round(value * 1_000_000) if abs(value) < LATEST else int(value) * 1_000_000


def _parsed(text: str, what: str) -> int:
    stripped = text.strip()
    if _NUMBER.fullmatch(stripped):
        return round(Decimal(stripped) * 1_000_000)
    if not _WHOLE.fullmatch(stripped):
        raise ValueError(f"{what} {_shown(text)} is malformed; {_TAKES}")
    return round(sum(Decimal(number) * _MICROS[unit] for number, unit in _PART.findall(stripped)))


def _shown(value: object) -> str:
    """A short repr for an error."""
    try:
        return reprlib.repr(value)
    except ValueError:  # An int with more digits than sys.get_int_max_str_digits().
        return "(a huge int)"
