"""Starting runs: options, keys, many at once, from views and steps, and when the answer to a commit is lost."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import signals
from driving import all_databases, kinds, settle
from trouble import unacknowledged

from durable import (
    ConfigurationError,
    Durable,
    Run,
    RunConflict,
    RunFailed,
    create_hook,
    get_run,
    resume_hook,
    start,
    step,
    workflow,
)
from durable.store.schema import runs
from durable.turns.drive import drive

THREADS = 50
PROCESSES = 2


@pytest.fixture
def published(engine: Durable) -> Iterator[list[tuple[str, Any]]]:
    """What was handed to the broker: names of tasks, and their arguments."""
    sent: list[tuple[str, Any]] = []

    def note(sender: str, body: Any, **_: object) -> None:
        sent.append((sender, *body[0]))

    signals.before_task_publish.connect(note)
    yield sent
    signals.before_task_publish.disconnect(note)


@pytest.fixture
def key() -> str:
    """A key that no other test uses: they share a database."""
    return secrets.token_hex(8)


@step
def double(number: int) -> int:
    return 2 * number


@workflow(name="starting.doubles")
async def doubles(number: int, *, plus: int = 0) -> int:
    return await double(number) + plus


def count_of(engine: Durable, key: str) -> int:
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(runs).where(runs.c.idempotency_key == key)
        return int(tx.execute(query).scalar_one())


# Options.


def test_every_way_to_start_starts_a_run(engine):
    """`start`, `.start`, `.delay`, `.apply_async` and `with_options`: each a run of its own."""
    started = [
        start(doubles, 4, plus=1),
        engine.start(doubles, 4, plus=1),
        doubles.start(4, plus=1),
        doubles.delay(4, plus=1),
        doubles.apply_async((4,), {"plus": 1}),
        doubles.apply_async([4], {"plus": 1}, countdown=0),
        doubles.with_options(priority=3).start(4, plus=1),
        doubles.with_options(priority=3).delay(4, plus=1),
        doubles.with_options(priority=3).apply_async((4,), {"plus": 1}, priority=4),
    ]
    settle(engine, *started)

    assert [run.result() for run in started] == [9] * 9
    assert len({run.id for run in started}) == 9


def test_a_queue_that_the_app_does_not_have_is_refused(engine, monkeypatch):
    """With task_create_missing_queues off no turn could be sent: the error says so, and no run is left behind."""
    monkeypatch.setattr(engine.celery.amqp.queues, "create_missing", False)

    with pytest.raises(ConfigurationError, match=r"Queue 'nowhere' missing from task_queues.*is off"):
        doubles.with_options(queue="nowhere", idempotency_key="starting.nowhere").start(1)

    assert count_of(engine, "starting.nowhere") == 0
    assert doubles.start(1).status == "pending"


@pytest.mark.parametrize("setting", [{"accept_content": ["yaml"]}, {"task_protocol": 1}], ids=str)
def test_an_app_that_loses_messages_starts_nothing(engine, setting):
    """The first start says which setting of Celery's it is, and no run is left behind."""
    engine.celery.conf.update(setting)

    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        doubles.with_options(idempotency_key="starting.lost").start(1)

    assert count_of(engine, "starting.lost") == 0


def test_an_eager_app_sends_no_messages_to_lose(engine):
    """With task_always_eager the settings of messages have no part in it."""
    engine.celery.conf.update(task_always_eager=True, accept_content=["yaml"])

    assert doubles.start(1).result(timeout=1) == 2


def test_queue_and_priority_go_on_each_message_of_the_run(engine, published):
    """A run's turns are sent to its own queue."""
    options: list[tuple[str, Any]] = []

    def note(sender: str, routing_key: str, properties: dict[str, Any], **_: object) -> None:
        options.append((routing_key, properties["priority"]))

    signals.before_task_publish.connect(note)
    doubles.with_options(queue="slow", priority=7).start(1)
    signals.before_task_publish.disconnect(note)

    assert options == [("slow", 7)]


