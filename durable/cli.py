"""
The command line: ``durable --app MODULE[:NAME] COMMAND``.

With ``--json`` a command prints that and nothing else on stdout; logs and
messages go to stderr.  Exit codes: 0 done, 1 refused (the message says why),
2 usage.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from functools import cached_property
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from . import client, dev, doctor, inspecting, loading
from .app import Durable
from .client import Options, Run
from .errors import DurableError
from .store import unreachable


class Refused(click.ClickException):
    """Raised when what was asked for is not done.  Exit code 1."""


class Context:
    """What every command is given: the application, loaded when first used."""

    def __init__(self, spec: str) -> None:
        self.spec = spec

    @cached_property
    def application(self) -> loading.Application:
        return loading.load(self.spec)

    @property
    def engine(self) -> Durable:
        engine = self.application.engine
        assert isinstance(engine, Durable)
        return engine


class Commands(click.Group):
    """A group whose commands' errors become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except loading.NoApplication as error:
            raise click.UsageError(str(error)) from error
        except DurableError as error:
            raise Refused(str(error)) from error
        except SQLAlchemyError as error:
            if not unreachable(error):
                raise
            raise Refused(f"The database cannot be used now: {error.args[0]}") from error


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else on stdout.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--app",
    "-A",
    metavar="MODULE[:NAME]",
    default="worker.app",
    envvar="DURABLE_APP",
    show_default=True,
    show_envvar=True,
    help="The module that makes the engine, as `celery -A` has it.",
)
@click.version_option(package_name="durable-celery", prog_name="durable")
@click.pass_context
def main(ctx: click.Context, app: str) -> None:
    """Durable execution on Celery, SQL and Flask."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    ctx.obj = Context(app)


@main.command("dev")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address that the web app listens on.")
@click.option("--port", type=int, help="The web app's port  [default: the next free one from 8000]")
@click.option("--web", metavar="MODULE:NAME", help="The Flask app, or the function that makes it.")
@click.option("--concurrency", "-c", type=int, default=4, show_default=True, help="The worker's processes.")
@click.pass_obj
def dev_command(context: Context, host: str, port: int | None, web: str | None, concurrency: int) -> None:
    """Embedded broker, worker and web app in one terminal; Ctrl-C stops all."""
    try:
        application = context.application
    except loading.NoApplication as error:
        raise click.UsageError(f"{error}\n\n{dev.FIRST_STEPS}") from error
    sys.exit(dev.run(application, context.spec, host=host, port=port, web=web, concurrency=concurrency))


@main.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Bring the database to the schema that this code needs."""
    context.engine.migrate()
    click.echo(f"{context.engine.store.url.render_as_string()} has the schema that this code needs.", err=True)


