"""The command line: what it prints where, and its exit codes."""

import importlib
import importlib.metadata
import json
import platform
import re
import sys
import uuid

import celery
import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from servers import DATABASES, new_database

from durable import registry
from durable.attempts.outcome import give_up
from durable.cli import main
from durable.store import claimed_attempts, schema
from durable.turns.drive import drive

SHOP = """
from celery import Celery
import asyncio
from durable import Durable, create_hook, create_webhook, set_attributes, sleep, step, workflow

celery = Celery("shop", broker="memory://")
engine = Durable(celery, public_url="https://shop.example")

@workflow
async def order(item: str, count: int = 1) -> dict:
    await sleep("1h")
    return {"item": item, "count": count}

@workflow
async def delivery() -> None:
    webhook = create_webhook()
    await asyncio.gather(webhook, sleep("1h"))

@workflow
async def approval(token: str) -> str:
    return await create_hook(token=token)

@workflow
async def labelled(customer: str, phase: str) -> None:
    set_attributes(customer=customer, phase=phase)

@step(semantics="at_most_once")
def pay(amount: int) -> dict[str, int]:
    return {"paid": amount}

@workflow
async def payment(amount: int) -> dict[str, int]:
    return await pay(amount)
"""


@pytest.fixture(scope="module", params=DATABASES)
def shop_database(request, tmp_path_factory):
    """The URL of a database of the shop's own."""
    with new_database(request.param, tmp_path_factory.mktemp("database")) as url:
        yield url


@pytest.fixture(scope="module")
def shop(tmp_path_factory, shop_database):
    """A folder with an application in it, ``shop.py``, imported here too."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    (folder / "empty.py").write_text("")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(folder))
        patched.setenv("DURABLE_DATABASE_URL", shop_database)
        importlib.import_module("shop").engine.migrate()
    yield folder
    sys.modules.pop("shop").engine.close()
    for name in [name for name in registry.workflows if name.startswith("shop.")]:
        del registry.workflows[name]
    registry.steps.pop("shop.pay", None)


@pytest.fixture
def durable(shop, shop_database, monkeypatch):
    """The command, run in the shop's folder."""
    monkeypatch.chdir(shop)
    monkeypatch.syspath_prepend(str(shop))
    monkeypatch.setenv("DURABLE_APP", "shop")
    monkeypatch.setenv("DURABLE_DATABASE_URL", shop_database)

    def run(*args):
        return CliRunner().invoke(main, args, prog_name="durable")

    return run


@pytest.fixture
def engine(durable):
    """The shop's engine."""
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


