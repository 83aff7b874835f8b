"""``start`` takes the first turn itself with ``first_turn_budget``; what stands in the way leaves it to a worker."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from durable import (
    Durable,
    Run,
    RunConflict,
    concurrency,
    create_hook,
    now,
    sleep,
    step,
    workflow,
)
from durable.failpoints import Failed, armed
from durable.store import schema

pytestmark = all_databases()

#: What bodies have seen.
seen: list[Any] = []
entered, leave = threading.Event(), threading.Event()


@step(name="first_turn.double")
def double(number: int) -> int:
    return 2 * number


@step(name="first_turn.limited", limits=[concurrency("first_turn.one", 1)])
def limited(number: int) -> int:
    return number


@workflow(name="first_turn.doubling")
async def doubling(number: int) -> int:
    seen.append(threading.current_thread())
    return await double(await double(number))


@workflow(name="first_turn.wide")
async def wide(count: int) -> int:
    return sum(await asyncio.gather(*map(double, range(count))))


@workflow(name="first_turn.sleeping")
async def sleeping(number: int) -> int:
    await sleep("1ms")
    return await double(number)


@workflow(name="first_turn.timed")
async def timed(number: int) -> int:
    return await asyncio.wait_for(double(number), 60)


@workflow(name="first_turn.hooked")
async def hooked(number: int) -> int:
    create_hook(f"first-turn-{number}")
    return await double(number)


@workflow(name="first_turn.over")
async def over(number: int) -> int:
    seen.append(number)
    return 2 * number


@workflow(name="first_turn.mistaken")
async def mistaken(number: int) -> int:
    time.sleep(1)
    return number


@workflow(name="first_turn.limiting")
async def limiting(number: int) -> int:
    return await limited(number)


@workflow(name="first_turn.spinning")
async def spinning(number: int) -> int:
    seen.append(number)
    while number:
        now()
    return await double(number)


@workflow(name="first_turn.waiting")
async def waiting(number: int) -> int:
    entered.set()
    assert leave.wait(20)
    return await double(number)


@workflow(name="first_turn.looking")
async def looking(number: int) -> int:
    seen.append((flask.has_request_context(), asyncio.get_running_loop(), gc.isenabled()))
    return await double(number)


@pytest.fixture(autouse=True)
def clean() -> None:
    seen.clear()
    entered.clear()
    leave.clear()


@pytest.fixture
def manner(manner: dict[str, Any]) -> dict[str, Any]:
    """A budget that a busy machine does not use up."""
    return {**manner, "first_turn_budget": "5s"}


def is_begun(engine: Durable, run: Run[Any]) -> bool:
    """Whether the start has taken the first turn; else the inbox has the news, and nothing is in the log."""
    with engine.store.read() as tx:
        turn = tx.execute(sa.select(schema.runs.c.turn).where(schema.runs.c.id == run.id)).scalar_one()
        inbox = tx.execute(sa.select(schema.inbox.c.kind).where(schema.inbox.c.run_id == run.id)).scalars().all()
    assert (turn, inbox[:1]) in [(1, []), (0, ["run_created"])]
    return turn == 1


@contextlib.contextmanager
def statements(engine: Durable) -> Iterator[list[str]]:
    """What is said to the database within the block."""
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        said.append(text)

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    yield said
    sa.event.remove(engine.store.engine, "before_cursor_execute", note)


def test_the_run_begins_with_its_start(engine):
    """Its log has the first step when ``start`` returns, whose message is sent; a worker goes on as usual."""
    run = engine.start(doubling, 5)

    assert kinds(run) == ["run_created", "run_started", "step_created"]
    assert run.status == "running"
    assert seen == [threading.current_thread()]
    with engine.store.read() as tx:
        (row,) = tx.execute(sa.select(schema.steps).where(schema.steps.c.run_id == run.id)).all()
    assert (row.name, row.attempt, row.status, row.claim) == ("first_turn.double", 1, "pending", None)
    assert row.sent_at is not None
    settle(engine, run)
    assert run.result(timeout=0) == 20


def test_several_steps_begin_with_the_start(engine):
    run = engine.start(wide, 5)

    assert kinds(run).count("step_created") == 5
    settle(engine, run)
    assert run.result(timeout=0) == 20


def test_it_is_one_statement_on_postgresql(engine, database):
    """As many as a start without its first turn."""
    engine.start(doubling, 1)
    with statements(engine) as said:
        run = engine.start(doubling, 1)

    assert is_begun(engine, run)
    assert len(said) == 1 if database.startswith("postgresql") else len(said) > 1


@pytest.mark.parametrize("flow", [sleeping, timed, hooked, over, mistaken, limiting], ids=lambda flow: flow.name)
def test_a_first_turn_that_does_more_than_to_call_steps_is_left_to_a_worker(engine, flow):
    """So are one that has a mistake, which a worker reports, and one that ends the run."""
    run = engine.start(flow, 1)

    assert not is_begun(engine, run)
    settle(engine, run)
    assert run.status == ("blocked" if flow is mistaken else "completed")
    run.cancel()
    settle(engine, run)


def test_a_workflow_that_was_left_to_a_worker_is_not_tried_again(engine):
    """Its code would run twice for each start, and log twice; other workflows begin with their start."""
    runs = [engine.start(over, 1), engine.start(over, 2), engine.start(doubling, 3)]

    assert [is_begun(engine, run) for run in runs] == [False, False, True]
    assert seen == [1, threading.current_thread()]
    settle(engine, *runs)


def test_more_steps_than_a_plain_turn_has_are_left_to_a_worker(engine):
    """Of many steps, most are offered and not sent; the starter does not know the processes."""
    run = engine.start(wide, 50)

    assert not is_begun(engine, run)
    settle(engine, run)
    assert run.result(timeout=0) == 50 * 49


@pytest.mark.parametrize("options", [{"countdown": 0.01}, {"attributes": {"colour": "red"}}], ids=str)
def test_a_start_that_writes_more_leaves_its_first_turn_to_a_worker(engine, options):
    run = doubling.with_options(**options).start(1)

    assert not is_begun(engine, run)
    settle(engine, run)
    assert run.result(timeout=0) == 4


def test_a_start_in_a_session_runs_none_of_the_workflows_code(engine):
    """Nothing may be sent before the caller's transaction has committed."""
    application = sa.create_engine(engine.store.url)
    with Session(application) as session, session.begin():
        run = doubling.with_options(session=session).start(1)
    application.dispose()

    assert seen == []
    assert not is_begun(engine, run)
    settle(engine, run)


