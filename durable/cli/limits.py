"""``durable limits``: what is in use of each limit and who waits, and its number at run time."""

from __future__ import annotations

from typing import Any

import click

from .. import duration
from ..client import limits as operations
from ..display import formats
from ..errors import ConfigurationError
from .common import CommandRefused, Context, as_json_option
from .printing import print_json, print_table, report


@click.group()
def limits() -> None:
    """Show the limits of steps and workflows, set their numbers, and end pauses."""


@limits.command("list")
@as_json_option
@click.pass_obj
def limits_list(context: Context, as_json: bool) -> None:
    """List the limits, what is in use of each key, and how many steps or runs wait."""
    found = operations.list_limits(context.engine)
    if as_json:
        print_json(found)
        return
    now = context.engine.now()
    rows = []
    for each in found:
        oldest = formats.took(max(0, now - duration.from_iso(each["oldest"]))) if each["oldest"] else "-"
        of_key = (each["limit"], each["of"], each["key"] or "-", _number(each))
        shown = (str(each["in_use"]), str(each["waiting"]), oldest, each["paused_until"] or "-")
        rows.append((*of_key, *shown))
    print_table(("limit", "of", "key", "number", "in use", "waiting", "longest", "paused until"), rows)


def _number(limit: dict[str, Any]) -> str:
    if limit["of"] == "debounce":
        return f"after {limit['per']}"
    per = "" if limit["per"] is None else f" per {limit['per']}"
    return f"{limit['n']}{per}{' (set)' if limit['set'] else ''}"


@limits.command("set")
@click.argument("name")
@click.argument("number", metavar="N|default")
@as_json_option
@click.pass_obj
def limits_set(context: Context, name: str, number: str, as_json: bool) -> None:
    """Set the number of the limit NAME for all processes; "default" for the number in the code."""
    if number != "default" and not (number.isascii() and number.isdigit()):
        raise CommandRefused(f"{number!r} is no number.  Write a whole number from 1 on, or default.")
    n = None if number == "default" else int(number)
    try:
        context.engine.set_limit(name, n)
    except ConfigurationError as error:
        raise CommandRefused(f"{error}") from error
    what = "the number in the code" if n is None else str(n)
    report({"limit": name, "n": n}, f"The limit {name} is {what} now.", as_json)


@limits.command("resume")
@click.argument("name")
@click.option("--key", help="Only this key; by default all keys of the limit.")
@as_json_option
@click.pass_obj
def limits_resume(context: Context, name: str, key: str | None, as_json: bool) -> None:
    """End the pauses of the limit NAME, which RetryableError(pause=...) has set."""
    ended = operations.resume(context.engine, name, key)
    if not ended:
        of_key = "" if key is None else f" (key {key})"
        raise CommandRefused(f"The limit {name}{of_key} is not paused.  `durable limits list` shows the limits.")
    report({"limit": name, "ended": ended}, f"Pauses ended: {ended}.", as_json)
