"""Print results: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from .. import duration
from ..display import formats, mask
from .terminal import Line, of_stdout, padded, printable, width_of


def print_json(value: object) -> None:
    """Print *value* as JSON on one line, in ASCII, so that every terminal and pipe accepts it."""
    click.echo(json.dumps(value, default=str))


def as_text(value: object) -> str:
    """A value on one line: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def report(value: object, message: str, as_json: bool) -> None:
    """Print the result of a command: *value* as JSON, or *message*."""
    if as_json:
        print_json(value)
    else:
        click.echo(message)


#: The columns of a list of runs.
RUN_COLUMNS = ("id", "status", "created", "took", "workflow")


def runs_table(found: Sequence[Mapping[str, Any]], now: int) -> list[Line]:
    """The table of a list of runs, as ``list_runs`` returns it."""
    return table(RUN_COLUMNS, [table_row(run, now) for run in found])


def table_row(run: Mapping[str, Any], now: int) -> tuple[str, ...]:
    """A run in the table of runs: when it was created and how long it took, as people read it."""
    created, ended = duration.from_iso(run["created_at"]), run["completed_at"]
    lasted = formats.took(duration.from_iso(ended) - created) if ended else "-"
    status = f"{run['status']}, paused" if run.get("paused_at") else run["status"]
    return (run["id"], status, formats.ago(created, now), lasted, run["name"])


def print_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table whose columns are as wide as their widest cell."""
    of_stdout(no_color=True).print(table(header, rows))


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[Line]:
    """A table as lines, its characters printable."""
    cells = [tuple(printable(text) for text in line) for line in (header, *rows)]
    widths = [max(width_of(line[i]) for line in cells) for i in range(len(header))]
    text = ["  ".join(padded(cell, width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return [[(text[0], "quiet")], *([(line, "")] for line in text[1:])]


def section(title: str, lines: list[Line]) -> list[Line]:
    """Lines below a title, after an empty line; nothing if there are none."""
    return [[], [(title, "heading")], *lines] if lines else []


def waiting_table(entries: Sequence[Mapping[str, Any]], now: int) -> list[Line]:
    """The table of what a run waits for; nothing if it waits for nothing."""
    if not entries:
        return []
    return table(("kind", "operation", "what", "how"), [_waiting(entry, now) for entry in entries])


def _waiting(entry: Mapping[str, Any], now: int) -> tuple[str, str, str, str]:
    """
    One row of the table "waiting for".

    It masks the token in a webhook's URL: the token works like a password, and people paste such tables elsewhere.
    """
    match entry["kind"]:
        case "step":
            what, how = f"{entry['name']}, attempt {entry['attempt']}", _readiness(entry, now)
        case "turn":
            what, how = entry["name"], _readiness(entry, now)
        case "sleep":
            what, how = "", f"until {formats.when(duration.from_iso(entry['until']), now)}"
        case "webhook":
            what, how = mask(entry["url"] or "(public_url is not set)"), "a request"
        case "hook":
            what, how = entry["token"], "a payload"
        case _:
            what, how = f"{entry['name']} {entry['run_id']}", entry["status"]
    return str(entry["kind"]), str(entry["operation"]), what, how


def _readiness(entry: Mapping[str, Any], now: int) -> str:
    since = entry.get("since")
    lasted = formats.took(now - duration.from_iso(since)) if since else "-"
    match entry["state"]:
        case "running":
            return f"running on {entry['worker'] or 'a process that has ended'} for {lasted}"
        case "in_doubt":
            return f"in doubt for {lasted}: use `durable runs resolve`"
        case "delayed":
            return f"not before {formats.when(duration.from_iso(entry['until']), now)}"
        case "limited":
            return f"waiting for {lasted}: {_limit(entry)}"
        case "paused":
            return f"paused for {lasted}"
        case "unknown":
            return f"waiting for {lasted}: no live worker has registered it"
        case _:
            return f"pending for {lasted}"


def _limit(entry: Mapping[str, Any]) -> str:
    """What a step waits for that has to wait for a limit."""
    key = f" (key {entry['key']})" if entry["key"] else ""
    if entry["per"] is not None:
        return f"the rate {entry['limit']}{key}: {entry['n']} per {entry['per']}"
    return f"a slot of {entry['limit']}{key}: {entry['in_use']} of {entry['n']} in use"
