"""The command line: what it prints where, and its exit codes."""

import json
import sys
import uuid

import click
import pytest
from click.testing import CliRunner

from durable.cli import main
from durable.drive import drive

SHOP = """
from celery import Celery
from durable import Durable, create_hook, sleep, workflow

celery = Celery("shop", broker="memory://")
engine = Durable(celery, public_url="https://shop.example")

@workflow
async def order(item: str, count: int = 1) -> dict:
    await sleep("1h")
    return {"item": item, "count": count}

@workflow
async def approval(token: str) -> str:
    return await create_hook(token=token)
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with an application in it, ``shop.py``, and a database."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    (folder / "empty.py").write_text("")
    (folder / "broken.py").write_text("import no_such_library\n")
    yield folder
    sys.modules.pop("shop", None)


@pytest.fixture
def durable(shop, monkeypatch):
    """The command, run in the shop's folder."""
    monkeypatch.chdir(shop)
    monkeypatch.syspath_prepend(str(shop))
    monkeypatch.setenv("DURABLE_APP", "shop")

    def run(*args):
        return CliRunner().invoke(main, args, prog_name="durable")

    return run


@pytest.fixture
def engine(durable):
    """The shop's engine, its database made."""
    assert durable("migrate").exit_code == 0
    return sys.modules["shop"].engine


def start(durable, workflow, *args):
    return json.loads(durable("start", workflow, json.dumps(args), "--json").stdout)["id"]


def test_a_started_run_is_committed_and_pending(durable, engine):
    """`start` prints the run's id, and nothing else."""
    started = durable("start", "shop:order", '["tea"]')
    shown = json.loads(durable("runs", "show", started.stdout.strip(), "--json").stdout)

    assert started.exit_code == 0
    assert (shown["status"], shown["name"]) == ("pending", "shop.order")


def test_arguments_may_be_an_object(durable, engine):
    """`runs show` has the arguments by parameter name, whichever way they were given."""
    started = json.loads(durable("start", "shop:order", '{"item": "tea", "count": 2}', "--json").stdout)
    shown = json.loads(durable("runs", "show", started["id"], "--json").stdout)

    assert shown["args"] == {"item": "tea", "count": 2}
    names = {
        "id",
        "name",
        "status",
        "args",
        "result",
        "error",
        "created_at",
        "started_at",
        "completed_at",
        "attributes",
    }
    assert names <= set(shown)


def test_the_same_key_starts_nothing_new(durable, engine):
    """An idempotency key gives the run that it started; with other arguments it is refused."""
    key = ("--idempotency-key", uuid.uuid4().hex)
    first, again = (durable("start", "shop:order", '["tea"]', *key).stdout for _ in range(2))
    other = durable("start", "shop:order", '["coffee"]', *key)

    assert first == again
    assert (other.exit_code, other.stdout) == (1, "")
    assert "with other arguments" in other.stderr


