"""``durable schedules``: list schedules, pause, trigger and backfill them, and make new ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from .. import duration, registry
from ..registry import Run
from ..schedules import Schedule, define, describe, handle
from . import application
from .common import CommandRefused, Context, as_json_option, limit_option, parse_json, parse_text
from .printing import print_json, print_table, report

_TIMES = 10

name_argument = click.argument("name", metavar="NAME", type=parse_text)


@click.group()
def schedules() -> None:
    """Show schedules, and act on them."""


@schedules.command("list")
@limit_option("The largest number of schedules to list.")
@as_json_option
@click.pass_obj
def schedules_list(context: Context, limit: int, as_json: bool) -> None:
    """List the schedules, each with its next planned time."""
    found = describe.list_schedules(context.engine, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = [
        (each["name"], each["status"], each["timing"], each["tz"], _first(each["next"]), each["workflow"])
        for each in found
    ]
    print_table(("name", "status", "timing", "time zone", "next", "workflow"), rows)


@schedules.command("show")
@name_argument
@as_json_option
@click.pass_obj
def schedules_show(context: Context, name: str, as_json: bool) -> None:
    """Show a schedule, its next ten planned times, and its latest runs."""
    found = _find(context, name)
    shown = describe.describe(found.row(), found.latest(), context.engine.now(), _TIMES)
    if as_json:
        print_json(shown)
        return
    print_table(("", ""), [(key, str(value)) for key, value in shown.items() if key not in ("next", "runs")])
    click.echo()
    print_table(("next planned times",), [(each,) for each in shown["next"]])
    click.echo()
    print_table(("run", "status", "planned for"), [tuple(map(str, _run_row(run))) for run in shown["runs"]])


@schedules.command("pause")
@name_argument
@as_json_option
@click.pass_obj
def schedules_pause(context: Context, name: str, as_json: bool) -> None:
    """Let a schedule start no more runs.  Runs that go on are not stopped."""
    if not _find(context, name).pause():
        raise CommandRefused(f"Schedule {name} is paused already.")
    report({"name": name, "status": "paused"}, f"Schedule {name} is paused.", as_json)


@schedules.command("resume")
@name_argument
@as_json_option
@click.pass_obj
def schedules_resume(context: Context, name: str, as_json: bool) -> None:
    """Let a paused schedule go on at its next planned time."""
    found = _find(context, name)
    if not found.resume():
        raise CommandRefused(f"Schedule {name} is not paused.")
    shown = describe.describe(found.row(), [], context.engine.now(), 1)
    message = f"Schedule {name} goes on.  Its next planned time is {_first(shown['next'])}."
    report({"name": name, "status": shown["status"]}, message, as_json)


@schedules.command("trigger")
@name_argument
@as_json_option
@click.pass_obj
def schedules_trigger(context: Context, name: str, as_json: bool) -> None:
    """Start a run of a schedule now, and print its id."""
    run = _find(context, name).trigger()
    report({"name": name, "run_id": run.id}, run.id, as_json)


def parse_moment(text: str) -> datetime:
    """An ISO 8601 time with a UTC offset."""
    try:
        return duration.to_datetime(duration.from_iso(text))
    except ValueError as error:
        raise click.BadParameter(f"{error}  Write for example 2026-05-01T03:00+02:00.") from error


@schedules.command("backfill")
@name_argument
@click.argument("start", metavar="START", type=parse_moment)
@click.argument("end", metavar="END", type=parse_moment)
@as_json_option
@click.pass_obj
def schedules_backfill(context: Context, name: str, start: datetime, end: datetime, as_json: bool) -> None:
    """
    Start a run for each planned time from START to END that has none.

    START and END are ISO 8601 times with a UTC offset, such as 2026-05-01T03:00+02:00 or 2026-05-01T01:00Z.
    """
    try:
        made: Sequence[Run[Any]] = _find(context, name).backfill(start, end)
    except ValueError as error:
        raise CommandRefused(f"{error}") from error
    value = {"name": name, "run_ids": [run.id for run in made]}
    report(value, f"Runs of schedule {name} that were started: {len(made)}.", as_json)


@schedules.command("create")
@name_argument
@click.argument("workflow", metavar="WORKFLOW")
@click.argument("arguments", metavar="[JSON]", required=False)
@click.option("--cron", type=parse_text, metavar="TEXT", help='Five fields, e.g. "0 3 * * 1-5".')
@click.option("--every", type=parse_text, metavar="DURATION", help='An interval, e.g. "15m".')
@click.option("--tz", default="UTC", show_default=True, metavar="NAME", help="The time zone of --cron.")
@click.option("--overlap", type=click.Choice(["skip", "queue", "allow", "cancel"]), default="skip", show_default=True)
@click.option("--catch-up", type=click.Choice(["none", "last", "all"]), default="last", show_default=True)
@click.option("--jitter", type=parse_text, metavar="DURATION", help="Start each run up to so much later, by chance.")
@click.option("--until", type=parse_moment, metavar="TIME", help="No planned time is later.")
@as_json_option
@click.pass_obj
def schedules_create(
    context: Context, /, name: str, workflow: str, arguments: str | None, as_json: bool, **options: Any
) -> None:
    """
    Make a schedule, or change one that was made like this.

    WORKFLOW is the name of a workflow, or MODULE:WORKFLOW.  JSON is the list of its arguments, or an object with one
    key for each parameter.
    """
    engine = context.engine
    given = parse_json(arguments or "[]")
    if not isinstance(given, list | dict):
        raise click.UsageError(f"The arguments {arguments!r} must be a JSON list, or a JSON object.")
    args, kwargs = (tuple(given), {}) if isinstance(given, list) else ((), given)
    definition = registry.workflows.get(workflow) or application.find_object(workflow)
    made = handle.create(engine, define(name, definition, args, kwargs, **options))
    shown = describe.describe(made.row(), [], engine.now(), 1)
    report(shown, f"Schedule {name} is made.  Its next planned time is {_first(shown['next'])}.", as_json)


@schedules.command("delete")
@name_argument
@as_json_option
@click.pass_obj
def schedules_delete(context: Context, name: str, as_json: bool) -> None:
    """Delete a schedule that was made at run time.  Its runs go on."""
    _find(context, name).delete()
    report({"name": name, "status": "deleted"}, f"Schedule {name} is deleted.", as_json)


def _find(context: Context, name: str) -> Schedule:
    return handle.get(context.engine, name)


def _first(times: Sequence[str]) -> str:
    return times[0] if times else "-"


def _run_row(run: dict[str, Any]) -> tuple[Any, ...]:
    return run["run_id"], run["status"], run["scheduled_for"]
