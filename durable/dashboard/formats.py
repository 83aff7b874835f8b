"""Times, durations and values as text, for the templates."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from markupsafe import Markup, escape

from .. import duration

#: Characters of a value that a page shows.
SHOWN = 50_000


def moment(micros: int | None) -> Markup | str:
    """A ``<time>`` element, to the second, in UTC."""
    if micros is None:
        return "-"
    text = _iso(micros)
    return Markup(f'<time datetime="{text[:19]}Z" title="{text} UTC">{text[:10]} {text[11:19]}</time>')


def clock(micros: int | None, span: int = 0) -> str:
    """A time of the day, with as many digits as a *span* of time needs."""
    if micros is None:
        return "-"
    text = _iso(micros)
    if span > 2 * 86_400_000_000:
        return f"{text[5:10]} {text[11:16]}"
    return text[11:19] if span > 600_000_000 else text[11:23]


def tick(micros: int, span: int) -> str:
    """A round time on an axis of so much time: with milliseconds only where its ticks are less than a second apart."""
    text = clock(micros, span)
    return text[:8] if span > 3_000_000 and len(text) == 12 else text


def _iso(micros: int) -> str:
    """A time as ``2026-01-31T12:00:00.000000``; ``strftime`` takes ten times as long under the guards of workflows."""
    return duration.to_datetime(micros).isoformat(timespec="microseconds")[:26]


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


def text_of(value: Any) -> str:
    """Plain JSON as text of at most ``SHOWN`` characters."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}\n… and {len(text) - SHOWN:,} more characters"


def with_code(text: str) -> Markup:
    """A sentence with the commands between its backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part) for number, part in enumerate(parts)
    )


def in_one_line(value: Any, longest: int = 120) -> str:
    """Plain JSON on one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= longest else f"{text[:longest]}…"


def words(name: str) -> str:
    """An event's or a state's name as words."""
    return name.replace("_", " ")


@lru_cache(1_000)
def status_of(state: str) -> Markup:
    """A status as a badge: its word, with its colour as a hint."""
    return Markup('<span class="status status-{}">{}</span>').format(escape(state), words(state))


@lru_cache(1_000)
def workflow(name: str) -> Markup:
    """A workflow's name, its module less prominent."""
    module, dot, last = name.rpartition(".")
    return Markup('<span class="quiet">{}</span>{}').format(module + dot, last)


FILTERS = {
    "moment": moment,
    "clock": clock,
    "tick": tick,
    "took": took,
    "number": number,
    "words": words,
    "status": status_of,
    "workflow": workflow,
    "text_of": text_of,
    "with_code": with_code,
    "in_one_line": in_one_line,
}
