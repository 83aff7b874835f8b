"""``durable runs fork``: fork the runs that are named, or all that have failed and match a filter."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import click

from ..app import Durable
from ..client import fork, matching_ids
from ..errors import DurableError
from ..store import RunFilter, RunStatus
from .bulk import attribute_option, confirm, since_option
from .common import CommandRefused, Context, as_json_option, name_option, parse_attributes, parse_run_id, parse_text
from .printing import print_json


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where to fork, and whether only to say what would be done."""

    engine: Durable
    step: str | None
    event: int | None
    payloads: bool
    dry_run: bool
    once: bool

    def do(self, run_id: str) -> dict[str, Any]:
        """Fork a run, and return what to print as JSON."""
        where: dict[str, Any] = {"from_step": self.step, "from_event": self.event, "reapply_payloads": self.payloads}
        row: dict[str, Any] = {"id": run_id, "fork": None, "from_step": None, "until_event": None, "error": None}
        try:
            if self.dry_run:
                plan = fork.plan(self.engine, run_id, **where)
                return row | {"from_step": plan.step, "until_event": plan.until}
            return row | {"fork": fork.fork(self.engine, run_id, once=self.once, **where).id}
        except DurableError as error:
            return row | {"error": str(error)}

    def sentence(self, row: dict[str, Any]) -> str:
        """What came of a run, for people."""
        if self.dry_run:
            step = f", and would call step {row['from_step']} again" if row["from_step"] else ""
            return f"Run {row['id']} would be forked behind its event {row['until_event']}{step}."
        return f"Run {row['fork']} goes on where run {row['id']} has stood."


@click.command("fork")
@click.argument("run_ids", metavar="[ID]...", nargs=-1, type=parse_run_id)
@click.option(
    "--from",
    "step",
    type=parse_text,
    metavar="STEP",
    help="Call this step again: its name, or the id of one call.  [default: the step that has failed]",
)
@click.option("--from-event", "event", type=int, metavar="SEQ", help="Go on behind this event of the log.")
@click.option("--no-payloads", is_flag=True, help="Leave out the payloads that came to open hooks after the fork.")
@click.option("--failed", is_flag=True, help="Fork all runs that have failed.")
@name_option
@attribute_option
@since_option
@click.option("--dry-run", is_flag=True, help="Say what would be forked, and where; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before many runs are forked.")
@as_json_option
@click.pass_obj
def fork_command(
    context: Context,
    run_ids: tuple[str, ...],
    step: str | None,
    event: int | None,
    no_payloads: bool,
    failed: bool,
    name: str | None,
    attributes: tuple[str, ...],
    since: timedelta | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """
    Start new runs that go on where others have stood, with the code that is deployed now.

    Name the runs by ID, or choose with --failed all that have failed and were not forked before, with --name,
    --attribute and --since if you like.
    """
    if failed == bool(run_ids) or (not failed and (name is not None or attributes or since is not None)):
        raise click.UsageError(
            "Name the runs to fork by ID, or use --failed, with --name, --attribute and --since if you like."
        )
    if step is not None and event is not None:
        raise click.UsageError("Give --from or --from-event, not both.")
    engine = context.engine
    asked = _Asked(engine, step, event, not no_payloads, dry_run, once=failed)
    if not failed:
        _report(asked, [asked.do(context.full_id(each)) for each in run_ids], len(run_ids) == 1, as_json)
        return
    engine.check_schema()
    now = engine.now()
    earliest = None if since is None else now - int(since.total_seconds() * 1_000_000)
    # The list is read before the first run is forked: a fork that fails at once is not forked again.
    wanted = RunFilter(
        status=RunStatus.FAILED, name=name, attributes=parse_attributes(attributes), since=earliest, until=now + 1
    )
    ids = [run_id for run_id in matching_ids(engine, wanted) if not fork.was_forked(engine, run_id)]
    if not dry_run:
        confirm("Fork", len(ids), yes)
    _report(asked, _each(asked, ids), False, as_json)


def _each(asked: _Asked, ids: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Fork these runs one after the other, with a bar on a terminal."""
    with click.progressbar(list(ids), file=sys.stderr, label="Forking", hidden=not sys.stderr.isatty()) as shown:
        for run_id in shown:
            yield asked.do(run_id)


def _report(asked: _Asked, found: Iterable[dict[str, Any]], is_one: bool, as_json: bool) -> None:
    """Print what came of each run.  The exit code is 1 if one was refused."""
    rows = list(found)
    errors = [row["error"] for row in rows if row["error"] is not None]
    if is_one and errors:
        raise CommandRefused(errors[0])
    if as_json:
        print_json(rows[0] if is_one else rows)
    else:
        for row in rows:
            if row["error"] is None:
                click.echo(asked.sentence(row))
        for error in errors:
            click.echo(f"Error: {error}", err=True)
    if errors:
        sys.exit(1)
