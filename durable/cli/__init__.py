"""
The command line: ``durable --app MODULE[:NAME] COMMAND``.

A command's module is imported when the command runs, and the application when the command first needs it.  So
``durable --help`` imports click and nothing else.

Files, in import order::

    default_app.py     the application of a folder, where ``--app`` names none
    application.py     imports an application, and takes its engine
    terminal.py        what stdout can show, and text that is safe to print on it
    common.py          what all commands share: errors, options, argument types
    dev_runs.py        a line for each event of a run
    dev_plan.py        what ``durable dev`` starts, found by importing the application
    dev_reload.py      watches the application's files, and loads a change in another process
    dev_worker.py      the worker of ``durable dev``, without Celery's lines about tasks
    dev_supervisor.py  the child processes, and what happens to them
    dev_web.py         the web apps, as gunicorn names them
    dev_ready.py       the addresses that are printed once everything is ready
    dev.py             ``durable dev``
    chart.py           draws the timeline of a run
    printing.py        prints results: JSON for programs, tables for people
    run_details.py     the steps of a run, why it has failed, and its log
    maintenance.py     ``durable migrate``, ``durable doctor``, ``durable health``, ``durable prune``
    top.py             ``durable top``
    bulk.py            acts on several runs
    hooks.py           ``durable hooks``
    pauses.py          ``durable pauses``; pause and resume workflows, queues and receivers
    receivers.py       ``durable receivers``
    limits.py          ``durable limits``
    follow.py          ``durable runs list --follow``
    watch.py           ``durable runs watch``
    forks.py           ``durable runs fork``
    pause_runs.py      ``durable runs pause`` and ``durable runs resume``
    streams.py         ``durable runs stream``
    runs.py            ``durable runs``
    start.py           ``durable start``
    schedules.py       ``durable schedules``
"""

from __future__ import annotations

import logging
import sys

import click

from .common import Context, LazyCommand, LazyCommands

COMMANDS = {
    "dev": LazyCommand("dev:dev", "Run a broker, a worker and the web app in one terminal."),
    "doctor": LazyCommand(
        "maintenance:doctor", "Check database, broker, settings and workers, and report what to change."
    ),
    "health": LazyCommand("maintenance:health", "Say whether the database, or the worker of this host, is well."),
    "hooks": LazyCommand("hooks:hooks", "List open hooks, and resume them."),
    "limits": LazyCommand(
        "limits:limits", "Show the limits of steps and workflows, set their numbers, and end pauses."
    ),
    "migrate": LazyCommand("maintenance:migrate", "Migrate the database to the schema that this code needs."),
    "pauses": LazyCommand("pauses:pauses", "List the paused workflows, queues and receivers."),
    "prune": LazyCommand("maintenance:prune", "Delete runs that ended long ago, with all their data."),
    "queues": LazyCommand("pauses:queues", "Pause and resume queues."),
    "receivers": LazyCommand(
        "receivers:receivers", "List receivers and their requests, route requests again, and pause receivers."
    ),
    "runs": LazyCommand("runs:runs", "Show runs, and act on them."),
    "schedules": LazyCommand("schedules:schedules", "Show schedules, and act on them."),
    "start": LazyCommand("start:start", "Start a run."),
    "top": LazyCommand(
        "top:top_command", "Show workers, queues and running steps, and refresh them until you press Ctrl-C."
    ),
    "workflows": LazyCommand("pauses:workflows", "Pause and resume workflows."),
}


@click.group(cls=LazyCommands, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--app",
    "-A",
    metavar="MODULE[:NAME]",
    envvar="DURABLE_APP",
    show_envvar=True,
    help="The module that makes the engine, as for `celery -A`.  [default: `app` under [tool.durable] in"
    " pyproject.toml, else app.py, celery_app.py or worker/app.py]",
)
@click.version_option(package_name="durable-celery", prog_name="durable")
@click.pass_context
def main(ctx: click.Context, app: str | None) -> None:
    """Durable execution on Celery, SQL and Flask."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    ctx.obj = Context(app)