def test_arguments_that_do_not_fit_the_annotations_are_refused(durable, engine):
    """By their path, before a run is started that could only fail."""
    refused = durable("start", "shop:order", '["tea", "many"]')

    assert refused.exit_code == 1
    assert "shop:order was not started: args.count" in refused.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("start", "shop:order", "tea"), "is not JSON"),
        (("start", "shop:order", '"tea"'), "must be a JSON list"),
        (("start", "shop:nothing"), "Module 'shop' has no 'nothing'"),
        (("start", "order"), "Write MODULE:NAME"),
        (("start",), "Name a workflow, or a run with --like ID"),
        (("start", "shop:order", "--like", "a"), "Name a workflow, or a run with --like ID"),
        (("start", "shop:order", '["tea"]', "--countdown", "soon"), "malformed"),
        (("start", "shop:order", "[" * 100_000), "is not JSON"),
        (("runs", "list", "--status", "asleep"), "'asleep' is not one of"),
        (("runs", "list", "--since", "-1h"), "malformed"),
        (("runs", "list", "--limit", "0"), "0 is not in the range"),
        (("runs", "cancel"), "Name the runs to cancel by ID, or choose them"),
        (("runs", "cancel", "a", "--status", "running"), "Name the runs to cancel by ID, or choose them"),
        (("runs", "cancel", "--status", "failed"), "'failed' is not one of"),
        (("runs", "retry"), "Name the runs to retry by ID, or use --all"),
        (("runs", "retry", "--name", "shop.order"), "use --all"),
        (("runs", "resolve", "a"), "Give either --result JSON or --fail MESSAGE"),
        (("runs", "resolve", "a", "--result", "1", "--fail", "x"), "Give either --result"),
        (("runs", "resolve", "a", "--result", "{"), "is not JSON"),
        (("start", "nowhere:order"), "There is no module 'nowhere'"),
        (("runs", "show"), "Missing argument 'ID'"),
        (("--app", "nowhere", "runs", "list"), "There is no module 'nowhere'"),
        (("--app", "empty:engine", "runs", "list"), "has no 'engine'"),
        (("--app", "shop:order", "runs", "list"), "shop:order is not a durable engine"),
        (("--app", "./shop", "runs", "list"), "is not the name of a module"),
        (("hooks", "resume", "token", "{"), "is not JSON"),
        (("runs", "list", "--attribute", "customer"), "--attribute customer=acme"),
        (("runs", "list", "--attribute", "=acme"), "is not NAME=VALUE"),
        (("runs", "list", "--attribute", "a=1", "--attribute", "a=2"), "a run cannot have both '1' and '2'"),
    ],
)
def test_wrong_usage_ends_with_2(durable, engine, args, message):
    """What was mistyped is said on stderr."""
    result = durable(*args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise ValueError('a table of one column')", "ValueError: a table of one column"),
        ("len(3)", "TypeError: object of type 'int' has no len()"),
        ("from durable import step\n@step(retries=3)\ndef f(): ...", "TypeError: @step has no option 'retries'"),
        ("def f(:", "SyntaxError: invalid syntax"),
    ],
)
@pytest.mark.parametrize("args", [("runs", "list"), ("start", "broken:f")])
def test_an_error_of_importing_the_application_is_shown_as_it_is(durable, shop, source, shown, args):
    """Python's traceback from the author's first line on, whichever command imports the module; exit code 1."""
    (shop / "broken.py").write_text(source)
    app = "broken" if args[0] == "runs" else "shop"
    result = durable("--app", app, *args)

    assert (result.exit_code, result.stdout) == (1, "")
    first, *lines = result.stderr.rstrip().splitlines()
    assert shown in lines[-1] if lines else shown in first
    assert 'broken.py", line' in result.stderr
    assert "durable/cli" not in result.stderr


@pytest.mark.parametrize("name", ["wörker app", "worker/app.py", "..app", "app-1", ""])
def test_a_name_that_no_module_can_have_is_said_so(durable, name):
    """The exit code is that of a wrong command line, and the message has an example."""
    result = durable("--app", name or ":engine", "runs", "list")

    assert result.exit_code == 2
    assert "is not the name of a module.  Write a name such as worker.app." in result.stderr


def test_a_module_that_names_an_engine_made_elsewhere_will_do(durable, engine):
    """Without an engine of its own a module stands for the one made last."""
    assert durable("--app", "empty", "runs", "list").exit_code == 0


@pytest.mark.parametrize("args", [("show",), ("cancel",), ("wake",), ("retry",), ("resolve", "--fail=x")])
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


def test_c72_what_has_ended_is_neither_woken_nor_cancelled(durable, engine):
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


def test_c104_a_workflow_is_started_by_its_name(durable, engine):
    """The name is the one that `runs list` shows."""
    started = json.loads(durable("start", "shop.order", '["tea"]', "--json").stdout)

    assert started["name"] == "shop.order"


def test_c104_a_run_is_started_again_like_another(durable, engine):
    """Another run, of the same workflow, with the same arguments and on the same queue."""
    run_id = json.loads(durable("start", "shop:order", '["tea", 3]', "--queue", "slow", "--json").stdout)["id"]
    again = json.loads(durable("start", "--like", run_id, "--json").stdout)
    shown = json.loads(durable("runs", "show", again["id"], "--json").stdout)

    assert again["id"] != run_id
    assert (shown["name"], shown["args"]) == ("shop.order", {"item": "tea", "count": 3})
    with engine.store.read() as tx:
        assert tx.execute(sa.select(schema.runs.c.queue).where(schema.runs.c.id == again["id"])).scalar() == "slow"


