"""``durable runs pause`` and ``durable runs resume``: on the runs that are named, or on all that match a filter."""

from __future__ import annotations

from dataclasses import replace

import click

from ..client import bulk, pauses
from .bulk import Action, Chosen, act_on_matching, act_on_named, chooses_runs
from .common import CommandRefused, Context, as_json_option
from .pauses import parse_reason

#: The statuses in which a run can be paused.
OPEN = ("pending", "running", "blocked")

PAUSED = Action("paused", "paused", "Pause")
RESUMED = Action("resumed", "not paused by itself any more", "Resume", asks=False)
MANY_RESUMED = replace(RESUMED, sentence_end="resumed, 100 a second")

_children_option = click.option("--children", is_flag=True, help="The child runs of these runs too, and theirs.")
_status_option = click.option("--status", type=click.Choice(OPEN), help="Only runs with this status.")


@click.command("pause")
@chooses_runs(_status_option, asks=True)
@_children_option
@click.option("--reason", type=parse_reason, metavar="TEXT", help="The reason, for those who find the run paused.")
@as_json_option
@click.pass_obj
def pause_command(
    context: Context,
    run_ids: tuple[str, ...],
    chosen: Chosen,
    children: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """
    Pause runs: no turn and no step of them begins until they are resumed.

    Name the runs by ID, or choose all that match --status, --name, --attribute and --since.
    """
    engine = context.engine

    def pause(run_id: str) -> None:
        if not pauses.pause_run(engine, run_id, reason, children=children):
            run = engine.get_run(run_id)
            state = "paused" if run.paused else run.status
            raise CommandRefused(f"Run {run_id!r} was not paused, because it is already {state}.")

    if chosen.is_filtered == bool(run_ids) or (chosen.dry_run and run_ids):
        raise click.UsageError("Name the runs to pause by ID, or choose them with --status or --name.")
    if run_ids:
        act_on_named(context, run_ids, pause, PAUSED, as_json)
    else:
        act_on_matching(
            context, chosen, "pause", bulk.Given(reason, children=children), replace(PAUSED, as_json=as_json)
        )


@click.command("resume")
@chooses_runs(_status_option)
@click.option("--all", "resume_all", is_flag=True, help="All runs that are paused by themselves.")
@_children_option
@as_json_option
@click.pass_obj
def resume_command(
    context: Context,
    run_ids: tuple[str, ...],
    chosen: Chosen,
    resume_all: bool,
    children: bool,
    as_json: bool,
) -> None:
    """
    End the pauses of runs.  A run stays paused while its workflow or its queue is.  Many runs go on at 100 a second.

    Name the runs by ID, or choose with --all, --status, --name, --attribute and --since.
    """
    engine = context.engine

    def resume(run_id: str) -> None:
        if not pauses.resume_run(engine, run_id, children=children):
            advice = "  `durable pauses` shows what pauses it." if engine.get_run(run_id).paused else ""
            raise CommandRefused(f"Run {run_id!r} is not paused by itself.{advice}")

    if (chosen.is_filtered or resume_all) == bool(run_ids) or (chosen.dry_run and run_ids):
        raise click.UsageError("Name the runs to resume by ID, or choose them with --all, --status or --name.")
    if run_ids:
        act_on_named(context, run_ids, resume, RESUMED, as_json)
    else:
        act_on_matching(
            context, chosen, "resume", bulk.Given(children=children), replace(MANY_RESUMED, as_json=as_json)
        )
