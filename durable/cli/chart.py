"""Draws the timeline of a run with characters: one line for each operation, below an axis of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from .. import duration
from ..client import RunView, timeline
from ..display import Axis, formats
from .terminal import Line, Span, Terminal, padded, printable, spans_of, width_of

#: The character and the style of a bar, and what the legend says of it.
_BARS: dict[tuple[timeline.BarKind, str], tuple[str, str, str, str]] = {
    (timeline.BarKind.WAITING, ""): ("·", ".", "waiting", "waits to run"),
    (timeline.BarKind.ATTEMPT, "completed"): ("█", "#", "completed", "attempt"),
    (timeline.BarKind.ATTEMPT, "failed"): ("✗", "x", "failed", "failed attempt"),
    (timeline.BarKind.ATTEMPT, "cancelled"): ("▒", "/", "cancelled", "cancelled attempt"),
    (timeline.BarKind.ATTEMPT, "running"): ("▓", ">", "running", "running attempt"),
    (timeline.BarKind.ATTEMPT, "in_doubt"): ("?", "?", "in_doubt", "attempt in doubt"),
    (timeline.BarKind.SLEEP, ""): ("─", "-", "sleep", "sleep"),
    (timeline.BarKind.LISTENING, ""): ("┄", "_", "listening", "hook open"),
    (timeline.BarKind.CHILD, ""): ("═", "=", "running", "child run"),
}
_MARK = ("●", "*", "completed", "payload received")
#: Where bars overlap in one character, the later kind is seen: short attempts are not lost among long waits.
_ORDER = (
    timeline.BarKind.WAITING,
    timeline.BarKind.SLEEP,
    timeline.BarKind.LISTENING,
    timeline.BarKind.CHILD,
    timeline.BarKind.ATTEMPT,
)
_LEAST_BARS = 16
_SECOND = 1_000_000
#: Stands at the end of the axis of an open run.
_NOW = " now"
_GAP = ("  ", "")


def draw(view: RunView, terminal: Terminal, *, most: int | None = None) -> list[Line]:
    """
    The lines of the timeline; none if no operation has begun.

    Args:
        most: The largest number of operations to draw: the last ones.
    """
    rows = view.rows if most is None else view.rows[-most:]
    if not rows:
        return []
    has_earlier = view.has_earlier or len(rows) < len(view.rows)
    end = view.run.completed_at or view.now
    start = min(row.start for row in rows) if has_earlier else view.run.created_at
    axis = Axis(start, max(end, start + 1_000))
    waiting = {str(entry["operation"]): entry for entry in view.waiting_for}
    notes = [_note(row, waiting, axis.end) for row in rows]

    names = [printable(row.name) for row in rows]
    ids = min(12, max(len(row.op_id) for row in rows))
    named = min(max(map(width_of, names)), max(12, terminal.width // 4))
    noted = max(len(note) for note, _ in notes)
    cells = max(_LEAST_BARS, terminal.width - ids - named - noted - 3 * len(_GAP[0]))
    margin: Span = (" " * (ids + named + 2 * len(_GAP[0])), "")

    ticks = _ticks(axis, cells, terminal, now="" if view.run.ended else _NOW)
    lines: list[Line] = [[margin, (ticks, "quiet")]]
    for row, name, (note, style) in zip(rows, names, notes, strict=True):
        bars = spans_of(_cells(row, axis, cells, terminal))
        lines.append(
            [(padded(row.op_id, ids), "quiet"), _GAP, (padded(name, named), ""), _GAP, *bars, _GAP, (note, style)]
        )
    lines.append([(_legend(rows, terminal), "quiet")])
    if has_earlier:
        lines.append([("Earlier operations are not shown.", "quiet")])
    return lines


def _cells(row: timeline.Row, axis: Axis, cells: int, terminal: Terminal) -> list[Span]:
    """The characters of a row's bars."""
    line: list[Span] = [(" ", "")] * cells
    for bar in sorted(row.bars, key=lambda bar: (_ORDER.index(bar.kind), bar.state == "failed")):
        symbol, style = _symbol(_BARS[_key(bar)], terminal)
        if bar.state == "failed":
            style = "failed"
        first = _cell(axis, bar.start, cells)
        last = max(first, _cell(axis, (bar.end or axis.end) - 1, cells))
        line[first : last + 1] = [(symbol, style)] * (last + 1 - first)
    for mark in row.marks:
        line[_cell(axis, mark.at, cells)] = _symbol(_MARK, terminal)
    return line


def _cell(axis: Axis, at: int, cells: int) -> int:
    return max(0, min(cells - 1, (at - axis.start) * cells // axis.span))


def _ticks(axis: Axis, cells: int, terminal: Terminal, *, now: str) -> str:
    """The axis: a line and a time at each tick that has the space, or at the start; *now* stands at the end."""
    text = ""
    for tick in (*axis.ticks(cells // 10 + 1), axis.start):
        label = ("│" if terminal.has_unicode else "|") + _clock(tick, axis.span)
        at = _cell(axis, tick, cells)
        if at >= len(text) and at + len(label) <= cells - len(now):
            text = text.ljust(at) + label + " "
    return text.rstrip().ljust(cells - len(now)) + now


def _clock(at: int, span: int) -> str:
    """A time, with milliseconds only where it has some."""
    return formats.clock(at, span).removesuffix(".000")


def _legend(rows: Sequence[timeline.Row], terminal: Terminal) -> str:
    """What the characters in the timeline mean."""
    used = {_key(bar) for row in rows for bar in row.bars}
    forms = [form for key, form in _BARS.items() if key in used]
    if any(row.marks for row in rows):
        forms.append(_MARK)
    return "  ".join(f"{_symbol(form, terminal)[0]} {form[3]}" for form in forms)


def _note(row: timeline.Row, waiting: dict[str, dict[str, object]], now: int) -> Span:
    """What stands at the end of a row, and its style: its state unless it has completed, and how long it took."""
    took = formats.took((row.end if row.end is not None else now) - row.start)
    state = "open" if row.kind == "hook" and row.end is None else formats.words(row.state)
    pending = waiting.get(row.op_id, {})
    match pending.get("kind"), pending.get("state"):
        case "sleep", _:
            due = duration.from_datetime(datetime.fromisoformat(str(pending["until"])))
            if due < now:
                return (f"overdue {formats.took(now - due)}", "failed")
            return (f"until {_clock(due // _SECOND * _SECOND, due - now)}", "running")
        case "child", _:
            state = str(pending["status"])
        case "step", "delayed":
            state = "waits for its retry"
        case "step", "unknown":
            state = "no worker knows it,"
    text = took if state == "completed" else f"{state} {took}"
    style = row.state if row.state in ("failed", "cancelled", "running", "in_doubt", "waiting") else ""
    return (f"{text}, {row.attempts} attempts" if row.attempts > 1 else text, style)


def _key(bar: timeline.Bar) -> tuple[timeline.BarKind, str]:
    return (bar.kind, bar.state if bar.kind is timeline.BarKind.ATTEMPT else "")


def _symbol(form: tuple[str, str, str, str], terminal: Terminal) -> Span:
    return (form[0] if terminal.has_unicode else form[1], form[2])