def test_starting_a_run_like_one_that_has_called_steps_warns(durable, engine):
    """The steps may have had effects, and the new run's idempotency keys are others; stdout has the id only."""
    run_id = start(durable, "shop:order", "tea")
    drive(engine, run_id)
    without = durable("start", "--like", run_id)
    run_id = start(durable, "shop:payment", 5)
    drive(engine, run_id)
    with_steps = durable("start", "--like", run_id)

    assert without.stderr == ""
    assert re.fullmatch(r"[0-9a-f]+\n", with_steps.stdout)
    assert f"Warning: run {run_id} has called steps: shop.pay." in with_steps.stderr
    assert "other idempotency keys" in with_steps.stderr


def test_a_run_of_a_workflow_that_is_gone_is_not_started_again(durable, engine, monkeypatch):
    """The message names the workflow, and where it should be; so it does for a run that is not there."""
    run_id = start(durable, "shop:order", "tea")
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.runs).where(schema.runs.c.id == run_id).values(name="shop.gone"))
    gone, missing = durable("start", "--like", run_id), durable("start", "--like", "nobody")

    assert (gone.exit_code, missing.exit_code) == (1, 1)
    assert "'shop.gone', which this application does not have" in gone.stderr
    assert "There is no run 'nobody'" in missing.stderr


def test_c104_several_runs_are_cancelled_by_id(durable, engine):
    """Each is asked, also after one that is refused; then the exit code is 1 and each outcome is told."""
    first, second = start(durable, "shop:order", "tea"), start(durable, "shop:order", "tea")
    result = durable("runs", "cancel", first, "nobody", second, "--json")
    told = json.loads(result.stdout)
    for run_id in (first, second):
        drive(engine, run_id)

    assert result.exit_code == 1
    assert [(entry["id"], entry["cancelled"]) for entry in told] == [(first, True), ("nobody", False), (second, True)]
    assert "There is no run" in told[1]["error"]
    assert {engine.get_run(run_id).status for run_id in (first, second)} == {"cancelled"}


def test_runs_are_cancelled_by_what_they_are_once_that_is_confirmed(durable, engine):
    """Without --yes and without a terminal nothing happens; with it all runs of the name are asked to stop."""
    ids = [start(durable, "shop:delivery") for _ in range(2)]
    chosen = ("runs", "cancel", "--status", "pending", "--name", "shop.delivery")
    refused = durable(*chosen)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "Cancel 2 runs?" in refused.stderr
    assert {engine.get_run(run_id).status for run_id in ids} == {"pending"}

    done = durable(*chosen, "--yes", "--json")
    for run_id in ids:
        drive(engine, run_id)
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"cancelled": 2})
    assert {engine.get_run(run_id).status for run_id in ids} == {"cancelled"}


def blocked(durable, engine):
    """A run that `shop.order` has blocked with a mistake."""
    run_id = start(durable, "shop:order", "tea")
    with engine.store.begin() as tx:
        block = sa.update(schema.runs).where(schema.runs.c.id == run_id)
        tx.execute(block.values(status="blocked", blocked="(a reason)", blocked_version="old"))
    return run_id


