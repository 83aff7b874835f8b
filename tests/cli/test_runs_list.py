"""The list of runs: times as people read them, ids by their beginning, and the list that follows."""

from __future__ import annotations

import json
import re
import signal

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from driving import settle

from durable.cli import main
from durable.store import schema


@pytest.fixture
def durable(yard):
    """The command, run in this process."""

    def run(*args: str):
        return CliRunner().invoke(main, args, prog_name="durable")

    return run


def made(yard, run_id: str, *, age_secs: int = 0, lasted_secs: int | None = None):
    """A run with this id; ``age_secs`` ago it was created, and ``lasted_secs`` later it ended."""
    run = yard.module.nap.with_options(run_id=run_id).start("a note")
    created = yard.engine.now() - age_secs * 1_000_000
    changes = {"created_at": created}
    if lasted_secs is not None:
        changes |= {"completed_at": created + lasted_secs * 1_000_000, "status": "completed"}
    with yard.engine.store.begin() as tx:
        tx.execute(sa.update(schema.runs).where(schema.runs.c.id == run_id).values(**changes))
    return run


def test_the_list_has_times_as_people_read_them(yard, durable):
    """How long ago a run was created, and how long it took; exact times only with --json."""
    made(yard, "times-1", age_secs=150, lasted_secs=72)
    listed = durable("runs", "list").stdout
    row = next(line for line in listed.splitlines() if line.startswith("times-1"))
    (exact,) = (run for run in json.loads(durable("runs", "list", "--json").stdout) if run["id"] == "times-1")

    assert listed.split("\n")[0].split() == ["id", "status", "created", "took", "workflow"]
    assert re.split(r" {2,}", row) == ["times-1", "completed", "2 min ago", "1 min 12 s", "yard.nap"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", exact["created_at"])


def test_show_has_times_as_people_read_them(yard, durable):
    """A time to the second, and how far it is from now."""
    made(yard, "times-2", age_secs=150)
    shown = durable("runs", "show", "times-2").stdout

    assert re.search(r"^created_at +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, 2 min ago$", shown, re.MULTILINE)


@pytest.mark.parametrize("command", ["show", "cancel", "wake"])
def test_the_beginning_of_an_id_is_enough(yard, durable, command):
    """Where only one run's id begins with it; JSON has the whole id."""
    run = made(yard, f"{command.encode().hex()}01a2")
    done = durable("runs", command, run.id[:-3], "--json")

    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["id"] == run.id


def test_an_ambiguous_beginning_lists_the_runs_that_it_means(yard, durable):
    """The command is refused and nothing is done; the message has the ids to choose from."""
    runs = [made(yard, f"fade0{number}") for number in range(2)]
    refused = durable("runs", "cancel", runs[0].id, "fade")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Several runs have ids that begin with 'fade'" in refused.stderr
    assert all(f"{run.id}  pending  yard.nap" in refused.stderr for run in runs)
    assert {run.status for run in runs} == {"pending"}


def test_a_whole_id_is_never_ambiguous(yard, durable):
    """A run is found by its id although another id begins with it."""
    short, _ = made(yard, "beef"), made(yard, "beef01")

    assert json.loads(durable("runs", "show", "beef", "--json").stdout)["id"] == short.id


@pytest.mark.parametrize("given", ["0000", "times", "%"])
def test_a_beginning_that_no_run_has_is_an_unknown_run(yard, durable, given):
    """Only ids that durable makes have beginnings: ``times`` means no run although ``times-3`` exists."""
    made(yard, "times-3")
    refused = durable("runs", "show", given)

    assert refused.exit_code == 1
    assert f"{given!r}" in refused.stderr


@pytest.mark.slow
def test_follow_prints_a_line_for_each_change(yard):
    """Without a terminal, a run is a line when it appears, and again when its status changes, until Ctrl-C."""
    with yard.started("runs", "list", "--follow", "--interval", "0.1", "--limit", "1", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        run = yard.engine.start(yard.module.nap, "followed")
        first = json.loads(process.stdout.readline())
        settle(yard.engine, run)
        second = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert (first["id"], first["status"]) == (run.id, "pending")
    assert (second["id"], second["status"]) == (run.id, "running")
    assert (process.returncode, errors) == (0, "")


@pytest.mark.slow
def test_follow_redraws_a_terminal(yard):
    """A terminal shows the list on its second screen, and Ctrl-C brings the first one back."""
    run = made(yard, "drawn-1")
    with yard.on_terminal("runs", "list", "--follow", "--interval", "0.1") as followed:
        followed.read_until("drawn-1", "pending")
        run.cancel()
        settle(yard.engine, run)
        followed.read_until("cancelled")
        followed.press(b"\x03")
        assert followed.end() == 0

    assert "\x1b[?1049l" in followed.text
