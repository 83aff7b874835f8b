"""``durable start``: start a run of a workflow, or a run like an existing one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from .. import registry
from ..client import Options
from ..client import start as client_start
from ..errors import SerializationError
from ..registry import definitions
from . import application
from .common import (
    CommandRefused,
    Context,
    as_json_option,
    parse_attributes,
    parse_duration,
    parse_json,
    parse_run_id,
    parse_text,
)
from .printing import print_json
from .terminal import printable


@click.command()
@click.argument("workflow", metavar="[WORKFLOW]", required=False)
@click.argument("arguments", metavar="[JSON]", required=False)
@click.option(
    "--like", metavar="ID", type=parse_run_id, help="Start the workflow of this run, with the same arguments."
)
@click.option(
    "--run-id",
    metavar="ID",
    type=parse_run_id,
    help="The new run's id.  If a run already has this id, print that run.",
)
@click.option(
    "--idempotency-key", type=parse_text, metavar="TEXT", help="If a run was started with this key, print that run."
)
@click.option("--queue", type=parse_text, metavar="TEXT", help="The queue for the turns of the run.")
@click.option(
    "--countdown", type=parse_duration, metavar="DURATION", help='How long to wait before the run starts, e.g. "1h30m".'
)
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME=VALUE",
    help="An attribute of the run, by which you can find it.  You can give several.",
)
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
    attributes: tuple[str, ...],
    as_json: bool,
) -> None:
    """
    Start a run.

    WORKFLOW is the name of a workflow, or MODULE:WORKFLOW.  JSON is the list of its arguments, or an object with one
    key for each parameter.  Arguments that do not fit the annotations of the workflow are refused.
    """
    options = Options(
        run_id=run_id,
        idempotency_key=idempotency_key,
        queue=queue,
        countdown=countdown,
        attributes=parse_attributes(attributes),
    )
    if (workflow is None) == (like is None):
        raise click.UsageError("Name a workflow, or a run with --like ID.")
    try:
        if like is not None:
            like = context.full_id(like)
            run = client_start.start_like(context.engine, like, options)
        else:
            name = str(workflow)
            definition = registry.workflows[name] if name in registry.workflows else application.find_object(name)
            args, kwargs = _parse_arguments(arguments or "[]")
            if isinstance(definition, registry.Workflow):
                # A worker converts them too, where a wrong one would fail the run.
                definitions.fit_arguments(definition, definition.signature.bind(*args, **kwargs))
            run = client_start.start(context.engine, definition, args, kwargs, options)
    except (TypeError, ValueError, SerializationError) as error:
        raise CommandRefused(f"{workflow or like} was not started: {error}") from error
    called = [] if like is None else client_start.called_steps(context.engine, like)
    if called:
        click.echo(
            f"Warning: run {like} has called steps: {', '.join(map(printable, called))}.  The new run calls them again,"
            " with other idempotency keys.  What they did outside of this database, say a payment, is done again.",
            err=True,
        )
    if as_json:
        print_json({"id": run.id, "name": run.name, "status": run.status})
    else:
        click.echo(run.id)


def _parse_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    value = parse_json(text)
    if isinstance(value, list):
        return tuple(value), {}
    if isinstance(value, dict):
        return (), value
    raise click.UsageError(
        f"The arguments {text!r} must be a JSON list, or a JSON object with one key for each parameter."
    )
