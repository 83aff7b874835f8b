"""``durable runs``: show runs, and act on one or on many of them."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .. import duration
from ..client import bulk, describe, details, operate, values
from ..display import formats, mask
from ..registry import Run
from ..store import RunStatus
from . import follow as following
from . import watch
from .bulk import (
    Action,
    Chosen,
    Look,
    act_on_matching,
    act_on_named,
    attribute_option,
    chooses_runs,
    since_option,
)
from .common import (
    CommandRefused,
    Context,
    as_json_option,
    interval_option,
    limit_option,
    name_option,
    no_color_option,
    parse_attributes,
    parse_duration,
    parse_json,
    parse_message,
    parse_text,
    run_id_argument,
)
from .forks import fork_command
from .pause_runs import pause_command, resume_command
from .printing import as_text, print_json, print_table, report, runs_table
from .run_details import print_run, read_run
from .streams import stream_command
from .terminal import of_stdout, printable

if TYPE_CHECKING:
    from ..app import Durable

STATUSES = tuple(status.value for status in RunStatus)
#: The statuses in which a run can be cancelled, in the order in which a run has them.
OPEN = ("pending", "running", "blocked")

CANCELLED = Action("cancelled", "asked to stop", "Cancel")
RETRIED = Action("retried", "being retried", "Retry", asks=False)


@click.group()
def runs() -> None:
    """Show runs, and act on them."""


runs.add_command(fork_command)
runs.add_command(stream_command)
runs.add_command(pause_command)
runs.add_command(resume_command)


@runs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs with this status.")
@name_option
@attribute_option
@since_option
@click.option("--paused", is_flag=True, help="Only runs that are paused.")
@limit_option("The largest number of runs to list.")
@click.option("--follow", "-f", is_flag=True, help="Show the list again and again, until you press Ctrl-C.")
@interval_option("2s")
@no_color_option
@as_json_option
@click.pass_obj
def runs_list(
    context: Context,
    status: str | None,
    name: str | None,
    attributes: tuple[str, ...],
    since: timedelta | None,
    paused: bool,
    limit: int,
    follow: bool,
    interval: float,
    no_color: bool,
    as_json: bool,
) -> None:
    """List the newest runs."""
    engine = context.bare_engine
    wanted = parse_attributes(attributes)

    def read() -> list[dict[str, Any]]:
        return describe.list_runs(
            engine, status=status, name=name, attributes=wanted, since=since, limit=limit, paused=paused
        )

    if follow:
        following.follow(engine, read, interval, no_color=no_color, as_json=as_json)
    elif as_json:
        print_json(read())
    else:
        of_stdout(no_color=no_color).print(runs_table(read(), engine.now()))


@runs.command("show")
@run_id_argument
@click.option("--events", "with_events", is_flag=True, help="Print the log of the run as well, with its values.")
@click.option("--full", is_flag=True, help="Print whole values, errors and tracebacks.")
@limit_option("The largest number of operations in the timeline and in the table of steps: the last ones.")
@no_color_option
@as_json_option
@click.pass_obj
def runs_show(
    context: Context, run_id: str, with_events: bool, full: bool, limit: int, no_color: bool, as_json: bool
) -> None:
    """Show one run: its arguments, its result or error, its timeline, its steps, and what it waits for."""
    engine = context.engine
    run_id = context.full_id(run_id)
    described, view = read_run(engine, run_id, operations=limit)
    if with_events:
        described["events"] = details.log(engine, run_id)
    if as_json:
        print_json(described)
    else:
        print_run(described, view, of_stdout(no_color=no_color), full=full)


@runs.command("watch")
@run_id_argument
@interval_option("1s")
@no_color_option
@as_json_option
@click.pass_obj
def runs_watch(context: Context, run_id: str, interval: float, no_color: bool, as_json: bool) -> None:
    """
    Follow one run until it ends.

    A terminal shows the run and its timeline.  Without a terminal, or with --json, each event is a line.

    Exit codes: 0 the run has completed, 3 it has failed, 4 it was cancelled, 130 you pressed Ctrl-C.
    """
    run_id = context.full_id(run_id)
    sys.exit(watch.watch(context.engine, run_id, interval, no_color=no_color, as_json=as_json))


@runs.command("values")
@run_id_argument
@click.argument("name", metavar="[NAME]", required=False, type=parse_text)
@click.option("--wait", type=parse_duration, metavar="DURATION", help='How long to wait for the value NAME, e.g. "5s".')
@as_json_option
@click.pass_obj
def runs_values(context: Context, run_id: str, name: str | None, wait: timedelta | None, as_json: bool) -> None:
    """Print the values that a run has published: all of them, or the latest one of NAME."""
    run_id = context.full_id(run_id)
    if name is not None:
        run: Run[Any] = context.engine.get_run(run_id)
        try:
            run.value(name, timeout=wait or timedelta())
        except (TimeoutError, ValueError) as error:
            raise CommandRefused(str(error)) from error
    elif wait is not None:
        raise click.UsageError("--wait needs the NAME of a value.")
    found = [each for each in values.list_values(context.engine, run_id) if name in (None, each["name"])]
    if as_json:
        print_json(found if name is None else found[0])
        return
    now = context.engine.now()
    rows = [
        (each["name"], formats.ago(duration.from_iso(each["published_at"]), now), mask(as_text(each["value"])))
        for each in found
    ]
    print_table(("name", "published", "value"), rows)


@runs.command("cancel")
@chooses_runs(
    click.option("--status", type=click.Choice(OPEN), help="Cancel all open runs with this status."), asks=True
)
@click.option("--reason", type=parse_text, metavar="TEXT", help="The reason, which the log records.")
@as_json_option
@click.pass_obj
def runs_cancel(context: Context, run_ids: tuple[str, ...], chosen: Chosen, reason: str | None, as_json: bool) -> None:
    """
    Ask runs to stop.  They can clean up first.

    Name the runs by ID, or choose all that match --status, --name, --attribute and --since.
    """
    engine = context.engine

    def cancel(run_id: str) -> None:
        run: Run[Any] = engine.get_run(run_id)
        if not run.cancel(reason):
            raise CommandRefused(f"Run {run_id!r} was not cancelled, because it is already {run.status}.")

    if chosen.is_filtered == bool(run_ids) or (chosen.dry_run and run_ids):
        raise click.UsageError("Name the runs to cancel by ID, or choose them with --status or --name.")
    if run_ids:
        act_on_named(context, run_ids, cancel, CANCELLED, as_json)
    else:
        act_on_matching(context, chosen, "cancel", bulk.Given(reason), replace(CANCELLED, as_json=as_json))


@runs.command("wake")
@run_id_argument
@as_json_option
@click.pass_obj
def runs_wake(context: Context, run_id: str, as_json: bool) -> None:
    """End the pending sleeps of a run now."""
    run_id = context.full_id(run_id)
    run: Run[Any] = context.engine.get_run(run_id)
    woken = run.wake_up()
    if not woken and run.status not in OPEN:
        raise CommandRefused(f"Run {run_id!r} was not woken, because it is already {run.status}.")
    report({"id": run_id, "woken": woken}, f"{woken} pending sleeps of run {run_id} are over.", as_json)


@runs.command("retry")
@chooses_runs(None)
@click.option("--all", "retry_all", is_flag=True, help="Retry all blocked runs.")
@click.option(
    "--wait",
    type=parse_duration,
    metavar="DURATION",
    default="5s",
    show_default=True,
    help="How long to wait until the named runs continue or are blocked again.",
)
@as_json_option
@click.pass_obj
def runs_retry(
    context: Context,
    run_ids: tuple[str, ...],
    chosen: Chosen,
    retry_all: bool,
    wait: timedelta,
    as_json: bool,
) -> None:
    """Retry blocked runs with the code that is deployed now, and say whether they continue."""
    engine = context.engine

    def retry(run_id: str) -> None:
        if operate.is_in_doubt(engine, run_id):
            raise CommandRefused(
                f"Run {run_id!r} is blocked by a step in doubt, which a retry does not resolve.  `durable runs show"
                f" {run_id}` shows what happened.  `durable runs resolve {run_id}` lets the run continue."
            )
        if not operate.retry(engine, run_id):
            status = engine.get_run(run_id).status
            advice = f"  `durable runs fork {run_id}` lets a new run go on where it has failed."
            advice = advice if status == RunStatus.FAILED else ""
            raise CommandRefused(f"Run {run_id!r} is {status}.  You can retry only blocked runs.{advice}")

    if retry_all == bool(run_ids) or ((chosen.is_filtered or chosen.dry_run) and not retry_all):
        raise click.UsageError("Name the runs to retry by ID, or use --all, with --name if you like.")
    if retry_all:
        act_on_matching(context, chosen, "retry", bulk.Given(), replace(RETRIED, as_json=as_json))
    else:
        act_on_named(context, run_ids, retry, RETRIED, as_json, look=partial(_look_at_retries, engine, wait))


@runs.command("resolve")
@run_id_argument
@click.option(
    "--step", "step_id", type=parse_text, metavar="STEP_ID", help="The id of the step, if several are in doubt."
)
@click.option("--result", metavar="JSON", help="The step did its work, and this is its result.")
@click.option("--fail", type=parse_message, metavar="MESSAGE", help="The step failed, and this is the reason.")
@as_json_option
@click.pass_obj
def runs_resolve(
    context: Context, run_id: str, step_id: str | None, result: str | None, fail: str | None, as_json: bool
) -> None:
    """Record the outcome of a step in doubt, so that its run continues."""
    if (result is None) == (fail is None):
        raise click.UsageError("Give either --result JSON or --fail MESSAGE.")
    run_id = context.full_id(run_id)
    run: Run[Any] = context.engine.get_run(run_id)
    if fail is not None:
        resolved = run.resolve(fail=fail, step=step_id)
    else:
        resolved = run.resolve(result=parse_json(result or ""), step=step_id)
    report(
        {"id": run_id, "step": resolved}, f"Step {resolved} of run {run_id} is resolved.  The run continues.", as_json
    )


def _look_at_retries(engine: Durable, wait: timedelta, ids: list[str]) -> dict[str, Look]:
    """Wait for what comes of retries."""
    looks = {}
    for run_id, outcome in operate.await_retries(engine, ids, wait.total_seconds()).items():
        if outcome.status is None:
            sentence = f"Run {run_id} is being retried.  No worker has taken its turn yet."
        elif outcome.reason is None:
            sentence = f"Run {run_id} continues: it is {outcome.status}."
        else:
            sentence = f"Run {run_id} is blocked again.  {outcome.reason}"
        looks[run_id] = Look(
            {"status": outcome.status, "error": outcome.reason},
            "\n".join(printable(line) for line in sentence.split("\n")),
        )
    return looks