@pytest.mark.parametrize("option", ["countdown", "eta"])
def test_a_run_is_not_begun_before_its_time(engine, option):
    """Whatever drives it: the first turn comes when it is due."""
    later = "2s" if option == "countdown" else datetime.now(UTC) + timedelta(seconds=2)
    run = doubles.with_options(**{option: later}).start(1)

    drive(engine, run.id)
    assert run.status == "pending"
    while run.status == "pending":
        drive(engine, run.id)

    assert run.started_at - run.created_at >= timedelta(seconds=1.99)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"colour": "red"}, TypeError, "Unknown option 'colour'"),
        ({"countdown": 1, "eta": datetime(2026, 1, 1, tzinfo=UTC)}, TypeError, "countdown or eta"),
        ({"countdown": -1}, ValueError, "-1"),
        ({"eta": datetime(2026, 1, 1)}, ValueError, "aware|time zone"),
        ({"run_id": "with a blank"}, ValueError, "run_id 'with a blank'"),
        ({"run_id": ""}, ValueError, "run_id ''"),
        ({"idempotency_key": "nul\0"}, ValueError, "without NUL"),
        ({"idempotency_key": "\ud800"}, ValueError, "idempotency_key"),
        ({"idempotency_key": "blank "}, ValueError, "ends with a blank"),
        ({"idempotency_key": "x" * 256}, ValueError, "1 to 255"),
        ({"session": "a name"}, TypeError, "not a SQLAlchemy Session"),
    ],
    ids=str,
)
def test_invalid_options_are_refused_and_start_nothing(engine, options, error, message):
    """All three ways to start a run raise at the call."""
    for begin in (
        lambda: doubles.with_options(**options).start(1),
        lambda: doubles.with_options(**options).delay(1),
        lambda: doubles.apply_async((1,), **options),
    ):
        with pytest.raises(error, match=message):
            begin()
    with engine.store.read() as tx:
        assert tx.execute(sa.select(runs)).all() == []


# The same id or key.


@all_databases()
@pytest.mark.parametrize("option", ["idempotency_key", "run_id"])
def test_c71_the_same_key_is_the_same_run_and_result(engine, key, option):
    """Also after its end; other arguments are a conflict that names the run; other keys, or none, are other runs."""
    keyed = doubles.with_options(**{option: key})
    run = keyed.start(4)
    settle(engine, run)

    again = keyed.start(number=4, plus=0)

    assert (again, again.result(), kinds(again)) == (run, 8, kinds(run))
    with pytest.raises(RunConflict, match=run.id) as conflict:
        keyed.start(5)
    assert (conflict.value.key, conflict.value.run_id) == (key, run.id)
    with pytest.raises(RunConflict):
        other.with_options(**{option: key}).start(4)
    others = {
        doubles.with_options(**{option: key.upper() + "-2"}).start(4).id,
        doubles.start(4).id,
        doubles.start(4).id,
    }
    assert len(others - {run.id}) == 3


@workflow(name="starting.other")
async def other(number: int) -> int:
    return number


@all_databases()
def test_keys_that_differ_in_case_or_accents_are_different_keys(engine, key):
    """No database's idea of what is alike plays a part."""
    keys = [f"{key}é", f"{key}e", f"{key}É", f"{key}ss", f"{key}ß"]

    assert len({doubles.with_options(idempotency_key=each).start(1).id for each in keys}) == len(keys)


CHILD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from celery import Celery
from durable import Durable
from test_starting import THREADS, doubles

engine = Durable(Celery("child", broker="memory://"), database_url=sys.argv[1])
engine.check_schema()
with ThreadPoolExecutor(THREADS) as threads:
    print("ready", flush=True)
    sys.stdin.readline()
    starts = [threads.submit(doubles.with_options(idempotency_key=sys.argv[2]).start, 4) for _ in range(THREADS)]
    print(*{start.result().id for start in starts})
"""


@all_databases()
def test_c71_a_hundred_starts_of_one_key_at_once_are_one_run(engine, database, key):
    """Fifty threads in each of two processes: every caller gets the same run, none an error."""
    command = [sys.executable, "-c", CHILD, str(engine.store.url.render_as_string(hide_password=False)), key]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    here = Path(__file__).parent
    path: dict[str, Any] = {"cwd": here, "env": os.environ | {"PYTHONPATH": str(here.parent)}}
    processes = [subprocess.Popen(command, **pipes, **path) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert len({run_id for ids in told for run_id in ids}) == 1
    assert count_of(engine, key) == 1
    run = engine.get_run(told[0][0])
    settle(engine, run)
    assert run.result() == 8


# A commit whose answer is lost.


@all_databases()
@pytest.mark.parametrize("keyed", [True, False], ids=["with a key", "without"])
def test_c70_a_start_whose_commit_was_not_acknowledged_started_one_run(engine, published, key, keyed):
    """The row is looked for again on another connection: the caller gets its run, which completes once."""
    flow = doubles.with_options(idempotency_key=key) if keyed else doubles.with_options()
    with unacknowledged(engine) as lost:
        run = flow.start(4)
    settle(engine, run)

    assert lost == ["the acknowledgement"]
    assert run.result() == 8
    assert kinds(run).count("run_completed") == 1
    assert ("durable.drive", run.id) in published


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_c70_a_start_that_was_not_committed_raises_and_starts_nothing(engine, key, monkeypatch):
    """The database's own error comes out: the caller may start again."""
    dialect = engine.store.engine.dialect

    execute = dialect.do_execute

    def lose(_connection: Any) -> None:
        raise dialect.dbapi.OperationalError("server closed the connection unexpectedly")

    def lose_what_is_committed_at_once(cursor: Any, statement: str, *more: Any) -> None:
        if statement.startswith("WITH run"):
            lose(cursor)
        execute(cursor, statement, *more)

    monkeypatch.setattr(dialect, "do_commit", lose)
    monkeypatch.setattr(dialect, "do_execute", lose_what_is_committed_at_once)
    # With a listener registered, SQLAlchemy's dialect executes each statement.
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda *_: None)
    with pytest.raises(sa.exc.OperationalError):
        doubles.with_options(idempotency_key=key).start(4)
    monkeypatch.undo()

    assert count_of(engine, key) == 0


