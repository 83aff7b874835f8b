"""The timeline as characters, and text that is safe to print."""

from __future__ import annotations

import io
import os
import sys

import pytest

from durable import events
from durable.cli.chart import draw
from durable.cli.terminal import Terminal, cut, of_stdout, padded, printable, width_of
from durable.client import RunView, timeline
from durable.store import Run

SECOND = 1_000_000
#: 2026-01-01 12:00:00 UTC.
NOON = 1_767_268_800 * SECOND


def terminal(width: int = 70, *, has_color: bool = False, has_unicode: bool = True) -> Terminal:
    return Terminal(width=width, height=30, is_live=False, has_color=has_color, has_unicode=has_unicode)


def view(log: list[events.Event], *, seconds: int, ended: bool = True, waiting_for=(), has_earlier=False) -> RunView:
    end = NOON + seconds * SECOND
    row = dict.fromkeys(Run.__dataclass_fields__)
    run = Run(**row | {"id": "a", "name": "yard", "status": "completed" if ended else "running", "created_at": NOON})
    if ended:
        run = Run(**row | {"id": "a", "name": "yard", "status": "completed", "created_at": NOON, "completed_at": end})
    rows = timeline.rows(log, ended_at=end if ended else None)
    return RunView(run, rows, has_earlier, list(waiting_for), end)


def lines(drawn: RunView, on: Terminal) -> list[str]:
    return [on.line(line).rstrip() for line in draw(drawn, on)]


def at(second: int) -> int:
    return NOON + second * SECOND


RETRIED = [
    events.StepCreated(at=at(0), op_id="r#1", name="lift", digest="d", args=""),
    events.StepRetrying(at=at(10), op_id="r#1", attempt=1, started_at=at(5), error="", due_at=at(20)),
    events.StepCompleted(at=at(30), op_id="r#1", attempt=2, started_at=at(20), result=""),
    events.WaitCreated(at=at(30), op_id="r#2", digest="sleep:x", due_at=at(40)),
    events.WaitCompleted(at=at(40), op_id="r#2"),
]


def test_each_attempt_and_the_wait_before_it_has_its_place():
    """A retried step waits, fails, waits and completes; a sleep follows; the axis shows the times."""
    assert lines(view(RETRIED, seconds=40), terminal(57)) == [
        "            │12:00:00 │12:00:15",
        "r#1  lift   ···✗✗✗✗······████████        30 s, 2 attempts",
        "r#2  sleep                      ───────  10 s",
        "· waits to run  █ attempt  ✗ failed attempt  ─ sleep",
    ]


def test_without_utf8_the_timeline_is_ascii():
    """Each character has a stand-in, and the legend names it."""
    drawn = lines(view(RETRIED, seconds=40), terminal(57, has_unicode=False))

    assert all(line.isascii() for line in drawn)
    assert "...xxxx......########" in drawn[1]
    assert drawn[-1] == ". waits to run  # attempt  x failed attempt  - sleep"


def test_colours_only_where_there_are_some():
    """The same characters, with styles around them."""
    plain, colored = (
        [each.line(line) for line in draw(view(RETRIED, seconds=40), each)]
        for each in (terminal(), terminal(has_color=True))
    )

    assert not any("\x1b" in line for line in plain)
    assert "\x1b[31m✗✗" in colored[1]
    assert "\x1b[32m██" in colored[1]


def test_a_short_attempt_is_seen_in_a_long_run():
    """An attempt of a second in a run of a day takes one character, and a failed one is not hidden by another."""
    log = [
        events.StepCreated(at=at(0), op_id="r#1", name="lift", digest="d", args=""),
        events.StepRetrying(at=at(1), op_id="r#1", attempt=1, started_at=at(0), error="", due_at=at(1)),
        events.StepCompleted(at=at(2), op_id="r#1", attempt=2, started_at=at(1), result=""),
    ]
    drawn = lines(view(log, seconds=86_400), terminal())

    assert drawn[1].split() == ["r#1", "lift", "✗", "2.0", "s,", "2", "attempts"]