def test_an_event_loop_does_not_wait_for_the_workflow(engine):
    """``start`` in a coroutine leaves the turn to a worker, ``astart`` takes it in a thread."""

    async def start_both() -> tuple[Run[int], Run[int]]:
        return engine.start(doubling, 1), await engine.astart(doubling, 1)

    here, there = asyncio.run(start_both())

    assert (is_begun(engine, here), is_begun(engine, there)) == (False, True)
    settle(engine, here, there)


def test_a_paused_workflow_does_not_begin(engine):
    engine.pause(workflow=doubling)
    run = engine.start(doubling, 1)

    assert not is_begun(engine, run)
    engine.resume(workflow=doubling)
    engine.pauses.read(engine.store)
    assert is_begun(engine, engine.start(doubling, 1))
    settle(engine, run)


def test_a_step_of_which_this_application_has_no_task_is_left_to_a_worker(engine, monkeypatch):
    """Its message might need what only the task knows."""
    monkeypatch.delitem(engine.celery.tasks, "first_turn.double")
    run = engine.start(doubling, 1)

    assert not is_begun(engine, run)


def test_the_same_key_starts_one_run(engine):
    """The second start finds the first, whatever has become of it; with other arguments it is refused."""
    options = doubling.with_options(idempotency_key="first-turn-1")
    run = options.start(1)

    assert options.start(1).id == run.id
    with pytest.raises(RunConflict):
        options.start(2)
    settle(engine, run)
    assert options.start(1).id == run.id
    assert kinds(run).count("run_created") == 1