@main.command("doctor")
@as_json
@click.pass_obj
def doctor_command(context: Context, as_json: bool) -> None:
    """Check database, schema, broker, settings and workers, and say what to change."""
    findings = doctor.examine(context.engine)
    ok = all(finding.ok for finding in findings)
    if as_json:
        _print_json({"ok": ok, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<11} {finding.detail}")
            if finding.fix:
                click.echo(f"      {'':<11} {finding.fix}")
    sys.exit(0 if ok else 1)


@main.command()
@click.argument("workflow", metavar="MODULE:WORKFLOW")
@click.argument("arguments", metavar="[JSON]", default="[]")
@click.option("--run-id", help="The new run's id; an existing run of this id is returned.")
@click.option("--idempotency-key", help="An existing run that was started with this key is returned.")
@click.option("--queue", help="The queue of its turns.")
@click.option("--countdown", metavar="DURATION", help='Start after this long, e.g. "1h30m".')
@as_json
@click.pass_obj
def start(
    context: Context,
    workflow: str,
    arguments: str,
    run_id: str | None,
    idempotency_key: str | None,
    queue: str | None,
    countdown: str | None,
    as_json: bool,
) -> None:
    """Start a run: JSON is the list of its arguments, or an object by parameter name."""
    engine = context.engine
    args, kwargs = _arguments(arguments)
    options = Options(run_id=run_id, idempotency_key=idempotency_key, queue=queue, countdown=countdown)
    try:
        run = client.start(engine, loading.find(workflow), args, kwargs, options)
    except (TypeError, ValueError) as error:
        raise Refused(f"{workflow} was not started: {error}") from error
    if as_json:
        _print_json({"id": run.id, "name": run.name, "status": run.status})
    else:
        click.echo(run.id)


@main.group()
def runs() -> None:
    """Look at runs, and act on them."""


@runs.command("list")
@click.option("--status", help="pending, running, completed, failed, cancelled or blocked.")
@click.option("--name", help="The workflow's name.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@as_json
@click.pass_obj
def runs_list(context: Context, status: str | None, name: str | None, limit: int, as_json: bool) -> None:
    """The newest runs."""
    found = inspecting.list_runs(context.engine, status=status, name=name, limit=limit)
    _print_rows(found, ("id", "status", "created_at", "name"), as_json)


@runs.command("show")
@click.argument("run_id", metavar="ID")
@as_json
@click.pass_obj
def runs_show(context: Context, run_id: str, as_json: bool) -> None:
    """One run: its arguments, its state, its result or error."""
    described = inspecting.describe(context.engine, run_id)
    if as_json:
        _print_json(described)
        return
    for name, value in described.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
            click.echo(f"{name:<13} {text}")


@runs.command("cancel")
@click.argument("run_id", metavar="ID")
@click.option("--reason", help="Recorded in the run's log.")
@as_json
@click.pass_obj
def runs_cancel(context: Context, run_id: str, reason: str | None, as_json: bool) -> None:
    """Ask a run to stop; it may clean up first."""
    run: Run[Any] = context.engine.get_run(run_id)
    if not run.cancel(reason):
        raise Refused(f"Run {run_id!r} was not cancelled: it is {run.status} already.")
    _report({"id": run_id, "cancelled": True}, f"Run {run_id} is asked to stop.", as_json)


@runs.command("wake")
@click.argument("run_id", metavar="ID")
@as_json
@click.pass_obj
def runs_wake(context: Context, run_id: str, as_json: bool) -> None:
    """End a run's pending sleeps now."""
    run: Run[Any] = context.engine.get_run(run_id)
    woken = run.wake_up()
    if not woken and run.status in ("completed", "failed", "cancelled"):
        raise Refused(f"Run {run_id!r} was not woken: it is {run.status} already.")
    _report({"id": run_id, "woken": woken}, f"{woken} pending sleeps of run {run_id} are over.", as_json)


@runs.command("retry")
@click.argument("run_id", metavar="ID")
@as_json
@click.pass_obj
def runs_retry(context: Context, run_id: str, as_json: bool) -> None:
    """Try a blocked run again with the code that is deployed now."""
    if not inspecting.retry(context.engine, run_id):
        status = context.engine.get_run(run_id).status
        raise Refused(f"Run {run_id!r} is {status}: only a blocked run is tried again.")
    _report({"id": run_id, "retried": True}, f"Run {run_id} is tried again.", as_json)


@main.group()
def hooks() -> None:
    """Look at open hooks, and resume them."""


@hooks.command("list")
@click.option("--run", "run_id", metavar="ID", help="Only this run's.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@as_json
@click.pass_obj
def hooks_list(context: Context, run_id: str | None, limit: int, as_json: bool) -> None:
    """Open hooks, webhooks with their URL."""
    found = inspecting.list_hooks(context.engine, run_id=run_id, limit=limit)
    _print_rows(found, ("run_id", "created_at", "token", "url"), as_json)


@hooks.command("resume")
@click.argument("token")
@click.argument("payload", metavar="JSON")
@click.option("--wait", metavar="DURATION", help='Wait this long for a hook about to be created, e.g. "5s".')
@as_json
@click.pass_obj
def hooks_resume(context: Context, token: str, payload: str, wait: str | None, as_json: bool) -> None:
    """Deliver a payload to the run that holds TOKEN open."""
    try:
        run = context.engine.resume_hook(token, _parse_json(payload), wait=wait)
    except ValueError as error:
        raise Refused(f"{error}") from error
    _report({"run_id": run.id}, f"Run {run.id} has the payload.", as_json)


def _arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    value = _parse_json(text)
    if isinstance(value, list):
        return tuple(value), {}
    if isinstance(value, dict):
        return (), value
    raise click.UsageError(f"The arguments {text!r} must be a JSON list, or an object by parameter name.")


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(
            f"{text!r} is not JSON ({error}): a string needs its quotes, '\"like this\"'."
        ) from error


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, default=str))


def _report(value: object, message: str, as_json: bool) -> None:
    if as_json:
        _print_json(value)
    else:
        click.echo(message)


def _print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    """A JSON list, or a table of *columns*."""
    if as_json:
        _print_json(rows)
        return
    lines = [columns, *(tuple(str(row[column] or "") for column in columns) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
