"""``durable runs``: look at runs, and act on one or on many."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from ..attributes import NAME_LIMIT, VALUE_LIMIT
from ..client import describe, operate
from ..registry import Run
from ..store import RunStatus
from .bulk import Deed, act_on_chosen, act_on_named, confirm
from .common import (
    STATUSES,
    Context,
    Refused,
    a_duration,
    a_message,
    a_text,
    an_id,
    as_json_option,
    limit_option,
    name_option,
    parse_json,
    run_id_argument,
)
from .printing import print_json, print_rows, print_run, report

#: What a run can still be cancelled in, in the order in which a run goes through them.
OPEN = tuple(status.value for status in (RunStatus.PENDING, RunStatus.RUNNING, RunStatus.BLOCKED))

CANCELLED = Deed("cancelled", "asked to stop")
RETRIED = Deed("retried", "tried again")


@click.group()
def runs() -> None:
    """Look at runs, and act on them."""


@runs.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs of this status.")
@name_option
@click.option(
    "--attribute", "attributes", metavar="NAME=VALUE", multiple=True, help="An attribute; of several each has to match."
)
@click.option("--since", type=a_duration, metavar="DURATION", help='Only runs started within this long, e.g. "1h".')
@limit_option("The most to list.")
@as_json_option
@click.pass_obj
def runs_list(
    context: Context,
    status: str | None,
    name: str | None,
    attributes: tuple[str, ...],
    since: timedelta | None,
    limit: int,
    as_json: bool,
) -> None:
    """The newest runs."""
    wanted = _attributes(attributes)
    found = describe.list_runs(context.engine, status=status, name=name, attributes=wanted, since=since, limit=limit)
    print_rows(found, ("id", "status", "created_at", "name"), as_json)


@runs.command("show")
@run_id_argument
@click.option("--events", "with_events", is_flag=True, help="Its log as well.")
@as_json_option
@click.pass_obj
def runs_show(context: Context, run_id: str, with_events: bool, as_json: bool) -> None:
    """One run: its arguments, its state, its result or error, and what it waits for."""
    described = describe.describe(context.engine, run_id)
    if with_events:
        described["events"] = describe.list_events(context.engine, run_id)
    if as_json:
        print_json(described)
    else:
        print_run(described)


@runs.command("cancel")
@click.argument("run_ids", metavar="[ID]...", nargs=-1, type=an_id)
@click.option("--status", type=click.Choice(OPEN), help="Cancel all open runs of this status.")
@name_option
@click.option("--reason", type=a_text, metavar="TEXT", help="Recorded in the log.")
@click.option("--yes", is_flag=True, help="Do not ask before many runs are cancelled.")
@as_json_option
@click.pass_obj
def runs_cancel(
    context: Context,
    run_ids: tuple[str, ...],
    status: str | None,
    name: str | None,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """
    Ask runs to stop; they may clean up first.

    Name them by ID, or choose them with --status and --name.
    """
    engine = context.engine

    def cancel(run_id: str) -> None:
        run: Run[Any] = engine.get_run(run_id)
        if not run.cancel(reason):
            raise Refused(f"Run {run_id!r} was not cancelled: it is {run.status} already.")

    chosen = status is not None or name is not None
    if chosen == bool(run_ids):
        raise click.UsageError("Name the runs to cancel by ID, or choose them with --status or --name.")
    if not chosen:
        act_on_named(run_ids, cancel, CANCELLED, as_json)
        return
    statuses = OPEN if status is None else (status,)
    confirm("Cancel", describe.count(engine, statuses=statuses, name=name), yes)
    act_on_chosen(describe.each(engine, statuses=statuses, name=name), cancel, CANCELLED, as_json)


@runs.command("wake")
@run_id_argument
@as_json_option
@click.pass_obj
def runs_wake(context: Context, run_id: str, as_json: bool) -> None:
    """End a run's pending sleeps now."""
    run: Run[Any] = context.engine.get_run(run_id)
    woken = run.wake_up()
    if not woken and run.status not in OPEN:
        raise Refused(f"Run {run_id!r} was not woken: it is {run.status} already.")
    report({"id": run_id, "woken": woken}, f"{woken} pending sleeps of run {run_id} are over.", as_json)


@runs.command("retry")
@click.argument("run_ids", metavar="[ID]...", nargs=-1, type=an_id)
@click.option("--all", "all_of_them", is_flag=True, help="All blocked runs.")
@click.option("--name", type=a_text, metavar="TEXT", help="With --all: only runs of this workflow.")
@as_json_option
@click.pass_obj
def runs_retry(context: Context, run_ids: tuple[str, ...], all_of_them: bool, name: str | None, as_json: bool) -> None:
    """Try blocked runs again with the code that is deployed now."""
    engine = context.engine

    def retry(run_id: str) -> None:
        if operate.is_in_doubt(engine, run_id):
            raise Refused(
                f"Run {run_id!r} is blocked by a step in doubt, which no code resolves: `durable runs show {run_id}`"
                f" says what happened, and `durable runs resolve {run_id}` lets it go on."
            )
        if not operate.retry(engine, run_id):
            status = engine.get_run(run_id).status
            raise Refused(f"Run {run_id!r} is {status}: only a blocked run is tried again.")

    if all_of_them == bool(run_ids) or (name is not None and not all_of_them):
        raise click.UsageError("Name the runs to try again by ID, or write --all, perhaps with --name.")
    if all_of_them:
        act_on_chosen(describe.each(engine, statuses=(RunStatus.BLOCKED,), name=name), retry, RETRIED, as_json)
    else:
        act_on_named(run_ids, retry, RETRIED, as_json)


@runs.command("resolve")
@run_id_argument
@click.option("--step", "step_id", type=a_text, metavar="STEP_ID", help="Which step, where several are in doubt.")
@click.option("--result", metavar="JSON", help="It did its work, and this is its result.")
@click.option("--fail", type=a_message, metavar="MESSAGE", help="It failed, and this is why.")
@as_json_option
@click.pass_obj
def runs_resolve(
    context: Context, run_id: str, step_id: str | None, result: str | None, fail: str | None, as_json: bool
) -> None:
    """Say what became of a step in doubt, one that runs at most once; its run goes on then."""
    if (result is None) == (fail is None):
        raise click.UsageError("Write either --result JSON or --fail MESSAGE.")
    run: Run[Any] = context.engine.get_run(run_id)
    if fail is not None:
        resolved = run.resolve(fail=fail, step=step_id)
    else:
        resolved = run.resolve(result=parse_json(result or ""), step=step_id)
    report({"id": run_id, "step": resolved}, f"Step {resolved} of run {run_id} is resolved; the run goes on.", as_json)


def _attributes(given: tuple[str, ...]) -> dict[str, str]:
    wanted: dict[str, str] = {}
    for pair in given:
        name, equals, value = a_text(pair, NAME_LIMIT + 1 + VALUE_LIMIT).partition("=")
        if not name or not equals:
            raise click.UsageError(f"--attribute {pair!r} is no NAME=VALUE: write --attribute customer=acme.")
        if wanted.setdefault(name, value) != value:
            raise click.UsageError(f"--attribute {name}: no run has both {wanted[name]!r} and {value!r}.")
    return wanted
