"""Symptoms of docs/how-to/runbook.md: each is produced, seen on the command line, and ended as the page says."""

from __future__ import annotations

import json
import re
import shlex
import sys
import types
from pathlib import Path

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from driving import restart, settle

from durable import create_hook, sleep, step, workflow
from durable.attempts.outcome import give_up
from durable.cli import main
from durable.recovery.housekeeping import Housekeeping
from durable.store import claimed_attempts, schema
from durable.turns.drive import drive

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "runbook.md"
SECTIONS = dict(
    part.split("\n", 1)  # its title, and its text
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
)

#: Which release of ``ordering`` is deployed.
deployed = {"release": "first"}


@step(name="runbook.charge")
def charge(amount: int) -> int:
    return amount


@step(name="runbook.check")
def check() -> None:
    """What a careless release does first."""


@step(name="runbook.pay", semantics="at_most_once")
def pay(amount: int) -> dict[str, int]:
    return {"paid": amount}


@workflow(name="runbook.ordering")
async def ordering(token: str) -> int:
    if deployed["release"] == "careless":
        await check()
    charged = await charge(5)
    await create_hook(token=token)
    return charged


@workflow(name="runbook.paying")
async def paying() -> dict[str, int]:
    return await pay(5)


@workflow(name="runbook.napping")
async def napping() -> None:
    await sleep("1h")


@pytest.fixture(autouse=True)
def first_release():
    deployed["release"] = "first"


@pytest.fixture
def durable(engine, monkeypatch):
    """The command, for this engine."""
    module = types.ModuleType("runbook_app")
    module.engine = engine
    monkeypatch.setitem(sys.modules, "runbook_app", module)
    monkeypatch.setenv("DURABLE_APP", "runbook_app")

    def run(*args):
        return CliRunner().invoke(main, args, prog_name="durable")

    return run


@pytest.fixture
def worker(engine):
    """A live worker of the default queue: this process."""
    housekeeping = Housekeeping(engine)
    housekeeping._beat()
    yield housekeeping
    housekeeping._unregister()


def faults(durable):
    """The checks of the doctor that fail."""
    return {check["name"] for check in json.loads(durable("doctor", "--json").stdout)["checks"] if not check["ok"]}


def listed(durable, status):
    return {run["id"] for run in json.loads(durable("runs", "list", "--status", status, "--json").stdout)}


def test_runs_do_not_start(engine, durable):
    """Without a worker a run stays pending, and every command says so; with one it starts by itself."""
    run = engine.start(napping)

    assert run.id in listed(durable, "pending")
    assert re.search(
        r"^turn +r +runbook.napping +waiting for .*no live worker",
        durable("runs", "show", run.id).stdout,
        re.MULTILINE,
    )
    assert "No worker process has sent a heartbeat" in durable("top").stdout
    assert {"workers", "names"} <= faults(durable)

    housekeeping = Housekeeping(engine)
    housekeeping._beat()
    assert not {"workers", "names"} & faults(durable)
    settle(engine, run)
    assert listed(durable, "pending") == set()
    housekeeping._unregister()


def block(engine):
    """A run of the first release that the second one blocks."""
    run = engine.start(ordering, "a-token")
    settle(engine, run)
    deployed["release"] = "careless"
    restart(engine)
    engine.resume_hook("a-token", None)
    settle(engine, run)
    return run


def test_a_run_is_blocked(engine, durable, caplog):
    """The list, the reason and the log name it; when the cause is gone, a retry lets it continue."""
    run = block(engine)

    assert listed(durable, "blocked") == {run.id}
    assert "no longer matches its log at r#1" in durable("runs", "show", run.id).stdout
    assert f"Run {run.id} is blocked." in caplog.text

    deployed["release"] = "first"
    assert durable("runs", "retry", run.id).exit_code == 0
    settle(engine, run)
    assert listed(durable, "blocked") == set()
    assert run.result(timeout=1) == 5


def test_after_a_deploy_runs_block(engine, durable, worker):
    """The doctor counts them; after the right code is deployed, one command retries all of them."""
    run = block(engine)
    assert "blocked" in faults(durable)

    deployed["release"] = "first"
    restart(engine)
    done = durable("runs", "retry", "--all", "--name", "runbook.ordering", "--json")
    settle(engine, run)

    assert json.loads(done.stdout) == {"retried": 1}
    assert "blocked" not in faults(durable)
    assert run.status == "completed"