def test_a_commit_without_acknowledgement_starts_one_run(engine, monkeypatch):
    """The caller gets the run that is there, and the sweep sends its step."""
    commit = engine.store.write

    def lose(act: Any, **options: Any) -> Any:
        commit(act, **options)
        raise OperationalError("the commit", None, Exception("gone"), connection_invalidated=True)

    monkeypatch.setattr(engine.store, "write", lose)
    run = engine.start(doubling, 1)
    monkeypatch.undo()

    assert is_begun(engine, run)
    settle(engine, run)
    assert run.result(timeout=0) == 4


def test_a_start_that_fails_after_its_commit_has_lost_nothing(engine):
    """The step's row says that its message is to be sent: the sweep does."""
    with armed("start.committed=raise@1"), pytest.raises(Failed):
        doubling.with_options(run_id="first-turn-failed").start(1)

    run = engine.get_run("first-turn-failed")
    assert is_begun(engine, run)
    settle(engine, run)
    assert run.result(timeout=0) == 4


# In the caller's process


@pytest.mark.parametrize("manner", [{"first_turn_budget": "50ms", "continuation": "1s"}])
def test_code_that_uses_up_the_budget_is_stopped_and_not_tried_again(engine, caplog):
    """The start is not lost: a worker takes the first turn, and those of later starts of this workflow."""
    run = engine.start(spinning, 1)
    other = engine.start(spinning, 0)

    assert not is_begun(engine, run)
    assert not is_begun(engine, other)
    assert seen == [1]
    assert "From now on the first turns of first_turn.spinning are left to workers" in caplog.text
    run.cancel()
    settle(engine, run, other)


def test_other_threads_do_what_a_workflow_may_not(engine, tmp_path):
    """While a body runs in one thread, clocks, files, sleeps and event loops of another are not touched."""
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(engine.start, waiting, 1)
        assert entered.wait(20)
        try:
            assert abs(time.time() - time.time()) < 10
            time.sleep(0)
            (tmp_path / "file").write_text("written")
            assert asyncio.run(asyncio.wait_for(asyncio.sleep(0, "slept"), 5)) == "slept"
        finally:
            leave.set()
        run = starting.result(20)

    assert is_begun(engine, run)
    settle(engine, run)
    assert run.result(timeout=0) == 2


def test_the_body_sees_nothing_of_its_caller_and_leaves_nothing_behind(engine):
    """No request of Flask; afterwards the thread has its own loop hooks and garbage collector again."""
    hooks, app = sys.get_asyncgen_hooks(), flask.Flask("starter")
    with app.test_request_context("/"):
        run = engine.start(looking, 1)
        assert flask.request.path == "/"

    assert is_begun(engine, run)
    ((has_request, loop, collects),) = seen
    assert (has_request, loop.is_durable, collects) == (False, True, False)
    assert (sys.get_asyncgen_hooks(), gc.isenabled()) == (hooks, True)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    settle(engine, run)


def test_nothing_of_the_workflow_stays_in_memory(engine):
    """Another process goes on with the run, so its replay is put away."""
    before = len(engine.replays)
    run = engine.start(doubling, 1)

    assert is_begun(engine, run)
    assert len(engine.replays) == before


@pytest.mark.parametrize("manner", [{"continuation": 0}, {"continuation": "1s"}], ids=["by messages", "in place"])
def test_without_the_setting_a_start_runs_no_workflow_code(engine):
    run = engine.start(doubling, 1)

    assert seen == []
    assert not is_begun(engine, run)
    settle(engine, run)
