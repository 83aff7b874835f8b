"""
"1h30m" and friends, as whole microseconds.

A duration is a str of numbers with units (``ms s m h d w``), a number of
seconds, or a timedelta.  A moment is microseconds since 1970 UTC; ``due_at``
also takes an aware datetime.  Whatever is wrong raises ValueError with the
value in it.
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

#: The last moment that a datetime can hold; no duration is longer than this either.
LATEST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def to_micros(value: str | int | float | timedelta, *, what: str = "duration") -> int:
    """
    *value* in microseconds, to the nearest.

    Args:
        value: ``"1h30m"``, ``"500 ms"``, seconds as a number (or as a str of one), or a timedelta.
        what: What the value is for; the message of an error begins with it.

    Raises:
        ValueError: For NaN, infinity, a negative or a too long duration, and for anything else.
    """
    micros = _micros(value, what)
    if micros < 0:
        raise ValueError(f"{what} {_shown(value)} is negative; the least is 0.")
    if micros > LATEST:
        raise ValueError(f"{what} {_shown(value)} is too long: the calendar ends with the year 9999.")
    return micros


def due_at(value: str | int | float | timedelta | datetime, now: int) -> int:
    """
    The moment at which a sleep of *value*, begun at *now*, is over.

    An aware datetime is its own moment, which may lie in the past.

    Raises:
        ValueError: As ``to_micros``; for a naive datetime; for a moment after the year 9999.
    """
    if isinstance(value, datetime):
        return from_datetime(value)
    due = now + to_micros(value)
    if due > LATEST:
        raise ValueError(f"duration {_shown(value)} ends after the year 9999.")
    return due


def to_datetime(micros: int) -> datetime:
    """The moment as an aware datetime, in UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def iso(micros: int | None) -> str | None:
    """A moment as ISO 8601 text in UTC, for people and other programs; None stays None."""
    return None if micros is None else to_datetime(micros).isoformat()


def to_text(micros: int) -> str:
    """A duration for people: ``1.5s``."""
    return f"{micros / 1_000_000:g}s"


def from_datetime(value: datetime) -> int:
    """
    The moment of an aware datetime.

    Raises:
        ValueError: For a naive one, which names no moment.
    """
    if value.utcoffset() is None:
        raise ValueError(
            f"{value!r} has no time zone, so it names no moment."
            "  Use an aware one: now() + timedelta(...), or datetime(..., tzinfo=UTC)."
        )
    return (value - _EPOCH) // _MICROSECOND


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
    """Short enough for a message, whatever it is."""
    try:
        return reprlib.repr(value)
    except ValueError:  # An int with more digits than sys.get_int_max_str_digits().
        return "(a huge int)"
