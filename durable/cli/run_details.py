"""What ``durable runs show`` prints: a run, its timeline, its steps, why it has failed, and its log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import duration
from ..app import Durable
from ..client import RunView, describe, details, run_view
from ..display import fold, formats, mask
from .chart import draw
from .printing import as_text, section, table, waiting_table
from .terminal import Line, Terminal, padded, printable

#: What is printed in sections of its own, and not as a field.
_SECTIONS = ("waiting_for", "timeline", "steps", "failure", "events")

_TIMES = ("created_at", "started_at", "completed_at", "scheduled_for", "paused_at")

#: How many characters of an error the table of steps shows, and how many of a value the log.
_ERROR = 60
_VALUE = 100


def read_run(engine: Durable, run_id: str, *, operations: int) -> tuple[dict[str, Any], RunView]:
    """
    Return a run as ``durable runs show --json`` prints it, and its view.

    Args:
        operations: The most rows of the timeline and of the steps: the last ones.

    Raises:
        RunNotFound: There is no run of this id.
    """
    described = describe.describe(engine, run_id)
    view = run_view.read(engine, run_id, operations=operations)
    described["timeline"] = run_view.rows_as_json(view.rows)
    described["steps"] = details.steps(engine, view)
    described["failure"] = details.failure(engine, run_id)
    return described, view


def print_run(described: Mapping[str, Any], view: RunView, terminal: Terminal, *, full: bool = False) -> None:
    """Print the fields of a run, one on each line, and its sections."""
    for name, value in described.items():
        if value is not None and value != [] and name not in _SECTIONS:
            text = _field_text(name, value, view.now)
            # A value of several lines cannot be taken for another field: its lines are indented.
            first, *more = mask(text).split("\n")
            style = value if name == "status" else ""
            terminal.print(
                [[(f"{name:<13} ", "quiet"), (first, style)], *([(f"{'':<13} {line}", "")] for line in more)]
            )
    terminal.print(section("timeline", draw(view, terminal)))
    terminal.print(section("steps", steps_table(described["steps"], view.now, full=full)))
    terminal.print(section("waiting for", waiting_table(described["waiting_for"], view.now)))
    if described["failure"] is not None:
        terminal.print(section("failed", failure_lines(described["failure"], full=full)))
    if "events" in described:
        terminal.print(section("events", events_table(described["events"], full=full)))


def _field_text(name: str, value: Any, now: int) -> str:
    if name in _TIMES:
        return formats.when(duration.from_iso(value), now)
    if name == "paused_by":
        return "; ".join(_cause(each) for each in value)
    return as_text(value)


def _cause(each: Mapping[str, Any]) -> str:
    """Why a run is paused: ``workflow shop.order: a bad deploy``."""
    what = "the run itself" if each["kind"] == "run" else f"{each['kind']} {each['name']}"
    return f"{what}: {each['reason']}" if each["reason"] else what


def steps_table(steps: Sequence[Mapping[str, Any]], now: int, *, full: bool) -> list[Line]:
    """The table of the steps; nothing if there are none."""
    if not steps:
        return []
    rows = [
        (
            step["name"],
            step["operation"],
            formats.words(step["state"]),
            str(step["attempts"]),
            step["worker"] or "-",
            _took(step, now),
            _one_line(step["error"] or "", None if full else _ERROR),
        )
        for step in steps
    ]
    lines = table(("step", "operation", "state", "attempts", "worker", "took", "error"), rows)
    styles = {"failed": "failed", "in_doubt": "failed"}
    return [
        lines[0],
        *([(line[0][0], styles.get(step["state"], ""))] for step, line in zip(steps, lines[1:], strict=True)),
    ]


def failure_lines(failure: Mapping[str, Any], *, full: bool) -> list[Line]:
    """
    Which step has failed, at which line, and the traceback; frames of durable are folded unless *full*.

    The traceback is indented: the text of an error may have lines that look like fields of the run.
    """
    if "hidden" in failure:
        return [[(str(failure["hidden"]), "")]]
    lines: list[Line] = []
    step = failure["step"]
    if step is not None:
        attempts = f"{step['attempts']} attempt{'s' if step['attempts'] != 1 else ''}"
        lines.append(_field("step", f"{step['name']} ({step['operation']}), after {attempts}"))
    if failure["file"] is not None:
        lines.append(_field("line", f"{failure['file']}:{failure['line']} in {failure['function']}"))
    text = failure["traceback"] if full else fold(failure["traceback"])
    return [*lines, [], *([(f"  {printable(line)}", "")] for line in text.rstrip().splitlines())]


def events_table(events: Sequence[Mapping[str, Any]], *, full: bool) -> list[Line]:
    """The log: a line for each event with the beginning of its value; with *full*, the whole value below the line."""
    rows = [
        (
            str(event["seq"]),
            formats.exact(duration.from_iso(event["at"]))[:23].replace("T", " "),
            event["kind"],
            event["operation"],
            event["name"] or "",
            "" if full else _one_line(_shown(event), _VALUE),
        )
        for event in events
    ]
    header = ("seq", "at (UTC)", "kind", "operation", "name", "" if full else "value")
    lines = table(header, rows)
    if not full:
        return lines
    below = [[[(f"      {printable(line)}", "")] for line in _whole(event).splitlines()] for event in events]
    return [lines[0], *(part for line, more in zip(lines[1:], below, strict=True) for part in (line, *more))]


def _took(step: Mapping[str, Any], now: int) -> str:
    if step["started_at"] is None:
        return "-"
    end = now if step["ended_at"] is None else duration.from_iso(step["ended_at"])
    return formats.took(end - duration.from_iso(step["started_at"]))


def _shown(event: Mapping[str, Any]) -> str:
    """The value of an event on one line: JSON, an error as ``ValueError: no card``, or why it is not shown."""
    if "hidden" in event:
        return f"({event['hidden']})"
    if "value" not in event:
        return ""
    value = event["value"]
    if event["carries"] == "error":
        return f"{value['type']}: {value['message']}"
    return f"{event['carries']} {json.dumps(value, ensure_ascii=False, default=str)}"


def _whole(event: Mapping[str, Any]) -> str:
    if "value" not in event:
        return _shown(event)
    value = event["value"]
    if event["carries"] == "error":
        return str(value["traceback"] or f"{value['type']}: {value['message']}")
    return f"{event['carries']} {json.dumps(value, indent=2, ensure_ascii=False, default=str)}"


def _one_line(text: str, longest: int | None) -> str:
    first, *more = text.split("\n")
    cut = first if longest is None else first[:longest]
    return f"{cut}…" if more or cut != first else cut


def _field(name: str, text: str) -> Line:
    return [(padded(name, 6), "quiet"), (printable(text), "")]
