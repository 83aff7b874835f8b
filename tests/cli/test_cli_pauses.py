"""Pause and resume on the command line: runs by id and by filter, workflows, queues; and what is listed."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from driving import settle

from durable import Run
from durable.cli import main
from durable.store import schema


def command(*args: str) -> Result:
    return CliRunner().invoke(main, args, prog_name="durable")


@pytest.fixture
def loading(yard: Any, request: pytest.FixtureRequest) -> list[Run[Any]]:
    """Two open runs with the attribute that each test filters by; there are runs of other tests."""
    labelled = yard.module.loading.with_options(attributes={"batch": request.node.name[:100]})
    runs = [labelled.start(secrets.token_hex(4)) for _ in range(2)]
    settle(yard.engine, *runs)
    return runs


@pytest.fixture
def batch(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The options that choose these runs."""
    return "--attribute", f"batch={request.node.name[:100]}"


def test_a_run_is_paused_and_resumed_by_its_id(loading):
    """The list and the run's page say so; what was so already is refused."""
    run = loading[0]
    assert command("runs", "pause", run.id, "--reason", "a strike").stdout == f"Run {run.id} is paused.\n"
    again = command("runs", "pause", run.id)
    assert (again.exit_code, "already paused" in again.stderr) == (1, True)

    listed = json.loads(command("runs", "list", "--paused", "--json").stdout)
    assert [each["id"] for each in listed] == [run.id]
    assert f"{run.id}  running, paused" in command("runs", "list").stdout
    shown = json.loads(command("runs", "show", run.id, "--json").stdout)
    (cause,) = shown["paused_by"]
    assert (cause["kind"], cause["name"], cause["reason"]) == ("run", None, "a strike")
    assert "the run itself: a strike" in command("runs", "show", run.id).stdout

    assert json.loads(command("runs", "resume", run.id, "--json").stdout) == {"id": run.id, "resumed": True}
    refused = command("runs", "resume", run.id)
    assert (refused.exit_code, "not paused by itself" in refused.stderr) == (1, True)
    assert command("runs", "list", "--paused", "--json").stdout == "[]\n"


def test_runs_are_paused_with_their_child_runs(yard, loading, batch):
    """By id and by a filter: the runs are named and counted, and their children are paused too."""
    run, child = loading
    with yard.engine.store.begin() as tx:
        tx.execute(sa.update(schema.runs).where(schema.runs.c.id == child.id).values(parent_run_id=run.id))
    assert command("runs", "pause", run.id, "--children").stdout == f"Run {run.id} is paused.\n"
    assert (run.paused, child.paused) == (True, True)
    assert json.loads(command("runs", "resume", run.id, "--children", "--json").stdout) == {
        "id": run.id,
        "resumed": True,
    }
    assert (run.paused, child.paused) == (False, False)
    assert json.loads(command("runs", "pause", *batch, "--children", "--yes", "--json").stdout)["paused"] >= 1
    assert (run.paused, child.paused) == (True, True)
    command("runs", "resume", *batch, "--children")
    assert (run.paused, child.paused) == (False, False)


def test_runs_are_paused_by_a_filter(loading, batch):
    """A dry run changes nothing and names them; without --yes the command asks; a resume needs none."""
    wanted = ("runs", "pause", "--name", "yard.loading", "--since", "1h", *batch)
    dry = json.loads(command(*wanted, "--dry-run", "--json").stdout)
    assert (dry["count"], set(dry["runs"])) == (2, {run.id for run in loading})
    assert command(*wanted, "--dry-run").stdout.startswith("2 runs would be paused.\n")
    assert command(*wanted).exit_code == 1
    assert not any(run.paused for run in loading)

    assert json.loads(command(*wanted, "--yes", "--json").stdout) == {"paused": 2}
    assert all(run.paused for run in loading)
    assert "2 runs would be resumed, 100 a second." in command("runs", "resume", *batch, "--dry-run").stdout
    assert json.loads(command("runs", "resume", *batch, "--json").stdout) == {"resumed": 2}
    assert not any(run.paused for run in loading)


@pytest.mark.parametrize("args", [(), ("0" * 32, "--name", "yard.loading"), ("0" * 32, "--dry-run")])
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_runs_are_named_or_chosen(yard, verb, args):
    """Not both, and not neither."""
    refused = command("runs", verb, *args)
    assert (refused.exit_code, "Name the runs" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    "what",
    [
        ("runs", "pause", "0" * 32),
        ("runs", "pause", "--name", "yard.loading", "--yes"),
        ("workflows", "pause", "yard.loading"),
        ("queues", "pause", "cranes"),
        ("receivers", "pause", "cranes"),
    ],
)
def test_a_reason_that_is_too_long_is_a_usage_error(yard, what):
    """1,000 characters are the most that a pause takes: exit code 2, and the message says so."""
    refused = command(*what, "--reason", "x" * 1_001)
    assert (refused.exit_code, "1 to 1000 characters" in refused.stderr) == (2, True)


def test_a_workflow_and_a_queue_are_paused_by_name(loading):
    """`durable pauses` lists them; an unknown workflow is refused with what is near."""
    assert command("workflows", "pause", "yard.loading", "--reason", "a bad deploy").exit_code == 0
    assert (
        command("queues", "pause", "cranes", "--json").stdout == '{"kind": "queue", "name": "cranes", "paused": true}\n'
    )
    assert [run.paused for run in loading] == [True, True]
    listed = {each["kind"]: each for each in json.loads(command("pauses", "--json").stdout)}
    assert listed["workflow"]["name"] == "yard.loading"
    assert listed["workflow"]["runs"] >= 2
    assert listed["workflow"]["reason"] == "a bad deploy"
    table = command("pauses").stdout
    assert "yard.loading  paused" in table
    assert "cranes" in table

    twice = command("workflows", "pause", "yard.loading")
    assert (twice.exit_code, "paused already" in twice.stderr) == (1, True)
    unknown = command("workflows", "pause", "yard.loadin")
    assert (unknown.exit_code, "yard.loading" in unknown.stderr) == (1, True)
    own = command("runs", "resume", loading[0].id)
    assert "`durable pauses` shows what pauses it" in own.stderr

    for kind, name in (("workflows", "yard.loading"), ("queues", "cranes")):
        assert command(kind, "resume", name).exit_code == 0
        assert command(kind, "resume", name).exit_code == 1
    assert not any(run.paused for run in loading)


def test_runs_are_cancelled_by_a_filter_with_a_dry_run(yard, loading, batch):
    """As pauses are."""
    wanted = ("runs", "cancel", *batch)
    assert json.loads(command(*wanted, "--dry-run", "--json").stdout)["count"] == 2
    assert json.loads(command(*wanted, "--yes", "--json").stdout) == {"cancelled": 2}
    settle(yard.engine, *loading)
    assert {run.status for run in loading} == {"cancelled"}
