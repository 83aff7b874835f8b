"""The command starts fast: what it must not import before it needs it."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from durable.cli import COMMANDS, main
from durable.cli.common import without_collecting

APP = """
from celery import Celery
from durable import Durable, sleep, step, workflow

celery = Celery("quick", broker="memory://", include=["quick_flows"])
engine = Durable(celery)

@step
def charge(cents: int) -> str:
    return f"paid {cents}"

@workflow
async def order(cents: int) -> str:
    await sleep("1h")
    return await charge(cents)
"""

#: A module of workflows: its hook makes an adapter of pydantic.
FLOWS = """
from dataclasses import dataclass
from durable import define_hook

@dataclass
class Paid:
    cents: int

paid = define_hook(Paid)
"""

#: What neither the command nor an application needs in order to list runs, each with what is below it.
NOT_FOR_RUNS_LIST = (
    "alembic",
    "celery.app.trace",
    "celery.worker.control",
    "durable.attempts",
    "durable.dashboard",
    "durable.doctor",
    "durable.recovery",
    "durable.testing",
    "durable.turns",
    "durable.web",
    "flask",
    "gunicorn",
    "jinja2",
    "kombu.transport.virtual",
    "opentelemetry",
    "pydantic",
    "pydantic_core",
    "quick_flows",
    "redis",
    "sqlalchemy.dialects.mysql",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm",
)

#: ``durable --help`` needs none of these either.
NOT_FOR_HELP = (
    *NOT_FOR_RUNS_LIST,
    "asyncio",
    "celery",
    "durable.app",
    "durable.client",
    "durable.codec",
    "durable.engine",
    "durable.registry",
    "durable.store",
    "kombu",
    "sqlalchemy",
    "werkzeug",
)


def imported(folder: Path, *args: str) -> set[str]:
    """The modules that ``durable ARGS`` imports, as ``python -X importtime`` lists them."""
    command = [sys.executable, "-X", "importtime", "-c", "from durable.cli import main; main(prog_name='durable')"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DURABLE_", "COVERAGE_"))}
    environment["DURABLE_DATABASE_URL"] = f"sqlite:///{folder}/durable.db"
    done = subprocess.run([*command, *args], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr[-2000:]
    return set(re.findall(r"^import time:[^|]*\|[^|]*\| +(\S+)$", done.stderr, re.MULTILINE))


def below(modules: set[str], unwanted: tuple[str, ...]) -> set[str]:
    return {name for name in modules for root in unwanted if f"{name}.".startswith(f"{root}.")}


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "quick_flows.py").write_text(FLOWS)
    # Migrations import Alembic, and nothing else does.
    imported(tmp_path, "migrate")
    return tmp_path


def test_help_imports_click_and_little_else(tmp_path):
    """``durable --help`` lists the commands without their modules: no Celery, no SQLAlchemy, no room of the engine."""
    found = imported(tmp_path, "--help")

    assert "click" in found
    assert below(found, NOT_FOR_HELP) == set()


def import_nothing(during: list[bool]) -> None:
    with without_collecting():
        during.append(gc.isenabled())
        raise ImportError


@pytest.mark.parametrize("collects", [True, False])
def test_imports_leave_garbage_collection_as_it_was(collects):
    """It is off while modules are imported, also when an import fails."""
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        during = []
        with pytest.raises(ImportError):
            import_nothing(during)
        after = gc.isenabled()
    finally:
        (gc.enable if before else gc.disable)()

    assert (during, after) == ([False], collects)


@pytest.mark.slow
def test_listing_runs_imports_no_more_than_it_needs(quick):
    """``durable runs list`` imports the application and the tables; no workflows, nor what serves pages."""
    found = imported(quick, "runs", "list")

    assert {"celery", "sqlalchemy", "durable.app", "durable.store"} <= found
    assert below(found, NOT_FOR_RUNS_LIST) == set()


def test_the_list_of_commands_says_what_each_command_says():
    """The first sentences in ``durable --help``, which are written beside the names, are those of the commands."""
    ctx = click.Context(main)

    assert {name: listed.short_help for name, listed in COMMANDS.items()} == {
        name: main.get_command(ctx, name).get_short_help_str(200) for name in main.list_commands(ctx)
    }
    assert all(main.get_command(ctx, name).name == name for name in COMMANDS)
