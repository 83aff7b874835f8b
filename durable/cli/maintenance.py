"""``durable migrate``, ``durable doctor`` and ``durable prune``: keep a deployment in order."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta

import click

from .. import doctor as checks
from ..engine import versions
from ..recovery import prune as pruning
from .common import Context, as_json_option, parse_duration
from .printing import print_json, report
from .terminal import printable


@click.command()
@click.pass_obj
def migrate(context: Context) -> None:
    """Migrate the database to the schema that this code needs."""
    context.engine.migrate()
    click.echo(f"{context.engine.store.url.render_as_string()} has the schema that this code needs.", err=True)


@click.command()
@as_json_option
@click.pass_obj
def doctor(context: Context, as_json: bool) -> None:
    """Check database, broker, settings and workers, and report what to change."""
    findings = checks.examine(context.engine)
    ok = all(finding.ok for finding in findings)
    found = versions()
    if as_json:
        print_json({"ok": ok, "versions": found, "checks": [asdict(finding) for finding in findings]})
    else:
        click.echo(", ".join(f"{name} {version}" for name, version in found.items()))
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.name:<11} {printable(finding.detail)}")
            if finding.fix:
                click.echo(f"      {'':<11} {printable(finding.fix)}")
    sys.exit(0 if ok else 1)


@click.command()
@click.option("--worker", is_flag=True, help="Ask about the worker of this host, instead of the database.")
@as_json_option
@click.pass_obj
def health(context: Context, worker: bool, as_json: bool) -> None:
    """Say whether the database, or the worker of this host, is well."""
    of = checks.health.of_worker if worker else checks.health.of_database
    finding = of(context.engine)
    document = {"ok": finding.ok, "detail": finding.detail}
    report(document, f"{'ok' if finding.ok else 'FAIL'}  {printable(finding.detail)}", as_json)
    sys.exit(0 if finding.ok else 1)


@click.command()
@click.option(
    "--older-than",
    type=parse_duration,
    metavar="DURATION",
    required=True,
    help='Only runs that ended longer ago than this, e.g. "30d".',
)
@as_json_option
@click.pass_obj
def prune(context: Context, older_than: timedelta, as_json: bool) -> None:
    """Delete runs that ended long ago, with all their data."""
    pruned = pruning.prune(context.engine, older_than)
    report({"pruned": pruned}, f"{pruned} runs are deleted.", as_json)
