"""``durable hooks``: list the open hooks, and send payloads to them."""

from __future__ import annotations

from datetime import timedelta

import click

from .. import duration
from ..client import describe, replies
from ..display import formats
from .common import (
    CommandRefused,
    Context,
    as_json_option,
    limit_option,
    parse_duration,
    parse_json,
    parse_run_id,
    parse_text,
)
from .printing import as_text, print_json, print_table, report


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
    of_run = None if run_id is None else context.full_id(run_id)
    found = describe.list_hooks(context.engine, run_id=of_run, limit=limit)
    if as_json:
        print_json(found)
        return
    now = context.engine.now()
    rows = [
        (hook["run_id"], formats.ago(duration.from_iso(hook["created_at"]), now), hook["token"], hook["url"] or "")
        for hook in found
    ]
    print_table(("run", "created", "token", "url"), rows)


@hooks.command("resume")
@click.argument("token")
@click.argument("payload", metavar="JSON")
@click.option(
    "--wait",
    type=parse_duration,
    metavar="DURATION",
    help='How long to wait for a hook that is about to be created, e.g. "5s".',
)
@click.option("--reply", is_flag=True, help="Wait for the reply of the workflow, and print it.")
@click.option(
    "--timeout",
    type=parse_duration,
    metavar="DURATION",
    help="With --reply, how long to wait for it; by default as long as the run goes on.",
)
@as_json_option
@click.pass_obj
def hooks_resume(
    context: Context,
    token: str,
    payload: str,
    wait: timedelta | None,
    reply: bool,
    timeout: timedelta | None,
    as_json: bool,
) -> None:
    """Send a payload to the open hook that has TOKEN."""
    if timeout is not None and not reply:
        raise click.UsageError("--timeout needs --reply.")
    value = parse_json(payload)
    try:
        if reply:
            found = replies.ask_plain(context.engine, token, value, wait, timeout)
            report({"reply": found}, as_text(found), as_json)
            return
        run = context.engine.resume_hook(token, value, wait=wait)
    except (TimeoutError, ValueError) as error:
        raise CommandRefused(f"{error}") from error
    report({"run_id": run.id}, f"Run {run.id} has the payload.", as_json)


@hooks.command("reply")
@click.argument("request_id", metavar="ID", type=parse_text)
@click.option(
    "--timeout",
    type=parse_duration,
    metavar="DURATION",
    help="How long to wait for the reply; by default as long as the run goes on.",
)
@as_json_option
@click.pass_obj
def hooks_reply(context: Context, request_id: str, timeout: timedelta | None, as_json: bool) -> None:
    """Wait for the reply to a payload that was sent before; ID is in the error of `hooks resume --reply`."""
    try:
        found = replies.get_reply_plain(context.engine, request_id, timeout)
    except TimeoutError as error:
        raise CommandRefused(f"{error}") from error
    report({"reply": found}, as_text(found), as_json)
