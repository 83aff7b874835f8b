"""``durable hooks``: open hooks, and payloads for them."""

from __future__ import annotations

from datetime import timedelta

import click

from ..client import describe
from .common import Context, Refused, a_duration, an_id, as_json_option, limit_option, parse_json
from .printing import print_rows, report


@click.group()
def hooks() -> None:
    """Look at open hooks, and resume them."""


@hooks.command("list")
@click.option("--run", "run_id", metavar="ID", type=an_id, help="Only this run's.")
@limit_option("The most to list.")
@as_json_option
@click.pass_obj
def hooks_list(context: Context, run_id: str | None, limit: int, as_json: bool) -> None:
    """Open hooks, webhooks with their URL."""
    found = describe.list_hooks(context.engine, run_id=run_id, limit=limit)
    print_rows(found, ("run_id", "created_at", "token", "url"), as_json)


@hooks.command("resume")
@click.argument("token")
@click.argument("payload", metavar="JSON")
@click.option(
    "--wait", type=a_duration, metavar="DURATION", help='Wait this long for a hook about to be created, e.g. "5s".'
)
@as_json_option
@click.pass_obj
def hooks_resume(context: Context, token: str, payload: str, wait: timedelta | None, as_json: bool) -> None:
    """Deliver a payload to the run that holds TOKEN open."""
    try:
        run = context.engine.resume_hook(token, parse_json(payload), wait=wait)
    except ValueError as error:
        raise Refused(f"{error}") from error
    report({"run_id": run.id}, f"Run {run.id} has the payload.", as_json)
