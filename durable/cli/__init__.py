"""
The command line: ``durable --app MODULE[:NAME] COMMAND``.

Files, in import order::

    application.py  finds the application that ``--app`` names
    terminal.py     what stdout can show, and text that is safe to print on it
    common.py       what all commands share: errors, options, argument types
    dev_runs.py     a line for each event of a run
    dev_reload.py   watches the application's files, and loads a change in another process
    dev_worker.py   the worker of ``durable dev``, without Celery's lines about tasks
    dev.py          ``durable dev``
    chart.py        draws the timeline of a run
    printing.py     prints results: JSON for programs, tables for people
    top.py          ``durable top``
    bulk.py         acts on several runs
    hooks.py        ``durable hooks``
    watch.py        ``durable runs watch``
    runs.py         ``durable runs``
    start.py        ``durable start``
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from .. import doctor
from ..recovery import prune
from ..worker import versions
from . import dev, top
from .application import ApplicationNotFound
from .common import Commands, Context, as_json_option, interval_option, no_color_option, parse_duration
from .hooks import hooks
from .printing import print_json, report
from .runs import runs
from .start import start
from .terminal import printable


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--app",
    "-A",
    metavar="MODULE[:NAME]",
    default="worker.app",
    envvar="DURABLE_APP",
    show_default=True,
    show_envvar=True,
    help="The module that makes the engine, as for `celery -A`.",
)
@click.version_option(package_name="durable-celery", prog_name="durable")
@click.pass_context
def main(ctx: click.Context, app: str) -> None:
    """Durable execution on Celery, SQL and Flask."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    ctx.obj = Context(app)


@main.command("dev")
@click.option("--host", default="127.0.0.1", show_default=True, help="The web app's address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The web app's port  [default: the next free one from 8000]"
)
@click.option("--web", metavar="MODULE:NAME", help="The Flask app, or a function that makes it.")
@click.option(
    "--concurrency", "-c", type=click.IntRange(1), default=4, show_default=True, help="The worker's processes."
)
@click.option("--reload/--no-reload", default=True, show_default=True, help="Start again when a Python file changes.")
@click.option(
    "--verbose", "-v", is_flag=True, help="Print Celery's lines about tasks, not one for each event of a run."
)
@click.pass_obj
def dev_command(context: Context, /, **options: Any) -> None:
    """Run a broker, a worker and the web app in one terminal.  Stop them with Ctrl-C."""
    try:
        application = context.application
    except ApplicationNotFound as error:
        raise click.UsageError(f"{error}\n\n{dev.FIRST_STEPS}") from error
    sys.exit(dev.run(application, context.spec, **options))


@main.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Migrate the database to the schema that this code needs."""
    context.engine.migrate()
    click.echo(f"{context.engine.store.url.render_as_string()} has the schema that this code needs.", err=True)


@main.command("doctor")
@as_json_option
@click.pass_obj
def doctor_command(context: Context, as_json: bool) -> None:
    """Check database, broker, settings and workers, and report what to change."""
    findings = doctor.examine(context.engine)
    ok = all(finding.ok for finding in findings)
    found = versions.versions()
    if as_json:
        print_json({"ok": ok, "versions": found, "checks": [asdict(finding) for finding in findings]})
    else:
        click.echo(", ".join(f"{name} {version}" for name, version in found.items()))
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<11} {printable(finding.detail)}")
            if finding.fix:
                click.echo(f"      {'':<11} {printable(finding.fix)}")
    sys.exit(0 if ok else 1)


@main.command("prune")
@click.option(
    "--older-than",
    type=parse_duration,
    metavar="DURATION",
    required=True,
    help='Only runs that ended longer ago than this, e.g. "30d".',
)
@as_json_option
@click.pass_obj
def prune_command(context: Context, older_than: timedelta, as_json: bool) -> None:
    """Delete runs that ended long ago, with all their data."""
    pruned = prune.prune(context.engine, older_than)
    report({"pruned": pruned}, f"{pruned} runs are deleted.", as_json)


@main.command("top")
@interval_option("2s")
@click.option("--once", is_flag=True, help="Print once and exit.  Without a terminal, this is the default.")
@no_color_option
@as_json_option
@click.pass_obj
def top_command(context: Context, interval: float, once: bool, no_color: bool, as_json: bool) -> None:
    """Show workers, queues and running steps, and refresh them until you press Ctrl-C."""
    sys.exit(top.top(context.engine, interval, once=once, no_color=no_color, as_json=as_json))


for command in (start, runs, hooks):
    main.add_command(command)
