"""The client's calls for asyncio: they do what the others do, and what waits takes no thread."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import time
from datetime import timedelta
from typing import Any

import pytest
from driving import all_databases, call_threads, settle

import durable
from durable import (
    HookNotFound,
    NonDeterministicCall,
    Run,
    RunCancelled,
    RunFailed,
    Stream,
    Value,
    ValueNotPublished,
    acreate_schedule,
    aget_hook,
    aget_schedule,
    alist_runs,
    aresume_hook,
    astart,
    astart_many,
    concurrency,
    create_hook,
    define_hook,
    emit,
    get_run,
    publish,
    sleep,
    step,
    workflow,
)
from durable.app import Durable as App
from durable.client import AsyncRunList, RunList
from durable.context.typed_hooks import HookDefinition
from durable.schedules import Schedule
from durable.testing import Environment

TOTAL = Value("total", int)
COUNTED = Stream("counted", int)

decided = define_hook(bool, name="async.decided")


@workflow(name="async.decide")
async def decide(token: str) -> str:
    publish("total", 7)
    return "yes" if await decided.create(token=token) else "no"


@workflow(name="async.anything")
async def anything(token: str) -> Any:
    return await create_hook(token=token, metadata="about it")


@workflow(name="async.fails")
async def fails() -> None:
    raise ValueError("wrong")


@workflow(name="async.sleeps")
async def sleeps() -> str:
    await sleep("1h")
    return "awake"


@step(name="async.limited", limits=[concurrency("async.one", 1)])
def limited() -> None: ...


@workflow(name="async.one_step")
async def one_step() -> None:
    await limited()


@pytest.fixture
def engine(engine: App) -> App:
    """On PostgreSQL the first call of a loop is in a greenlet already; on the others all are in threads."""
    engine.loop_calls.settled_secs = 0
    return engine


async def until(engine: Any, run: Run[Any], waiting: asyncio.Task[Any]) -> Any:
    """Do the work of a run until a task has ended that waits for it."""
    while not waiting.done():
        await asyncio.to_thread(settle, engine, run)
        await asyncio.sleep(0.01)
    return await waiting


# What each does.


@all_databases()
def test_a_run_is_started_watched_and_resumed(engine, token):
    """Start, status, attributes, hooks, values, payload, result and log, all awaited."""

    async def main() -> None:
        run = await engine.astart(decide, token)
        assert (await run.aexists(), await run.astatus(), await run.aname()) == (True, "pending", "async.decide")
        assert await run.acreated_at() == run.created_at
        assert (await run.astarted_at(), await run.acompleted_at()) == (None, None)
        value = asyncio.create_task(run.avalue(TOTAL, timeout="10s"))
        assert await until(engine, run, value) == 7
        assert (await run.avalues(), await run.aattributes()) == ({"total": 7}, {})
        assert [hook["token"] for hook in await run.ahooks()] == [token]
        assert (await engine.aget_hook(token)).run_id == run.id

        result = asyncio.create_task(run.aresult(timeout="10s"))
        assert await decided.aresume(token, True) == run
        assert await until(engine, run, result) == "yes"
        assert [event.kind for event in await run.aevents(limit=2)] == ["run_created", "run_started"]
        assert await run.agenerations() == [run]

    asyncio.run(main())


def test_the_functions_use_the_current_engine(engine, token):
    """``durable.astart`` and its like, ``Workflow.astart`` and options."""

    async def main() -> None:
        first = await astart(anything, token)
        key = secrets.token_hex(8)
        second = await anything.with_options(idempotency_key=key).astart(f"{token}-2")
        third = await anything.astart(f"{token}-3")
        many = await astart_many(anything, [(f"{token}-4",), (f"{token}-5",)])
        assert await anything.with_options(idempotency_key=key).astart(f"{token}-2") == second
        await asyncio.to_thread(settle, engine, first)
        assert (await aget_hook(token)).metadata == "about it"
        assert await aresume_hook(token, {"a": 1}) == first
        await asyncio.to_thread(settle, engine, first)
        assert await first.aresult() == {"a": 1}
        listed = [run async for run in alist_runs(name="async.anything", status="pending")]
        assert {second, third, *many} <= set(listed)
        assert await alist_runs(name="async.anything", status="pending").acancel("over") >= 4

    asyncio.run(main())


def test_a_run_is_cancelled_woken_forked_and_retried(engine, token):
    """What operators do."""

    async def main() -> None:
        run = await astart(sleeps)
        await asyncio.to_thread(settle, engine, run)
        assert await run.awake_up() == 1
        await asyncio.to_thread(settle, engine, run)
        assert await run.aresult(timeout=1) == "awake"
        cancelled = await astart(sleeps)
        assert await cancelled.acancel("no more") is True
        await asyncio.to_thread(settle, engine, cancelled)
        with pytest.raises(RunCancelled, match="no more"):
            await cancelled.aresult(timeout=1)
        forked = await run.afork(from_event=2)
        assert forked.id != run.id
        assert await forked.aretry() is None
        with pytest.raises(durable.NotInDoubt):
            await forked.aresolve(result=1)
        await forked.acancel()

    asyncio.run(main())


def test_a_schedule_is_made_and_used(engine):
    """Each call of its handle."""
    name = f"async-{secrets.token_hex(4)}"

    async def main() -> None:
        made = await acreate_schedule(name, sleeps, every="1h")
        assert (await made.aworkflow(), await made.ais_paused()) == ("async.sleeps", False)
        assert (await made.apause(), await made.ais_paused(), await made.aresume()) == (True, True, True)
        assert len(await made.anext(3)) == 3
        run = await made.atrigger()
        assert run in await made.aruns()
        since = (await run.acreated_at()) - timedelta(days=1)
        assert await made.abackfill(since, since) == []
        assert (await aget_schedule(name)).name == name
        await made.adelete()
        with pytest.raises(durable.ScheduleNotFound):
            await aget_schedule(name)

    asyncio.run(main())


def test_a_limit_is_set(engine):
    """``aset_limit`` is ``set_limit``."""
    run = engine.start(one_step)
    settle(engine, run)

    asyncio.run(durable.aset_limit("async.one", 3))
    asyncio.run(durable.aset_limit("async.one", None))
    with pytest.raises(durable.ConfigurationError):
        asyncio.run(durable.aset_limit("async.none", 3))


def test_errors_are_those_of_the_other_form(engine, token):
    """A failed run, a value that never comes, a hook that is not there, a time-out."""

    async def main() -> None:
        run = await astart(fails)
        await asyncio.to_thread(settle, engine, run)
        with pytest.raises(RunFailed) as failed:
            await run.aresult()
        assert isinstance(failed.value.__cause__, ValueError)
        with pytest.raises(ValueNotPublished):
            await run.avalue("total")
        began = time.monotonic()
        with pytest.raises(HookNotFound):
            await aresume_hook(token, 1, wait="100ms")
        assert time.monotonic() - began >= 0.1
        waits = await astart(anything, token)
        with pytest.raises(TimeoutError, match="still pending after 50ms"):
            await waits.aresult(timeout="50ms")
        with pytest.raises(TimeoutError, match="has not published 'total' after 50ms"):
            await waits.avalue("total", timeout="50ms")
        with pytest.raises(durable.RunNotFound):
            await get_run("unknown").aresult()

    asyncio.run(main())


def test_a_session_is_refused_and_run_sync_is_named(engine):
    """The connection of a session belongs to the caller's thread."""
    with pytest.raises(TypeError, match="run_sync"):
        asyncio.run(sleeps.with_options(session=object()).astart())


