"""Times, durations and values as text or HTML, for the templates."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from markupsafe import Markup, escape

from .. import duration
from ..display import formats

#: Characters of a value that a page shows.
SHOWN = 50_000


def moment(micros: int | None) -> Markup | str:
    """A ``<time>`` element, to the second, in UTC."""
    if micros is None:
        return "-"
    text = formats.exact(micros)
    return Markup(f'<time datetime="{text[:19]}Z" title="{text} UTC">{text[:10]} {text[11:19]}</time>')


def moment_of_text(text: str) -> Markup | str:
    """The ``<time>`` element of an ISO 8601 text with a UTC offset."""
    return moment(duration.from_iso(text))


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


@lru_cache(1_000)
def status_of(state: str) -> Markup:
    """A status as a badge: its word, with its colour as a hint."""
    return Markup('<span class="status status-{}">{}</span>').format(escape(state), formats.words(state))


@lru_cache(1_000)
def workflow(name: str) -> Markup:
    """A workflow's name, its module less prominent."""
    module, dot, last = name.rpartition(".")
    return Markup('<span class="quiet">{}</span>{}').format(module + dot, last)


FILTERS = {
    "moment": moment,
    "moment_of_text": moment_of_text,
    "clock": formats.clock,
    "tick": formats.tick,
    "took": formats.took,
    "number": formats.number,
    "words": formats.words,
    "status": status_of,
    "workflow": workflow,
    "text_of": text_of,
    "with_code": with_code,
    "in_one_line": formats.in_one_line,
}
