"""``durable receivers``: list receivers and their requests, and route requests again that have reached no run."""

from __future__ import annotations

import sys
from typing import Any

import click

from .. import duration
from ..client import TooManyPending, receiver_lists, route_again
from ..display import formats
from ..errors import DurableError
from ..store import RequestOutcome, received
from .common import CommandRefused, Context, as_json_option, limit_option, parse_run_id, parse_text
from .pauses import pause_receiver, resume_receiver
from .printing import print_json, print_table, report

_receiver_option = click.option("--receiver", "name", type=parse_text, metavar="NAME", help="Only this receiver.")

#: The most requests that ``retry --all`` takes in one call.
_MOST = 10_000


@click.group()
def receivers() -> None:
    """List receivers and their requests, route requests again, and pause receivers."""


receivers.add_command(pause_receiver)
receivers.add_command(resume_receiver)


@receivers.command("list")
@click.option("--requests", "lists_requests", is_flag=True, help="List requests, the newest first.")
@_receiver_option
@click.option(
    "--outcome",
    "outcomes",
    type=click.Choice([str(each) for each in RequestOutcome]),
    multiple=True,
    help="Only requests with this outcome; may be repeated.",
)
@limit_option("The largest number of requests to list.")
@as_json_option
@click.pass_obj
def receivers_list(
    context: Context, lists_requests: bool, name: str | None, outcomes: tuple[str, ...], limit: int, as_json: bool
) -> None:
    """List the receivers with the outcomes of their requests; or the requests."""
    if lists_requests or outcomes:
        _list_requests(context, name, outcomes, limit, as_json)
        return
    found = [each for each in receiver_lists.list_receivers(context.engine) if name in (None, each["name"])]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each["name"],
            str(len(each["rules"])) if each["place"] else "not imported",
            _counted({**each["requests"], "refused": each["refused"]}),
            each["url"] or "",
        )
        for each in found
    ]
    print_table(("name", "rules", "requests", "url"), rows)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count) or "-"


def _list_requests(context: Context, name: str | None, outcomes: tuple[str, ...], limit: int, as_json: bool) -> None:
    found = receiver_lists.list_received(context.engine, receiver=name, outcomes=outcomes, limit=limit)
    if as_json:
        print_json(found)
        return
    now = context.engine.now()
    rows = [
        (
            each["id"],
            formats.ago(duration.from_iso(each["received_at"]), now),
            each["receiver"],
            each["outcome"],
            each["run_id"] or "-",
            each["detail"] or each["rule"] or "",
        )
        for each in found
    ]
    print_table(("id", "received", "receiver", "outcome", "run", "rule or reason"), rows)


@receivers.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...", type=parse_run_id)
@click.option("--all", "takes_all", is_flag=True, help="All requests that are unroutable or missed.")
@_receiver_option
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def receivers_retry(
    context: Context, ids: tuple[str, ...], takes_all: bool, name: str | None, yes: bool, as_json: bool
) -> None:
    """Route requests again that have reached no run, by the rules that this application has now."""
    if takes_all == bool(ids):
        raise click.UsageError("Name the requests, or give --all.  `durable receivers list --requests` lists them.")
    if takes_all:
        # The oldest first: their order may mean something to the runs.
        found = receiver_lists.list_received(
            context.engine, receiver=name, outcomes=received.LOST, limit=_MOST, oldest_first=True
        )
        ids = tuple(each["id"] for each in found)
        if ids and not yes:
            click.confirm(f"Route {len(ids)} requests again?", abort=True, err=True)
    results = [_retried(context, each) for each in ids]
    if len(results) == 1 and results[0]["error"] and not takes_all:
        raise CommandRefused(str(results[0]["error"]))
    lines = [f"{each['id']}: {each['error'] or ', '.join(_said(r) for r in each['requests'])}" for each in results]
    report(results, "\n".join(lines) or "No request is unroutable or missed.", as_json)
    if any(each["error"] for each in results):
        sys.exit(1)


def _retried(context: Context, request_id: str) -> dict[str, Any]:
    """Route one request, and say what became of it."""
    error, receptions = None, None
    try:
        receptions = route_again.route_again(context.engine, request_id)
        if receptions is None:
            error = (
                f"Request {request_id} cannot be routed again: it is unknown, has reached a run, or waits for a hook."
            )
    except (DurableError, TooManyPending) as raised:
        error = str(raised)
    requests: list[dict[str, object]] = [
        {"id": each.request_id, "outcome": each.outcome, "run_id": each.run_id} for each in receptions or ()
    ]
    return {"id": request_id, "requests": requests, "error": error}


def _said(request: dict[str, object]) -> str:
    return f"{request['outcome']} run {request['run_id']}" if request["run_id"] else str(request["outcome"])