# How it waits.


def test_hundreds_wait_and_take_no_thread(engine, token):
    """Three hundred tasks wait for one run; the threads are few, and all get the result."""

    async def main() -> None:
        run = await astart(anything, token)
        await asyncio.to_thread(settle, engine, run)
        tasks = [asyncio.create_task(run.aresult(timeout="20s")) for _ in range(300)]
        while engine.completions.count < 300:
            await asyncio.sleep(0.01)
        assert call_threads() <= engine.settings.pool_size + 3
        # Others are served meanwhile.
        assert await asyncio.wait_for(run.astatus(), 5) == "running"
        await aresume_hook(token, "all")
        await asyncio.to_thread(settle, engine, run)
        assert await asyncio.gather(*tasks) == ["all"] * 300

    asyncio.run(main())
    assert engine.completions.count == 0


def test_a_notification_ends_the_pause_at_once(engine, token):
    """It does not wait for the next check, which with healthy notifications is a second away."""

    async def main() -> float:
        run = await astart(anything, token)
        with engine.completions.expected(run.id) as completion:
            began = time.monotonic()
            pause = asyncio.create_task(completion.wait_in_loop(30))
            completion._checks = 0
            await asyncio.sleep(0)
            await asyncio.to_thread(engine.completions.notify, run.id)
            await pause
            return time.monotonic() - began

    assert asyncio.run(main()) < 5


