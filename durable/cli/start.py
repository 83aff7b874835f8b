"""``durable start``: a new run, of a workflow or like another run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from .. import registry
from ..client import Options
from ..client import start as again
from ..client import start as starting
from ..engine import Engine
from ..registry import Run
from . import application
from .common import Context, Refused, a_duration, a_text, an_id, as_json_option, parse_json
from .printing import print_json


@click.command()
@click.argument("workflow", metavar="[WORKFLOW]", required=False)
@click.argument("arguments", metavar="[JSON]", required=False)
@click.option("--like", metavar="ID", type=an_id, help="Start what this run is of, with its arguments.")
@click.option("--run-id", metavar="ID", type=an_id, help="The new run's id; an existing run of this id is returned.")
@click.option(
    "--idempotency-key", type=a_text, metavar="TEXT", help="An existing run that was started with this key is returned."
)
@click.option("--queue", type=a_text, metavar="TEXT", help="The queue of its turns.")
@click.option("--countdown", type=a_duration, metavar="DURATION", help='Start after this long, e.g. "1h30m".')
@as_json_option
@click.pass_obj
def start(
    context: Context,
    workflow: str | None,
    arguments: str | None,
    like: str | None,
    run_id: str | None,
    idempotency_key: str | None,
    queue: str | None,
    countdown: timedelta | None,
    as_json: bool,
) -> None:
    """
    Start a run.

    WORKFLOW is its name, or MODULE:WORKFLOW.  JSON is the list of its arguments, or an object by parameter name.
    """
    options = Options(run_id=run_id, idempotency_key=idempotency_key, queue=queue, countdown=countdown)
    if (workflow is None) == (like is None):
        raise click.UsageError("Name the workflow to start, or a run to start again with --like ID.")
    try:
        if like is not None:
            run = again.start_like(context.engine, like, options)
        else:
            run = _start(context.engine, str(workflow), arguments or "[]", options)
    except (TypeError, ValueError) as error:
        raise Refused(f"{workflow or like} was not started: {error}") from error
    if as_json:
        print_json({"id": run.id, "name": run.name, "status": run.status})
    else:
        click.echo(run.id)


def _start(engine: Engine, workflow: str, arguments: str, options: Options) -> Run[Any]:
    args, kwargs = _arguments(arguments)
    return starting.start(engine, _find(workflow), args, kwargs, options)


def _find(spec: str) -> Any:
    """The workflow of this name, or what MODULE:WORKFLOW is."""
    return registry.workflows[spec] if spec in registry.workflows else application.find(spec)


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    value = parse_json(text)
    if isinstance(value, list):
        return tuple(value), {}
    if isinstance(value, dict):
        return (), value
    raise click.UsageError(f"The arguments {text!r} must be a JSON list, or an object by parameter name.")
