"""Times, lengths of time and numbers as people read them."""

from __future__ import annotations

import json
from typing import Any

from .. import duration


def clock(micros: int | None, span: int = 0) -> str:
    """A time of the day, with as many digits as a *span* of time needs."""
    if micros is None:
        return "-"
    text = exact(micros)
    if span > 2 * 86_400_000_000:
        return f"{text[5:10]} {text[11:16]}"
    return text[11:19] if span > 600_000_000 else text[11:23]


def tick(micros: int, span: int) -> str:
    """A round time on an axis of so much time: with milliseconds only where its ticks are less than a second apart."""
    text = clock(micros, span)
    return text[:8] if span > 3_000_000 and len(text) == 12 else text


def took(micros: int | None) -> str:
    """A length of time with two units at most: ``1 d 3 h``, ``4.2 s``, ``12 ms``."""
    if micros is None:
        return "-"
    secs = max(0, micros) / 1_000_000
    if secs < 1:
        return f"{secs * 1000:.0f} ms" if secs >= 0.001 or secs == 0 else f"{secs * 1000:.1f} ms"
    if secs < 60:
        return f"{secs:.1f} s" if secs < 10 else f"{secs:.0f} s"
    if secs < 3600:
        return f"{secs // 60:.0f} min {secs % 60:.0f} s"
    if secs < 86_400:
        return f"{secs // 3600:.0f} h {secs % 3600 // 60:.0f} min"
    return f"{secs // 86_400:.0f} d {secs % 86_400 // 3600:.0f} h"


def ago(micros: int | None, now: int) -> str:
    """How long before *now* a time is: ``2 min ago``.  One unit is enough to find a run; ``-`` stands for None."""
    if micros is None:
        return "-"
    secs = max(0, now - micros) // 1_000_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if secs >= size:
            return f"{secs // size} {unit} ago"
    return f"{secs} s ago" if secs else "now"


def when(micros: int | None, now: int) -> str:
    """A time to the second in UTC, and how far it is from *now*: ``2026-01-31 12:00:00 UTC, 2 min ago``."""
    if micros is None:
        return "-"
    text = exact(micros)
    distance = f"in {took(micros - now)}" if micros > now else ago(micros, now)
    return f"{text[:10]} {text[11:19]} UTC, {distance}"


def number(value: int | float | None, most: int | None = None) -> str:
    """A count with thin separators; ``1,000+`` when it was counted only up to *most*."""
    if value is None:
        return "-"
    return f"{value:,}+" if most is not None and value >= most else f"{value:,}"


def percent(part: int, whole: int) -> str:
    """A share, ``2.5 %``."""
    if not whole:
        return "-"
    share = 100 * part / whole
    return f"{share:.1f} %" if 0 < share < 10 else f"{share:.0f} %"


def exact(micros: int) -> str:
    """A time in UTC as ``2026-01-31T12:00:00.000000``."""
    # ``strftime`` takes ten times as long under the guards of workflows.
    return duration.to_datetime(micros).isoformat(timespec="microseconds")[:26]


def in_one_line(value: Any, longest: int = 120) -> str:
    """Plain JSON on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else f"{text[:longest]}…"


def words(name: str) -> str:
    """An event's or a state's name as words."""
    return name.replace("_", " ")