def test_a_step_is_in_doubt(engine, durable, worker, caplog):
    """The run is blocked, and says why; the outcome that a person records lets it continue."""
    run = engine.start(paying)
    drive(engine, run.id)
    with engine.store.begin() as tx:
        mine = sa.update(schema.steps).where(schema.steps.c.run_id == run.id)
        claimed = {"status": "claimed", "claim": "c", "worker_id": "gone", "claimed_at": engine.now()}
        tx.execute(mine.values(semantics="at_most_once", **claimed))
    with engine.store.read() as tx:
        held = claimed_attempts.find(tx, run.id, "r#1")
    give_up(engine, held)

    shown = durable("runs", "show", run.id).stdout
    assert "is in doubt" in shown
    assert "? attempt in doubt" in shown
    assert f"Run {run.id} is blocked: attempt 1 of runbook.pay is in doubt." in caplog.text
    assert "doubts" in faults(durable)

    assert durable("runs", "resolve", run.id, "--result", '{"paid": 5}').exit_code == 0
    settle(engine, run)
    assert run.result(timeout=1) == {"paid": 5}
    assert "doubts" not in faults(durable)


def test_a_run_waits_and_nobody_knows_for_what(engine, durable, worker):
    """`runs show` names the hook, `hooks resume` sends it a payload, and the run continues."""
    run = engine.start(ordering, "a-token")
    settle(engine, run)

    assert re.search(r"^hook +r#2 +a-token +a payload$", durable("runs", "show", run.id).stdout, re.MULTILINE)
    assert "a-token" in durable("hooks", "list", "--run", run.id).stdout

    assert durable("hooks", "resume", "a-token", '{"approved": true}').exit_code == 0
    settle(engine, run)
    assert durable("runs", "watch", run.id).exit_code == 0


def test_timers_are_late(engine, durable, worker):
    """A sleep that nobody ends is overdue in the timeline; `runs wake` ends it."""
    run = engine.start(napping)
    settle(engine, run)
    with engine.store.begin() as tx:
        mine = sa.update(schema.waits).where(schema.waits.c.run_id == run.id)
        tx.execute(mine.values(due_at=engine.now() - 90_000_000))

    assert re.search(r"^r#1 +sleep .*overdue 1 min", durable("runs", "show", run.id).stdout, re.MULTILINE)

    assert durable("runs", "wake", run.id).exit_code == 0
    settle(engine, run)
    assert run.status == "completed"


def test_the_backlog_grows(engine, durable, worker):
    """`top` shows how many steps wait, since when, and that no process consumes their queue."""
    runs = [engine.start(ordering, f"token-{number}") for number in range(3)]
    for run in runs:
        drive(engine, run.id)
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.steps).values(queue="slow", sent_at=engine.now() - 600_000_000))

    assert re.search(r"^slow +3 +10 min 0 s +0$", durable("top").stdout, re.MULTILINE)

    settle(engine, *runs)
    assert not re.search(r"^slow ", durable("top").stdout, re.MULTILINE)


@pytest.mark.parametrize("title", SECTIONS)
def test_each_symptom_names_tests_that_exist(title):
    """A section has at least one, by file and name."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", SECTIONS[title])

    assert named
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name


@pytest.mark.parametrize("title", SECTIONS)
def test_each_symptom_says_what_to_do_and_when_it_is_over(title):
    """The parts of a section, in order."""
    places = [SECTIONS[title].find(part) for part in ("**What you see", "**It is over**", "*Test")]

    assert -1 not in places
    assert places == sorted(places)


def commands():
    """Every command on the page that begins with ``durable``, in a line of its own or within text."""
    text = PAGE.read_text()
    return sorted(set(re.findall(r"^(durable .+)$", text, re.MULTILINE) + re.findall(r"`(durable [a-z][^`]*)`", text)))


@pytest.mark.parametrize("command", commands())
def test_each_command_is_one_that_the_command_line_has(command):
    """Its name and options exist, and its arguments are as many as it takes."""
    found, words = main, shlex.split(command)[1:]
    while isinstance(found, click.Group):
        found = found.get_command(click.Context(found), words.pop(0))
        assert found is not None
    with click.Context(found, info_name=command) as context:
        assert found.parse_args(context, words) == []
