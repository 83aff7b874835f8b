"""``durable runs fork``: one run, several, or all that have failed; and what a dry run says."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from click.testing import CliRunner, Result
from driving import settle

from durable import Run
from durable.cli import main
from durable.client import describe


def forking(*args: str) -> Result:
    return CliRunner().invoke(main, ["runs", "fork", *args], prog_name="durable")


@pytest.fixture
def dropped(yard, monkeypatch):
    """Two runs that have failed; their step would not fail any more."""
    runs = [yard.engine.start(yard.module.dropping, note) for note in ("a", "b")]
    settle(yard.engine, *runs)
    assert [run.status for run in runs] == ["failed"] * 2
    monkeypatch.setattr(yard.module.drop, "body", lambda note: note)
    return runs


def result_of(yard: Any, fork_id: str) -> Any:
    run: Run[Any] = yard.engine.get_run(fork_id)
    settle(yard.engine, run)
    return run.result(timeout=1)


def test_a_run_is_forked(yard, dropped):
    """The sentence and the JSON have the new run; so has `runs show` of the old one."""
    shown = json.loads(forking(dropped[0].id[:20], "--json").stdout)
    assert result_of(yard, shown["fork"]) == "a"
    said = forking(dropped[0].id, "--from", "yard.drop").stdout
    (_, second) = describe.describe(yard.engine, dropped[0].id)["forks"]
    assert said == f"Run {second} goes on where run {dropped[0].id} has stood.\n"
    assert result_of(yard, second) == "a"
    assert describe.describe(yard.engine, second)["forked_from"] == dropped[0].id


def test_all_that_have_failed_are_forked(yard, dropped):
    """A dry run changes nothing; without --yes the command asks."""
    wanted = ("--failed", "--name", "yard.dropping", "--since", "1h")
    dry = json.loads(forking(*wanted, "--dry-run", "--json").stdout)
    mine = {run.id for run in dropped}
    assert {(row["from_step"], row["fork"]) for row in dry if row["id"] in mine} == {("r#1", None)}
    assert "would be forked behind its event" in forking(*wanted, "--dry-run").stdout
    assert describe.describe(yard.engine, dropped[0].id)["forks"] == []
    refused = forking(*wanted)
    assert (refused.exit_code, describe.describe(yard.engine, dropped[0].id)["forks"]) == (1, [])

    done = json.loads(forking(*wanted, "--yes", "--json").stdout)
    assert {result_of(yard, row["fork"]) for row in done if row["id"] in mine} == {"a", "b"}


def test_failed_runs_are_chosen_by_an_attribute(yard):
    """Of two that have failed, only the one that has it."""
    batch = secrets.token_hex(8)
    labelled, other = yard.module.dropping.with_options(attributes={"batch": batch}), yard.module.dropping
    runs = [each.start("c") for each in (labelled, other)]
    settle(yard.engine, *runs)

    dry = json.loads(forking("--failed", "--attribute", f"batch={batch}", "--dry-run", "--json").stdout)
    assert [row["id"] for row in dry] == [runs[0].id]


def test_one_that_is_refused_does_not_stop_the_others(yard, dropped):
    waits = yard.engine.start(yard.module.nap)
    settle(yard.engine, waits)
    done = forking(waits.id, dropped[1].id)
    assert done.exit_code == 1
    assert f"where run {dropped[1].id} has stood" in done.stdout
    assert "has not failed at a step" in done.stderr
    assert forking(waits.id, "--from-event", "1").exit_code == 0
    retried = CliRunner().invoke(main, ["runs", "retry", dropped[0].id], prog_name="durable")
    assert f"durable runs fork {dropped[0].id}" in retried.output


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["a", "--failed"],
        ["a", "--since", "1h"],
        ["a", "--attribute", "b=c"],
        ["a", "--from", "x", "--from-event", "1"],
    ],
)
def test_a_command_that_says_too_little_or_too_much_is_refused(yard, args):
    assert forking(*args).exit_code == 2