def test_a_task_that_is_cancelled_leaves_nothing(engine, token):
    """The waiter is forgotten, and the run goes on."""

    async def main() -> None:
        run = await astart(anything, token)
        task = asyncio.create_task(run.aresult())
        while engine.completions.count == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.completions.count == 0
        assert await run.astatus() == "pending"

    asyncio.run(main())


def test_a_payload_that_is_waited_for_takes_no_thread(engine, token):
    """``wait_taken`` waits until a turn has taken the payload in."""

    async def main() -> None:
        run = await astart(anything, token)
        await asyncio.to_thread(settle, engine, run)
        sent = asyncio.create_task(aresume_hook(token, 1, wait_taken="10s"))
        while engine.completions.count == 0:
            await asyncio.sleep(0.01)
        assert await until(engine, run, sent) == run

    asyncio.run(main())


@workflow(name="async.emits")
async def emits(token: str) -> None:
    async for number in create_hook(token=token):
        if number is None:
            break
        emit(COUNTED, number)


@all_databases()
def test_a_stream_is_read_in_an_event_loop(engine, token):
    """Items come as they are emitted, many readers take no thread each, and the end of the run ends them."""

    async def read(run: Run[Any], start: int) -> list[int]:
        return [item async for item in run.astream(COUNTED, start=start, timeout="20s")]

    async def main() -> None:
        run = await engine.astart(emits, token)
        await asyncio.to_thread(settle, engine, run)
        readers = [asyncio.create_task(read(run, start % 2)) for start in range(100)]
        while engine.completions.count < 100:
            await asyncio.sleep(0.01)
        assert call_threads() <= engine.settings.pool_size + 3
        for number in (7, 8, 9, None):
            await engine.aresume_hook(token, number)
            await asyncio.to_thread(settle, engine, run)
        assert await asyncio.gather(*readers) == [[7, 8, 9], [8, 9]] * 50
        assert [each["name"] for each in await run.astreams()] == ["counted"]
        numbers = [(each.number, each.value) async for each in run.astream("counted").items()]
        assert numbers == [(0, 7), (1, 8), (2, 9)]
        with pytest.raises(ValueError, match="start=-1"):
            _ = [item async for item in run.astream("counted", start=-1)]

    asyncio.run(main())


def test_a_reader_that_is_left_early_waits_no_more(engine, token):
    """Its generator is closed, and nothing waits any more."""

    async def main() -> None:
        run = await engine.astart(emits, token)
        with pytest.raises(TimeoutError, match="has emitted no item 0"):
            _ = [item async for item in run.astream(COUNTED, timeout="50ms")]
        reader = asyncio.create_task(anext(aiter(run.astream(COUNTED))))
        while engine.completions.count == 0:
            await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert engine.completions.count == 0


prices = define_hook(str, reply=int, name="async.prices")


@workflow(name="async.prices")
async def quotes(token: str) -> None:
    async for question in prices.create(token=token):
        question.reply(len(question.payload))


def test_many_ask_and_take_no_thread(engine, token):
    """A hundred questions wait in the event loop, and each gets its own reply."""

    async def main() -> None:
        run = await engine.astart(quotes, token)
        await asyncio.to_thread(settle, engine, run)
        asked = [asyncio.create_task(prices.aask(token, "x" * (n + 1), timeout="20s")) for n in range(100)]
        while engine.completions.count < 100:
            await asyncio.sleep(0.01)
        assert call_threads() <= engine.settings.pool_size + 3
        await asyncio.to_thread(settle, engine, run)
        assert await asyncio.gather(*asked) == [n + 1 for n in range(100)]
        with pytest.raises(TimeoutError, match="has not replied"):
            await prices.aask(token, "late", timeout="50ms")
        last = asyncio.create_task(aresume_hook(token, "abc", reply=True, timeout="10s"))
        assert await until(engine, run, last) == 3

    asyncio.run(main())


