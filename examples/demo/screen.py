"""What the demo prints: headings, what happens, what was checked, and a line that shows that time passes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from durable.cli.terminal import Span, Terminal, of_stdout

T = TypeVar("T")

#: Without a terminal, a line of progress comes after so many seconds of silence.
QUIET_SECS = 2.0
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_POLL_SECS = 0.05


class DemoFailed(Exception):
    """Something is not as promised."""


class Screen:
    """
    Prints to stdout; in colour on a terminal, unless ``NO_COLOR`` is set.

    On a terminal, the line of progress is rewritten in place.
    """

    def __init__(self, terminal: Terminal | None = None) -> None:
        self._terminal = terminal or of_stdout()
        self._started = self._printed = time.monotonic()
        self._has_progress = False

    @property
    def secs(self) -> float:
        """The time since the start."""
        return time.monotonic() - self._started

    def heading(self, text: str) -> None:
        """Print a heading below an empty line."""
        self._print(("", ""))
        self._print((text, "heading"))

    def say(self, text: str) -> None:
        """Print what happens, and when."""
        self._print((f"  {self.secs:4.1f} s  ", "quiet"), (text, ""))

    def fault(self, text: str) -> None:
        """Print a fault that the demo causes."""
        self._print((f"  {self.secs:4.1f} s  ", "quiet"), (text, "blocked"))

    def expect(self, what: str, expected: object, actual: object) -> None:
        """
        Print *what* and its value, if it is the expected one.

        Raises:
            DemoFailed: It is another one.
        """
        if actual != expected:
            raise DemoFailed(f"{what}: should be {_shown(expected)}, but is {_shown(actual)}.")
        self.passed(f"{what}: {_shown(actual)}")

    def passed(self, text: str) -> None:
        """Print something that is as promised."""
        self._print((f"  {self.secs:4.1f} s  ", "quiet"), (f"{self._mark('✓', '+')} {text}", "completed"))

    def failed(self, text: str) -> None:
        """Print something that is not as promised."""
        self._print((f"  {self.secs:4.1f} s  ", "quiet"), (f"{self._mark('✗', 'x')} {text}", "failed"))

    def until(self, what: str | Callable[[], str], condition: Callable[[], T | None], within_secs: float = 30.0) -> T:
        """
        Wait for a condition, and show progress meanwhile.  Returns what *condition* returns once that is true.

        Args:
            what: What is waited for; a function where the text changes.

        Raises:
            DemoFailed: It is not true within *within_secs*.
        """
        begun = time.monotonic()
        while not (found := condition()):
            waited = time.monotonic() - begun
            text = what if isinstance(what, str) else what()
            if waited > within_secs:
                raise DemoFailed(f"{text}: not so within {within_secs:g} s.  Last seen: {_shown(found)}.")
            self._progress(text, waited)
            time.sleep(_POLL_SECS)
        self._erase_progress()
        return found

    def _progress(self, what: str, waited: float) -> None:
        now = time.monotonic()
        if self._terminal.is_live:
            spinner = self._mark(_SPINNER, "|/-\\")
            symbol = spinner[int(waited * 10) % len(spinner)]
            line = self._terminal.line([(f"{symbol} {what} … {waited:.1f} s", "quiet")], most=self._terminal.width - 1)
            sys.stdout.write(f"\r\x1b[K{line}")
            sys.stdout.flush()
            self._has_progress = True
        elif now - self._printed >= QUIET_SECS:
            self._print((f"  {self.secs:4.1f} s  … {what}", "quiet"))

    def _print(self, *spans: Span) -> None:
        self._erase_progress()
        self._terminal.print([spans])
        sys.stdout.flush()
        self._printed = time.monotonic()

    def _erase_progress(self) -> None:
        if self._has_progress:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
            self._has_progress = False

    def _mark(self, symbol: str, ascii_symbol: str) -> str:
        return symbol if self._terminal.has_unicode else ascii_symbol


def _shown(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