def test_an_open_run_ends_at_now_and_says_what_goes_on():
    """An open hook with its payloads, a sleep with its end, one that is overdue, a child with its status."""
    log = [
        events.WaitCreated(at=at(0), op_id="r#1", digest="sleep:x", due_at=at(100)),
        events.WaitCreated(at=at(0), op_id="r#2", digest="sleep:x", due_at=at(10)),
        events.HookCreated(at=at(10), op_id="r#3", name="", digest="d", token="t"),
        events.HookReceived(at=at(20), op_id="r#3", payload="1"),
        events.ChildCreated(at=at(0), op_id="r#4", name="other", digest="d", args="", run_id="b"),
    ]
    waiting = [
        {"kind": "sleep", "operation": "r#1", "until": "2026-01-01T12:01:40+00:00"},
        {"kind": "sleep", "operation": "r#2", "until": "2026-01-01T12:00:10+00:00"},
        {"kind": "child", "operation": "r#4", "status": "blocked"},
    ]
    drawn = lines(view(log, seconds=40, ended=False, waiting_for=waiting), terminal())

    assert drawn[0].endswith("now")
    assert drawn[1].endswith("─  until 12:01:40")
    assert drawn[2].endswith("─  overdue 30 s")
    assert "┄●┄" in drawn[3]
    assert drawn[3].endswith("open 30 s")
    assert drawn[4].endswith("═  blocked 40 s")


@pytest.mark.parametrize("width", [1, 20, 40, 79, 80, 200])
def test_lines_are_as_wide_as_the_terminal(width):
    """Long names are cut; only a terminal that is too narrow for a name and a few characters gets longer lines."""
    log = [events.StepCreated(at=at(0), op_id="r#1", name="a_name_of_many_words" * 4, digest="d", args="")]
    drawn = lines(view([*log, *RETRIED[3:]], seconds=40), terminal(width))

    assert max(map(len, drawn[:-1])) <= max(width, 60)


def test_only_the_last_operations_are_drawn():
    """``most`` leaves out earlier ones, and a line says so; without operations there is nothing to draw."""
    drawn = [terminal().line(line) for line in draw(view(RETRIED, seconds=40), terminal(), most=1)]

    assert not any("lift" in line for line in drawn)
    assert drawn[-1] == "Earlier operations are not shown."
    assert draw(view([], seconds=1), terminal()) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("abc\u202e123\u2066", "abc\\u202e123\\u2066"),
        ("\ud800", "\\ud800"),
        ("\u2028", "\\u2028"),
    ],
)
def test_what_is_not_printable_is_escaped(text, shown, monkeypatch):
    """Escape sequences, line breaks and characters that reverse text do nothing on the terminal."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))

    assert printable(text) == shown


def test_what_stdout_cannot_encode_is_escaped(monkeypatch):
    """On an ASCII stdout no character raises an error."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))

    assert printable("é日\x1b") == "\\xe9\\u65e5\\x1b"


@pytest.mark.parametrize(
    ("environment", "no_color", "is_live", "has_color"),
    [
        ({}, False, True, True),
        ({}, True, True, False),
        ({"NO_COLOR": "1"}, False, True, False),
        ({"NO_COLOR": ""}, False, True, True),
        ({"TERM": "dumb"}, False, False, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, environment, no_color, is_live, has_color):
    """On a terminal there are colours, unless an option or the environment turns them off; never on a file."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    master, slave = os.openpty()
    with open(slave, "w", encoding="utf-8") as on_terminal, open(os.devnull, "w", encoding="ascii") as elsewhere:
        monkeypatch.setattr(sys, "stdout", on_terminal)
        found = of_stdout(no_color=no_color)
        monkeypatch.setattr(sys, "stdout", elsewhere)
        other = of_stdout(no_color=no_color)
    os.close(master)

    assert (found.is_live, found.has_color, found.has_unicode) == (is_live, has_color, True)
    assert (other.is_live, other.has_color, other.has_unicode) == (False, False, False)


def test_wide_characters_take_two_columns():
    """Columns stay aligned after East Asian text, and what is cut ends with a tilde."""
    assert width_of("日本e\u0301") == 5
    assert cut("日本", 3) == "日"
    assert padded("日本", 6) == "日本  "
    assert padded("abcdef", 4) == "abc~"