def test_arguments_that_do_not_fit_are_refused(durable, engine):
    """The message is Python's own."""
    refused = durable("start", "shop:order", "[]")

    assert refused.exit_code == 1
    assert "missing a required argument: 'item'" in refused.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("start", "shop:order", "tea"), "is not JSON"),
        (("start", "shop:order", '"tea"'), "must be a JSON list"),
        (("start", "shop:nothing"), "Module 'shop' has no 'nothing'"),
        (("start", "order"), "write MODULE:NAME"),
        (("start", "nowhere:order"), "There is no module 'nowhere'"),
        (("runs", "show"), "Missing argument 'ID'"),
        (("--app", "nowhere", "runs", "list"), "There is no module 'nowhere'"),
        (("--app", "empty:engine", "runs", "list"), "has no 'engine'"),
        (("--app", "shop:order", "runs", "list"), "shop:order is no durable engine"),
        (("--app", "./shop", "runs", "list"), "is not a module's name"),
        (("hooks", "resume", "token", "{"), "is not JSON"),
    ],
)
def test_wrong_usage_ends_with_2(durable, engine, args, message):
    """What was mistyped is said on stderr."""
    result = durable(*args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_module_that_imports_what_is_missing_keeps_its_traceback(durable):
    """`No module named no_such_library` is not "there is no module broken"."""
    result = durable("--app", "broken", "runs", "list")

    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == "no_such_library"


def test_a_module_that_names_an_engine_made_elsewhere_will_do(durable, engine):
    """Without an engine of its own a module stands for the one made last."""
    assert durable("--app", "empty", "runs", "list").exit_code == 0


@pytest.mark.parametrize("args", [("show",), ("cancel",), ("wake",), ("retry",)])
def test_an_unknown_run_is_refused(durable, engine, args):
    """Exit code 1, with the id and the likely cause."""
    result = durable("runs", *args, "nobody")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no run 'nobody'" in result.stderr


def test_a_sleeping_run_is_woken(durable, engine):
    """`wake` ends the sleep, and the run completes."""
    run_id = start(durable, "shop:order", "tea")
    drive(engine, run_id)
    woken = json.loads(durable("runs", "wake", run_id, "--json").stdout)
    drive(engine, run_id)
    shown = json.loads(durable("runs", "show", run_id, "--json").stdout)

    assert woken == {"id": run_id, "woken": 1}
    assert (shown["status"], shown["result"]) == ("completed", {"item": "tea", "count": 1})


def test_what_has_ended_is_neither_woken_nor_cancelled(durable, engine):
    """The message says what the run is."""
    run_id = start(durable, "shop:order", "tea")
    assert durable("runs", "cancel", run_id, "--reason", "a test").exit_code == 0
    drive(engine, run_id)

    for command in ("cancel", "wake", "retry"):
        result = durable("runs", command, run_id)
        assert result.exit_code == 1
        assert "cancelled" in result.stderr


def test_a_hook_is_listed_and_resumed(durable, engine):
    """The payload is committed when `resume` returns."""
    token = uuid.uuid4().hex
    run_id = start(durable, "shop:approval", token)
    drive(engine, run_id)
    listed = json.loads(durable("hooks", "list", "--run", run_id, "--json").stdout)
    resumed = durable("hooks", "resume", token, '"yes"', "--json")
    drive(engine, run_id)

    assert [hook["token"] for hook in listed] == [token]
    assert (resumed.exit_code, json.loads(resumed.stdout)) == (0, {"run_id": run_id})
    assert engine.get_run(run_id).result(timeout=1) == "yes"


def test_an_unknown_token_is_refused(durable, engine):
    """Exit code 1."""
    result = durable("hooks", "resume", "nobody", "1")

    assert result.exit_code == 1
    assert "No open hook has the token 'nobody'" in result.stderr


def test_runs_are_listed_newest_first(durable, engine):
    """As a table for people, as JSON for programs; --limit bounds both."""
    ids = [start(durable, "shop:order", "tea") for _ in range(3)]
    listed = json.loads(durable("runs", "list", "--name", "shop.order", "--limit", "2", "--json").stdout)
    table = durable("runs", "list", "--limit", "2").stdout.splitlines()

    assert [run["id"] for run in listed] == ids[:0:-1]
    assert [line.split()[0] for line in table] == ["id", *ids[:0:-1]]


def test_doctor_says_what_is_missing(durable, engine):
    """No worker runs here: that is found, and all the rest is well."""
    result = durable("doctor", "--json")
    report = json.loads(result.stdout)

    assert (result.exit_code, report["ok"]) == (1, False)
    assert {check["name"]: check["ok"] for check in report["checks"]} == {
        "database": True,
        "broker": True,
        "public_url": True,
        "workers": False,
    }
    assert "Start one" in durable("doctor").stdout


def test_dev_without_an_application_shows_how_to_begin(durable):
    """The program to write is shown, and the exit code is that of wrong usage."""
    result = durable("--app", "nowhere", "dev")

    assert result.exit_code == 2
    assert "celery = Celery(" in result.stderr


def test_every_command_that_reports_has_json(durable):
    """What a program would call, it can read."""
    without = {"dev", "migrate"}
    lacking = [
        name
        for group in (main, main.commands["runs"], main.commands["hooks"])
        for name, command in group.commands.items()
        if not isinstance(command, click.Group) and "as_json" not in {parameter.name for parameter in command.params}
    ]

    assert set(lacking) == without