# Where it is called.


@workflow(name="async.calls_the_client")
async def calls_the_client(name: str, run_id: str) -> str:
    calls = {
        "Run.aresult": lambda: Run(run_id).aresult(),
        "Run.avalue": lambda: Run(run_id).avalue("total"),
        "Run.astatus": lambda: Run(run_id).astatus(),
        "Run.aretry": lambda: Run(run_id).aretry(),
        "astart": lambda: astart(sleeps),
        "sleeps.astart": lambda: sleeps.astart(),
        "aresume_hook": lambda: aresume_hook("t", 1),
        "aget_hook": lambda: aget_hook("t"),
        "aget_schedule": lambda: aget_schedule("s"),
        "Schedule.apause": lambda: Schedule("s").apause(),
        "async.decided.aresume": lambda: decided.aresume("t", True),
    }
    try:
        await calls[name]()
    except NonDeterministicCall as error:
        return str(error)
    return "allowed"


@pytest.mark.parametrize(
    "name",
    [
        "Run.aresult",
        "Run.avalue",
        "Run.astatus",
        "Run.aretry",
        "astart",
        "sleeps.astart",
        "aresume_hook",
        "aget_hook",
        "aget_schedule",
        "Schedule.apause",
        "async.decided.aresume",
    ],
)
def test_a_workflows_body_may_not_call_it(engine, name):
    """The error names the call, as for the other form."""
    run = engine.start(calls_the_client, name, "r")
    settle(engine, run)

    assert run.result(timeout=20).startswith(f"{name} was called in a workflow body")


@step(name="async.step_that_asks")
async def step_that_asks(token: str) -> str:
    run = await anything.astart(token)
    return await run.astatus()


@workflow(name="async.asks_in_a_step")
async def asks_in_a_step(token: str) -> str:
    return await step_that_asks(token)


def test_an_async_step_may_call_it(engine, token):
    """It runs in the step's event loop."""
    run = engine.start(asks_in_a_step, token)
    settle(engine, run)

    assert run.result(timeout=20) == "pending"


def test_it_works_in_an_environment(token):
    """``durable.testing``: the work is done before the task waits."""

    async def main() -> None:
        run = await decide.astart(token)
        assert await run.avalue(TOTAL) == 7
        await aresume_hook(token, False, wait="1s")
        assert await run.aresult() == "no"

    with Environment():
        asyncio.run(main())


# All of them.


def public(owner: Any) -> set[str]:
    """The names of what an object offers."""
    return {name for name, _ in inspect.getmembers(owner) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("owner", "asynchronous", "without"),
    [
        (Run, Run, {"id", "read_token"}),
        (Schedule, Schedule, {"row", "latest"}),
        (RunList, AsyncRunList, set()),
    ],
    ids=["Run", "Schedule", "RunList"],
)
def test_each_call_has_its_form(owner, asynchronous, without):
    """Also those that are added later.  *without* does no I/O, or is for workflows."""
    names = public(asynchronous)
    others = {name for name in public(owner) if not (name.startswith("a") and name[1:] in public(owner))} - without

    assert {name for name in others if f"a{name}" not in names} == set()


def test_each_function_has_its_form():
    """``durable.start`` has ``durable.astart``, and ``Durable.start`` has ``Durable.astart``."""
    functions = ["start", "start_many", "list_runs", "resume_hook", "get_hook", "get_reply", "set_limit"]
    functions += ["create_schedule", "get_schedule"]

    assert all(f"a{name}" in durable.__all__ for name in functions)
    methods = (
        "start",
        "start_many",
        "resume_hook",
        "get_hook",
        "get_reply",
        "set_limit",
        "respond",
        "pause",
        "resume",
        "list_pauses",
    )
    assert all(hasattr(App, f"a{name}") for name in methods)
    assert all(hasattr(HookDefinition, f"a{name}") for name in ("resume",))
    assert all(hasattr(type(prices), f"a{name}") for name in ("ask", "get_reply"))
