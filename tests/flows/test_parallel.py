"""Steps and sleeps beside each other on every database: each once, none held up by another, none early."""

from __future__ import annotations

import asyncio
from typing import Any

from driving import all_databases, kinds, settle

from durable import create_hook, get_step_metadata, race, resume_hook, sleep, step, workflow

pytestmark = all_databases()

#: What steps did, by the run that they did it for.
done: dict[str, list[Any]] = {}


@step
def note(what: Any) -> Any:
    done.setdefault(get_step_metadata().run_id, []).append(what)
    return what


def took_secs(run: Any) -> float:
    return (run.completed_at - run.started_at).total_seconds()


@workflow
async def sleeps_together(count: int, secs: float) -> None:
    await asyncio.gather(*(sleep(secs) for _ in range(count)))


def test_c18_sleeps_in_parallel_take_as_long_as_one(engine):
    """Ten of half a second: not less than that, and far below the five seconds of all."""
    run = engine.start(sleeps_together, 10, 0.5)
    settle(engine, run)

    assert run.status == "completed"
    assert 0.5 <= took_secs(run) < 4


@workflow
async def fans_out(count: int) -> list[int]:
    return list(await asyncio.gather(*(note(n) for n in range(count))))


def test_c19_parallel_steps_run_once_each(engine):
    """Ten, and a hundred; the results come in the order of the calls."""
    for count in (10, 100):
        run = engine.start(fans_out, count)
        settle(engine, run, within_secs=30)

        assert run.result() == list(range(count))
        assert sorted(done[run.id]) == list(range(count))


@workflow
async def in_batches() -> list[list[str]]:
    return [list(await asyncio.gather(*(note(f"{batch}.{n}") for n in range(5)))) for batch in range(3)]


def test_c19_three_batches_of_five_come_back_in_order(engine):
    """No step of a batch runs before the one before it is done."""
    run = engine.start(in_batches)
    settle(engine, run)

    assert run.result() == [[f"{batch}.{n}" for n in range(5)] for batch in range(3)]
    assert [each[0] for each in done[run.id]] == [*"00000", *"11111", *"22222"]


@workflow
async def works_beside_a_long_sleep() -> list[int]:
    nap = asyncio.create_task(asyncio.sleep(86_400))
    told = [await note(n) for n in range(5)]
    nap.cancel()
    return told


def test_c21_a_pending_sleep_of_a_day_holds_up_no_steps(engine):
    """Five steps one after the other beside it; the sleep that nobody wants any more is cancelled."""
    run = engine.start(works_beside_a_long_sleep)
    settle(engine, run)

    assert run.result() == list(range(5))
    assert kinds(run).count("wait_created") == 1
    assert kinds(run).count("wait_completed") == 0


@workflow
async def sleeps_in_turn(rounds: int, secs: float) -> None:
    for _ in range(rounds):
        await sleep(secs)


def test_c38_every_round_of_a_loop_really_waits(engine):
    """Three rounds of 200 ms take 600 ms at least."""
    run = engine.start(sleeps_in_turn, 3, 0.2)
    settle(engine, run)

    assert run.status == "completed"
    assert took_secs(run) >= 0.6
    assert kinds(run).count("wait_completed") == 3


@workflow
async def naps_and_waits() -> str:
    await asyncio.gather(sleep("1h"), asyncio.sleep(3_600), sleep("1d"))
    async with asyncio.timeout(3_600):
        await note("awake")
    return "awake"


def test_c40_wake_up_ends_pending_sleeps_and_says_how_many(engine):
    """A second time there is none, and that is no error; neither is it in a run that has ended."""
    run = engine.start(naps_and_waits)
    settle(engine, run)

    assert run.wake_up() == 3
    settle(engine, run)
    assert run.wake_up() == 0
    assert run.result() == "awake"


@workflow
async def waits_for_the_first() -> str:
    short, long = sleep(0.1), sleep("1d")
    await short
    await note("first")
    await race(long, create_hook(token="enough"))
    return "over"


def test_c43_of_two_sleeps_the_one_due_first_resumes_the_run(engine):
    """The other stays pending, until a payload wins against it."""
    run = engine.start(waits_for_the_first)
    settle(engine, run)

    assert done[run.id] == ["first"]
    assert run.status == "running"
    assert (kinds(run).count("wait_created"), kinds(run).count("wait_completed")) == (2, 1)

    resume_hook("enough", None)
    settle(engine, run)

    assert run.result() == "over"
    assert kinds(run).count("wait_cancelled") == 1
