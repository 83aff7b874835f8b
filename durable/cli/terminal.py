"""The terminal that stdout is: its size, its colours, its characters; and text that is safe to print on it."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import click

#: A part of a line: its text, and the name of its style in ``STYLES``.
Span = tuple[str, str]
Line = Sequence[Span]

#: Styles by what they mean; "" is plain text.
STYLES: dict[str, dict[str, object]] = {
    "heading": {"bold": True},
    "quiet": {"dim": True},
    "completed": {"fg": "green"},
    "failed": {"fg": "red"},
    "blocked": {"fg": "red", "bold": True},
    "in_doubt": {"fg": "red", "bold": True},
    "running": {"fg": "cyan"},
    "pending": {"fg": "yellow"},
    "waiting": {"fg": "yellow"},
    "cancelled": {"fg": "magenta"},
    "continued": {"fg": "green", "dim": True},
    "sleep": {"fg": "blue"},
    "listening": {"fg": "blue"},
}


@dataclass(frozen=True, slots=True)
class Terminal:
    """What stdout can show.  ``is_live`` is whether it is a terminal that can be redrawn."""

    width: int
    height: int
    is_live: bool
    has_color: bool
    has_unicode: bool

    def line(self, spans: Line, *, most: int | None = None) -> str:
        """A line as text: printable, styled where there are colours, and at most so many columns wide."""
        left = most
        parts = []
        for text, style in spans:
            shown = printable(text)
            if left is not None:
                shown = cut(shown, left)
                left -= width_of(shown)
            parts.append(click.style(shown, **STYLES[style]) if self.has_color and style in STYLES else shown)  # type: ignore[arg-type]
        return "".join(parts)

    def print(self, lines: Iterable[Line]) -> None:
        """Print lines; blanks at their ends are left out."""
        for spans in lines:
            click.echo(self.line(_stripped(spans)), color=self.has_color)


def of_stdout(*, no_color: bool = False) -> Terminal:
    """
    What stdout is now.

    Colours need a terminal.  ``--no-color``, the variable ``NO_COLOR`` and ``TERM=dumb`` turn them off.
    """
    width, height = shutil.get_terminal_size()
    is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return Terminal(
        width=width,
        height=height,
        is_live=is_live,
        has_color=is_live and not no_color and not os.environ.get("NO_COLOR"),
        has_unicode="utf" in (sys.stdout.encoding or "").lower(),
    )


def printable(text: str) -> str:
    r"""
    The text with an escape like ``\x1b`` for each character that is not printable, or that stdout cannot encode.

    Payloads come from strangers.  Without this, a payload could move the cursor, hide lines or set the window's title.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def width_of(text: str) -> int:
    """How many columns printable text takes: East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, width: int) -> str:
    """Printable text, cut to a width."""
    if text.isascii():
        return text[: max(0, width)]
    while width_of(text) > max(0, width):
        text = text[:-1]
    return text


def padded(text: str, width: int) -> str:
    """Printable text in exactly this width; ``~`` stands at the end of a text that was cut."""
    if width_of(text) > width:
        text = cut(text, width - 1) + "~"
    return text + " " * (width - width_of(text))


def spans_of(cells: Iterable[Span]) -> list[Span]:
    """Characters with their styles as spans, equal styles together."""
    return [("".join(text for text, _ in group), style) for style, group in groupby(cells, key=lambda cell: cell[1])]


class Screen:
    """A terminal that is drawn again and again."""

    def draw(self, lines: Iterable[Line], terminal: Terminal) -> None:
        """Show these lines from the top, as many as fit."""
        shown = [terminal.line(spans, most=terminal.width) for spans in lines][: terminal.height]
        # Home; each line and "clear to its end"; clear below.
        click.echo("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in shown) + "\x1b[J", nl=False, color=True)


@contextmanager
def screen() -> Iterator[Screen]:
    """Use the terminal's second screen, without a cursor.  What was there before is there again afterwards."""
    click.echo("\x1b[?1049h\x1b[?25l", nl=False, color=True)
    try:
        yield Screen()
    finally:
        click.echo("\x1b[?25h\x1b[?1049l", nl=False, color=True)


def _stripped(spans: Line) -> Line:
    kept = list(spans)
    while kept:
        text, style = kept.pop()
        if text.rstrip():
            return [*kept, (text.rstrip(), style)]
    return []
