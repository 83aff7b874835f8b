"""What the demo prints, and when it fails: ``examples/demo/screen.py``."""

import re
from itertools import count
from pathlib import Path

import pytest

from durable.cli.terminal import Terminal


class Clock:
    """In place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, secs: float) -> None:
        self.now += secs


@pytest.fixture
def screen(monkeypatch):
    """The module, with a clock that only its own pauses move on."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    from demo import screen

    monkeypatch.setattr(screen, "time", Clock())
    return screen


def terminal(*, is_live: bool, has_color: bool = False, has_unicode: bool = True) -> Terminal:
    return Terminal(width=80, height=24, is_live=is_live, has_color=has_color, has_unicode=has_unicode)


def test_a_value_that_is_not_the_expected_one_ends_the_demo(screen, capsys):
    """Nothing is printed as passed then."""
    shown = screen.Screen(terminal(is_live=False))
    shown.expect("answer", [200, "é"], [200, "é"])

    with pytest.raises(screen.DemoFailed, match=r'^answer: should be \[200, "é"\], but is \[500, "é"\]\.$'):
        shown.expect("answer", [200, "é"], [500, "é"])

    assert capsys.readouterr().out == '   0.0 s  ✓ answer: [200, "é"]\n'


def test_what_never_comes_true_ends_the_demo(screen):
    """The message says what was waited for, how long, and what was seen last."""
    shown = screen.Screen(terminal(is_live=False))

    with pytest.raises(screen.DemoFailed, match=r"^all runs end: not so within 30 s\.  Last seen: 0\.$"):
        shown.until("all runs end", lambda: 0)


def test_without_a_terminal_a_line_comes_every_two_seconds(screen, capsys):
    """No escape sequence; the value that ended the wait is returned."""
    shown = screen.Screen(terminal(is_live=False))
    polls = count()
    found = shown.until(lambda: f"poll {next(polls)}", lambda: screen.time.monotonic() > 5 and "yes")

    assert found == "yes"
    assert re.findall(r"^ +([\d.]+) s  … poll \d+$", capsys.readouterr().out, re.MULTILINE) == ["2.0", "4.0"]


def test_on_a_terminal_progress_is_rewritten_and_erased(screen, capsys):
    """It takes no more than a line, and what is printed next begins at its start."""
    shown = screen.Screen(terminal(is_live=True, has_color=True))
    shown.until("a step whose name is very long " * 4, lambda: screen.time.monotonic() > 1)
    shown.passed("done")

    *progress, last = capsys.readouterr().out.split("\r\x1b[K")
    assert len(progress) > 10
    assert all(len(re.sub(r"\x1b\[\d+m", "", text)) < 80 and "\n" not in text for text in progress)
    assert last == "\x1b[2m   1.0 s  \x1b[0m\x1b[32m✓ done\x1b[0m\n"


def test_without_unicode_marks_are_ascii(screen, capsys):
    """A terminal of another encoding gets a plus for what passed and an x for what failed."""
    shown = screen.Screen(terminal(is_live=False, has_unicode=False))
    shown.passed("one")
    shown.failed("two")

    assert capsys.readouterr().out == "   0.0 s  + one\n   0.0 s  x two\n"
