"""Print results: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from ..client import RunView
from ..web import mask
from .chart import draw
from .terminal import Line, Terminal, of_stdout, padded, printable, width_of


def print_json(value: object) -> None:
    """Print *value* as JSON on one line, in ASCII, so that every terminal and pipe accepts it."""
    click.echo(json.dumps(value, default=str))


def report(value: object, message: str, as_json: bool) -> None:
    """Print the result of a command: *value* as JSON, or *message*."""
    if as_json:
        print_json(value)
    else:
        click.echo(message)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    """Print *rows* as a JSON list, or as a table of *columns*."""
    if as_json:
        print_json(rows)
    else:
        print_table(columns, [tuple(str(row[column] or "") for column in columns) for row in rows])


def print_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table whose columns are as wide as their widest cell."""
    of_stdout(no_color=True).print(table(header, rows))


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[Line]:
    """A table as lines, its characters printable."""
    cells = [tuple(printable(text) for text in line) for line in (header, *rows)]
    widths = [max(width_of(line[i]) for line in cells) for i in range(len(header))]
    text = ["  ".join(padded(cell, width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return [[(text[0], "quiet")], *([(line, "")] for line in text[1:])]


def print_run(described: Mapping[str, Any], view: RunView, terminal: Terminal) -> None:
    """Print the fields of a run, one on each line, its timeline, then tables of what it waits for and of its log."""
    apart = ("waiting_for", "events", "timeline")
    for name, value in described.items():
        if value is not None and name not in apart:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            # A value of several lines cannot be taken for another field: its lines are indented.
            first, *more = mask(text).split("\n")
            style = value if name == "status" else ""
            terminal.print(
                [[(f"{name:<13} ", "quiet"), (first, style)], *([(f"{'':<13} {line}", "")] for line in more)]
            )
    terminal.print(section("timeline", draw(view, terminal)))
    terminal.print(section("waiting for", waiting_table(described["waiting_for"])))
    if "events" in described:
        columns = ("seq", "at", "kind", "operation", "name")
        rows = [tuple(str(event[c] or "") for c in columns) for event in described["events"]]
        terminal.print(section("events", table(columns, rows)))


def section(title: str, lines: list[Line]) -> list[Line]:
    """Lines below a title, after an empty line; nothing if there are none."""
    return [[], [(title, "heading")], *lines] if lines else []


def waiting_table(entries: Sequence[Mapping[str, Any]]) -> list[Line]:
    """The table of what a run waits for; nothing if it waits for nothing."""
    if not entries:
        return []
    return table(("kind", "operation", "what", "how"), [_waiting(entry) for entry in entries])


def _waiting(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """
    One row of the table "waiting for".

    It masks the token in a webhook's URL: the token works like a password, and people paste such tables elsewhere.
    """
    match entry["kind"]:
        case "step":
            what, how = f"{entry['name']}, attempt {entry['attempt']}", _readiness(entry)
        case "turn":
            what, how = entry["name"], _readiness(entry)
        case "sleep":
            what, how = "", f"until {entry['until']}"
        case "webhook":
            what, how = mask(entry["url"] or "(public_url is not set)"), "a request"
        case "hook":
            what, how = entry["token"], "a payload"
        case _:
            what, how = f"{entry['name']} {entry['run_id']}", entry["status"]
    return str(entry["kind"]), str(entry["operation"]), what, how


def _readiness(entry: Mapping[str, Any]) -> str:
    match entry["state"]:
        case "running":
            return f"running on {entry['worker'] or 'a process that has ended'} since {entry['since']}"
        case "in_doubt":
            return f"in doubt since {entry['since']}: use `durable runs resolve`"
        case "delayed":
            return f"not before {entry['until']}"
        case "unknown":
            return f"waiting since {entry['since']}: no live worker has registered it"
        case _:
            return f"pending since {entry['since']}"
