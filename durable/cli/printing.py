"""Print results: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from ..web import mask


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
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_run(described: Mapping[str, Any]) -> None:
    """Print the fields of a run, one on each line, then tables of what it waits for and of its log."""
    apart = ("waiting_for", "events")
    for name, value in described.items():
        if value is not None and name not in apart:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            click.echo(f"{name:<13} {text}")
    if described["waiting_for"]:
        click.echo("\nwaiting for")
        print_table(("kind", "operation", "what", "how"), [_waiting(entry) for entry in described["waiting_for"]])
    if "events" in described:
        columns = ("seq", "at", "kind", "operation", "name")
        click.echo("\nevents")
        print_table(columns, [tuple(str(event[c] or "") for c in columns) for event in described["events"]])


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
