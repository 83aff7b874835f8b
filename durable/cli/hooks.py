"""``durable hooks``: list the open hooks, and send payloads to them."""

from __future__ import annotations

from datetime import timedelta

import click

from ..client import describe
from .common import CommandRefused, Context, as_json_option, limit_option, parse_duration, parse_json, parse_run_id
from .printing import print_rows, report


@click.group()
def hooks() -> None:
    """List open hooks, and resume them."""


@hooks.command("list")
@click.option("--run", "run_id", metavar="ID", type=parse_run_id, help="Only hooks of this run.")
@limit_option("The largest number of hooks to list.")
@as_json_option
@click.pass_obj
def hooks_list(context: Context, run_id: str | None, limit: int, as_json: bool) -> None:
    """List the open hooks, and the URLs of webhooks."""
    found = describe.list_hooks(context.engine, run_id=run_id, limit=limit)
    print_rows(found, ("run_id", "created_at", "token", "url"), as_json)


@hooks.command("resume")
@click.argument("token")
@click.argument("payload", metavar="JSON")
@click.option(
    "--wait",
    type=parse_duration,
    metavar="DURATION",
    help='How long to wait for a hook that is about to be created, e.g. "5s".',
)
@as_json_option
@click.pass_obj
def hooks_resume(context: Context, token: str, payload: str, wait: timedelta | None, as_json: bool) -> None:
    """Send a payload to the open hook that has TOKEN."""
    try:
        run = context.engine.resume_hook(token, parse_json(payload), wait=wait)
    except ValueError as error:
        raise CommandRefused(f"{error}") from error
    report({"run_id": run.id}, f"Run {run.id} has the payload.", as_json)