# Runs that are looked at.


def test_c69_a_run_is_looked_at_when_it_is_asked(engine):
    """`get_run` does no I/O; name, status and times are read each time."""
    statements: list[str] = []
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    nobody = get_run("nobody")
    assert statements == []
    run = get_run(doubles.start(4).id)

    assert (nobody.exists, run.exists) == (False, True)
    assert (run.name, run.status, run.started_at, run.completed_at) == ("starting.doubles", "pending", None, None)
    drive(engine, run.id)
    assert (run.status, run.completed_at) == ("running", None)
    settle(engine, run)
    assert run.status == "completed"
    assert run.created_at <= run.started_at <= run.completed_at


@workflow(name="starting.fails")
async def fails() -> None:
    raise LookupError("no such order")


def test_c69_a_failed_run_raises_with_its_cause(engine):
    """Which run, which error, its text, its traceback; the original exception behind it."""
    run = fails.start()
    settle(engine, run)

    with pytest.raises(RunFailed, match=f"{run.id}.*LookupError: no such order") as failed:
        run.result()

    error = failed.value
    assert (error.run_id, error.error_type, error.message) == (run.id, "LookupError", "no such order")
    assert 'raise LookupError("no such order")' in error.traceback
    assert type(error.__cause__) is LookupError


def test_waiting_for_a_result_ends_at_its_timeout(engine):
    """Not before, and the run goes on."""
    run = doubles.start(1)
    before = engine.now()

    with pytest.raises(TimeoutError, match="pending after 150ms"):
        run.result(timeout="150ms")

    assert engine.now() - before >= 150_000
    settle(engine, run)
    assert run.result(timeout=0) == 2


# From steps and views.


@step
def starts_a_child(number: int) -> Run[int]:
    return start(doubles, number)


@step
def asks(run: Run[int]) -> tuple[str, str, int]:
    return run.id, run.status, run.result(timeout="10s")


@workflow(name="starting.hands_over")
async def hands_over(number: int) -> Any:
    run = await starts_a_child(number)
    asked = await asks(run)
    return run, asked


@all_databases()
def test_c73_c74_a_run_started_in_a_step_crosses_into_the_workflow_and_other_steps(engine):
    """It is the same run everywhere, and still works where it arrives."""
    run = hands_over.start(21)
    drive(engine, run.id)
    with ThreadPoolExecutor(1) as threads:
        # The second step waits for the child, which another worker brings on.
        parent = threads.submit(settle, engine, run)
        child = eventually_child(engine, run)
        settle(engine, child)
        parent.result()

    returned, asked = run.result()
    assert (returned, type(returned), returned.result()) == (child, Run, 42)
    assert asked[0] == child.id
    assert asked[2] == 42


def eventually_child(engine: Durable, parent: Run[Any]) -> Run[Any]:
    """The run that the parent's first step has started."""
    deadline, pause = engine.now() + 10_000_000, threading.Event()
    while engine.now() < deadline:
        for event in parent.events():
            if event.kind == "step_created" and "asks" in event.name:
                return engine.get_run(event.args.split('"v":"')[1].split('"')[0])
        pause.wait(0.01)
    raise AssertionError(f"no child: {parent.events()}")


@step
def talks_back(token: str) -> str:
    return resume_hook(token, "from the child").id


@workflow(name="starting.child")
async def child_that_talks(token: str) -> str:
    return await talks_back(token)


@workflow(name="starting.parent")
async def parent_that_listens(token: str) -> Any:
    hook = create_hook(token=token)
    child = child_that_talks(token)
    return await hook, await child


def test_c73_a_child_talks_back_through_a_hook(engine, key):
    """The parent's hook is open before the child begins."""
    run = parent_that_listens.start(key)
    drive(engine, run.id)
    (created,) = [event for event in run.events() if event.kind == "child_created"]
    settle(engine, engine.get_run(created.run_id))
    settle(engine, run)

    assert run.result() == ("from the child", run.id)


def test_c73_a_view_starts_a_run(engine):
    """With the current engine, whatever the Flask app is."""
    app = flask.Flask("shop")

    @app.post("/orders/<int:number>")
    def order(number: int) -> dict[str, str]:
        run = doubles.with_options(idempotency_key=flask.request.headers["Idempotency-Key"]).start(number)
        return {"run_id": run.id, "status": run.status}

    with app.test_client() as client:
        first, second = (client.post("/orders/4", headers={"Idempotency-Key": "view"}).json for _ in range(2))

    assert first == second
    settle(engine, get_run(first["run_id"]))
    assert get_run(first["run_id"]).result() == 8