def test_a_retry_says_whether_the_run_continues_or_is_blocked_again(durable, engine, monkeypatch):
    """It waits for the turn; without a worker it says that none has taken it."""
    waiting, continues, again, other = (blocked(durable, engine) for _ in range(4))
    result = durable("runs", "retry", waiting, "--wait", "0s")
    assert (result.exit_code, result.stdout) == (
        0,
        f"Run {waiting} is being retried.  No worker has taken its turn yet.\n",
    )

    # A worker takes the turn at once.
    with monkeypatch.context() as patched:
        patched.setattr(engine, "send_turns", lambda *rows: [drive(engine, row.id) for row in rows])
        assert durable("runs", "retry", continues).stdout == f"Run {continues} continues: it is running.\n"

    def block_again(row):
        with engine.store.begin() as tx:
            in_database = sa.update(schema.runs).where(schema.runs.c.id == row.id)
            tx.execute(in_database.values(blocked="(as before)", blocked_version="new"))

    with monkeypatch.context() as patched:
        patched.setattr(engine, "send_turns", block_again)
        assert durable("runs", "retry", again).stdout == f"Run {again} is blocked again.  (as before)\n"
        result = durable("runs", "retry", other, "nobody", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert told[0] == {"id": other, "retried": True, "error": "(as before)", "status": "blocked"}
    assert told[1]["retried"] is False
    for run_id in (waiting, continues, again, other):
        engine.get_run(run_id).cancel()
        drive(engine, run_id)


def test_all_blocked_runs_of_a_workflow_are_tried_again(durable, engine, monkeypatch):
    """After a deploy one command is enough; it goes through them in pages, and leaves other workflows alone."""
    monkeypatch.setattr("durable.cli.bulk.SIZE", 2)
    ids = [start(durable, "shop:order", "tea") for _ in range(5)]
    other = start(durable, "shop:delivery")
    with engine.store.begin() as tx:
        block = sa.update(schema.runs).where(schema.runs.c.id.in_([*ids, other]))
        tx.execute(block.values(status="blocked", blocked="(a diff)", blocked_version="old"))
    done = durable("runs", "retry", "--all", "--name", "shop.order", "--json")
    with engine.store.read() as tx:
        left = tx.execute(sa.select(schema.runs.c.id).where(schema.runs.c.blocked_version == "old")).scalars().all()

    assert (done.exit_code, json.loads(done.stdout)) == (0, {"retried": 5})
    assert left == [other]


def test_a_step_in_doubt_is_shown_and_resolved(durable, engine):
    """`show` says what happened and what to do; `retry` refuses; what does not fit, or comes again, is refused."""
    run_id = start(durable, "shop:payment", "5")
    drive(engine, run_id)
    with engine.store.begin() as tx:
        claimed = {"status": "claimed", "claim": run_id, "worker_id": "gone", "claimed_at": 1}
        mine = sa.update(schema.steps).where(schema.steps.c.run_id == run_id)
        tx.execute(mine.values(semantics="at_most_once", **claimed))
    with engine.store.read() as tx:
        held = claimed_attempts.find(tx, run_id, "r#1")
    give_up(engine, held)

    shown = durable("runs", "show", run_id)
    assert "is in doubt" in shown.stdout
    assert f"durable runs resolve {run_id}" in shown.stdout
    retried = durable("runs", "retry", run_id)
    assert (retried.exit_code, "blocked by a step in doubt" in retried.stderr) == (1, True)
    misfit = durable("runs", "resolve", run_id, "--result", '"much"')
    assert (misfit.exit_code, "result of shop.pay" in misfit.stderr) == (1, True)
    other = durable("runs", "resolve", run_id, "--step", "r#2", "--fail", "no")
    assert (other.exit_code, "In doubt: r#1 (shop.pay)" in other.stderr) == (1, True)

    resolved = durable("runs", "resolve", run_id, "--result", '{"paid": 5}', "--json")
    assert (resolved.exit_code, json.loads(resolved.stdout)) == (0, {"id": run_id, "step": "r#1"})
    again = durable("runs", "resolve", run_id, "--fail", "no")
    assert (again.exit_code, "nothing to resolve" in again.stderr) == (1, True)
    drive(engine, run_id)
    assert engine.get_run(run_id).result(timeout=1) == {"paid": 5}


def test_c104_show_tells_what_a_run_waits_for_and_its_log(durable, engine):
    """As tables for people, a webhook's token masked there; as lists for programs, the URL whole."""
    run_id = start(durable, "shop:delivery")
    drive(engine, run_id)
    shown = json.loads(durable("runs", "show", run_id, "--events", "--json").stdout)
    table = durable("runs", "show", run_id, "--events").stdout
    token = next(entry["token"] for entry in shown["waiting_for"] if entry["kind"] == "webhook")

    assert sorted(entry["kind"] for entry in shown["waiting_for"]) == ["sleep", "webhook"]
    assert [event["kind"] for event in shown["events"]][:2] == ["run_created", "run_started"]
    assert [event["seq"] for event in shown["events"]] == list(range(1, len(shown["events"]) + 1))
    assert token not in table
    assert re.search(r"^webhook +r\S* +https://shop.example/\S+ +a request$", table, re.MULTILINE)
    assert re.search(r"^1 +\S+ \S+ +run_created +r +shop\.delivery +args \{\}$", table, re.MULTILINE)


def test_c104_runs_are_listed_since(durable, engine):
    """`--since 1h` leaves out what is older."""
    old, new = start(durable, "shop:order", "tea"), start(durable, "shop:order", "tea")
    with engine.store.begin() as tx:
        aged = sa.update(schema.runs).where(schema.runs.c.id == old)
        tx.execute(aged.values(created_at=schema.runs.c.created_at - 7_200_000_000))
    listed = [run["id"] for run in json.loads(durable("runs", "list", "--since", "1h", "--json").stdout)]

    assert new in listed
    assert old not in listed


RUBBISH = (
    "",
    " ",
    "-",
    "\0",
    "a\0b",
    "\udcff",
    "é" * 300,
    "x" * 5000,
    "1e999",
    "nan",
    "{",
    "[[",
    "../..",
    "9" * 18 + "w",
)


@pytest.mark.parametrize(
    "command",
    [
        ("start", "?"),
        ("start", "shop:order", "?"),
        ("start", "--like", "?"),
        ("start", "shop:order", '["tea"]', "--run-id", "?"),
        ("start", "shop:order", '["tea"]', "--idempotency-key", "?"),
        ("start", "shop:order", '["tea"]', "--countdown", "?"),
        ("runs", "list", "--status", "?"),
        ("runs", "list", "--name", "?"),
        ("runs", "list", "--since", "?"),
        ("runs", "list", "--attribute", "?"),
        ("runs", "list", "--attribute", "?=?"),
        ("runs", "list", "--limit", "?"),
        ("runs", "show", "?"),
        ("runs", "cancel", "?"),
        ("runs", "cancel", "?", "?"),
        ("runs", "cancel", "--name", "?"),
        ("runs", "wake", "?"),
        ("runs", "retry", "?"),
        ("runs", "retry", "--all", "--name", "?"),
        ("hooks", "list", "--run", "?"),
        ("hooks", "resume", "?", "1"),
        ("hooks", "resume", "nobody", "?"),
        ("hooks", "resume", "nobody", "1", "--wait", "?"),
        ("--app", "?", "runs", "list"),
        ("dev", "--port", "?"),
    ],
    ids=" ".join,
)
def test_c104_rubbish_is_answered_with_a_message(durable, engine, command):
    """Whatever is typed: exit code 0, 1 or 2, and where it is not 0 a message, never a traceback."""
    for rubbish in RUBBISH:
        result = durable(*(word.replace("?", rubbish) for word in command))

        assert isinstance(result.exception, SystemExit | None), (rubbish, result.exception)
        assert result.exit_code == 0 or result.stderr, rubbish


def test_an_unknown_token_is_refused(durable, engine):
    """Exit code 1."""
    result = durable("hooks", "resume", "nobody", "1")

    assert result.exit_code == 1
    assert "No open hook has the token 'nobody'" in result.stderr


def test_c104_runs_are_listed_newest_first(durable, engine):
    """As a table for people, as JSON for programs; --limit bounds both."""
    ids = [start(durable, "shop:order", "tea") for _ in range(3)]
    listed = json.loads(durable("runs", "list", "--name", "shop.order", "--limit", "2", "--json").stdout)
    table = durable("runs", "list", "--limit", "2").stdout.splitlines()

    assert [run["id"] for run in listed] == ids[:0:-1]
    assert [line.split()[0] for line in table] == ["id", *ids[:0:-1]]


def test_runs_are_listed_by_attributes(durable, engine):
    """Of several --attribute each has to match; `runs show` prints them all."""
    customer = uuid.uuid4().hex
    ids = [start(durable, "shop:labelled", customer, phase) for phase in ("new", "paid")]
    for run_id in ids:
        drive(engine, run_id)

    def found(*given):
        options = [part for each in given for part in ("--attribute", each)]
        return [run["id"] for run in json.loads(durable("runs", "list", *options, "--json").stdout)]

    assert found(f"customer={customer}") == ids[::-1]
    assert found(f"customer={customer}", "phase=paid") == ids[1:]
    assert found(f"customer={customer}", "phase=a=b") == []
    shown = json.loads(durable("runs", "show", ids[0], "--json").stdout)
    assert shown["attributes"] == {"customer": customer, "phase": "new"}


def test_prune_deletes_what_ended_long_ago(durable, engine):
    """Only that; the age has to be named, and `--json` says how many runs there were."""
    old, young, waiting = (start(durable, "shop:labelled", "acme", "old") for _ in range(3))
    for run_id in (old, young):
        drive(engine, run_id)
    with engine.store.begin() as tx:
        ended = sa.update(schema.runs).where(schema.runs.c.id == old)
        tx.execute(ended.values(completed_at=engine.now() - 3 * 86_400_000_000))

    assert durable("prune").exit_code == 2
    assert json.loads(durable("prune", "--older-than", "2d", "--json").stdout) == {"pruned": 1}
    assert durable("prune", "--older-than", "2d").stdout == "0 runs are deleted.\n"
    assert [engine.get_run(run_id).exists for run_id in (old, young, waiting)] == [False, True, True]


def test_doctor_says_what_is_missing(durable, engine):
    """No worker runs here: that is found, and all the rest is well."""
    result = durable("doctor", "--json")
    report = json.loads(result.stdout)

    assert (result.exit_code, report["ok"]) == (1, False)
    faults = {check["name"] for check in report["checks"] if not check["ok"]}
    assert "workers" in faults
    # What the other tests have left waits for a worker too.
    assert faults <= {"workers", "queues", "names", "blocked"}
    assert "Start one" in durable("doctor").stdout


def test_c103_doctor_says_which_versions_run_here(durable, engine):
    """durable's, Python's and Celery's: the first line for people, an object for programs."""
    versions = json.loads(durable("doctor", "--json").stdout)["versions"]

    assert versions == {
        "durable": importlib.metadata.version("durable-celery"),
        "python": platform.python_version(),
        "celery": celery.__version__,
    }
    assert durable("doctor").stdout.splitlines()[0] == ", ".join(f"{name} {text}" for name, text in versions.items())


def test_dev_without_an_application_shows_how_to_begin(durable):
    """The program to write is shown, and the exit code is that of wrong usage."""
    result = durable("--app", "nowhere", "dev")

    assert result.exit_code == 2
    assert "celery = Celery(" in result.stderr


def test_c104_every_command_that_reports_has_json(durable):
    """What a program would call, it can read."""
    without = {"dev", "migrate"}
    ctx = click.Context(main)
    lacking = [
        name
        for group in (main, main.get_command(ctx, "runs"), main.get_command(ctx, "hooks"))
        for name in group.list_commands(ctx)
        if not isinstance(command := group.get_command(ctx, name), click.Group)
        and "as_json" not in {parameter.name for parameter in command.params}
    ]

    assert set(lacking) == without
