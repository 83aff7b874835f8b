"""
Tasks of one run beside each other: all of asyncio that a workflow may use, races and sleeps.

What needs the store is in flows/test_parallel.py; the loop itself is test_loop.py's; storms of news are
test_storms.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from simulator import SECOND, START, Simulator, plain

from durable import create_hook, events, race, sleep
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@step(name="test_concurrency.s")
def s(n: Any) -> Any:
    return n


def play(function: Callable[..., Any], *args: Any, **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(Workflow(function, name=f"test_concurrency.{function.__name__}"), args, **options).turn()


def awaited(sim: Simulator) -> list[str]:
    """Arguments of the steps that are open, in the order of the log."""
    return [event.args[5:-1] for event in sim.open(events.StepCreated)]


# asyncio, one part at a time


def test_a_full_queue_holds_its_producer():
    """put() waits until a consumer takes an item, and items come out in the order in which they went in."""

    async def flow():
        queue = asyncio.Queue(1)

        async def produce():
            for n in range(3):
                await queue.put(n)
                await s(f"put {n}")

        producer, got = asyncio.create_task(produce()), []
        await s("begin")
        for _ in range(3):
            got.append(await queue.get())
        await producer
        return got

    sim = play(flow)
    assert awaited(sim) == ['"begin"', '"put 0"']
    sim.complete("r.1#1")
    assert awaited(sim) == ['"begin"']

    assert sim.work().result == [0, 1, 2]


def test_workers_on_a_queue_share_what_is_in_it():
    """join() returns when everything was done, each item once."""

    async def flow():
        queue, done = asyncio.Queue(), []
        for n in range(6):
            queue.put_nowait(n)

        async def worker(name):
            while True:
                n = await queue.get()
                done.append([name, await s(n)])
                queue.task_done()

        workers = [asyncio.create_task(worker(name)) for name in "abc"]
        await queue.join()
        for each in workers:
            each.cancel()
        return done

    sim = play(flow)
    assert awaited(sim) == ["0", "1", "2"]
    sim.complete("r.2#1", 1).complete("r.2#2", 3).work()

    assert [name for name, n in sim.result if n in (1, 3)] == ["b", "b"]
    assert sorted(n for _, n in sim.result) == list(range(6))


def test_priority_and_lifo_queues_order_what_is_in_them():
    """As in any asyncio program."""

    async def flow():
        found = []
        for queue in (asyncio.PriorityQueue(), asyncio.LifoQueue()):
            for n in (2, 3, 1):
                await queue.put(n)
            found.append([await queue.get() for _ in range(3)])
        return found

    assert play(flow).result == [[1, 2, 3], [1, 3, 2]]


def test_an_event_wakes_all_who_wait_for_it_in_their_order():
    """And nobody who comes after it was cleared."""

    async def flow():
        event, told = asyncio.Event(), []

        async def wait(n):
            await event.wait()
            told.append(n)

        tasks = [asyncio.create_task(wait(n)) for n in range(3)]
        await s(1)
        event.set()
        event.clear()
        tasks.append(asyncio.create_task(wait(3)))
        await asyncio.wait(tasks, timeout=1)
        return told

    assert play(flow).complete("s").wait(2).result == [0, 1, 2]


def test_a_lock_is_handed_on_in_the_order_of_asking():
    """However the steps under it end, one at a time."""

    async def flow():
        lock, told = asyncio.Lock(), []

        async def locked(n):
            async with lock:
                told.append(await s(n))

        await asyncio.gather(*(locked(n) for n in (3, 1, 2)))
        return told

    sim = play(flow)
    for n in (3, 1, 2):
        assert awaited(sim) == [str(n)]
        sim.complete("s", n)

    assert sim.result == [3, 1, 2]


def test_a_semaphore_limits_how_many_steps_are_open():
    """Batches with a limit: two at a time, a place is taken as soon as one is free."""

    async def flow():
        two = asyncio.Semaphore(2)

        async def limited(n):
            async with two:
                return await s(n)

        return await asyncio.gather(*(limited(n) for n in range(5)))

    sim = play(flow)
    assert awaited(sim) == ["0", "1"]
    sim.complete("r.2#1", 1)
    assert awaited(sim) == ["0", "2"]

    assert sim.work().result == [0, 1, 2, 3, 4]


def test_a_condition_wakes_those_whose_predicate_holds():
    """wait_for() of a condition looks again at each notification."""

    async def flow():
        condition, stock = asyncio.Condition(), []

        async def buyer(least):
            async with condition:
                await condition.wait_for(lambda: len(stock) >= least)
                return len(stock)

        buyers = [asyncio.create_task(buyer(n)) for n in (2, 1)]
        for n in range(2):
            stock.append(await s(n))
            async with condition:
                condition.notify_all()
        return await asyncio.gather(*buyers)

    assert play(flow).work().result == [2, 1]


def test_as_completed_follows_the_log():
    """The order in which the outcomes are recorded, not that of the calls."""

    async def flow():
        return [await ended for ended in asyncio.as_completed([s(0), s(1), s(2)])]

    sim = play(flow).complete("r#3", 2).complete("r#1", 0).complete("r#2", 1)

    assert sim.result == [2, 0, 1]


def test_an_async_generator_may_await_steps_between_what_it_yields():
    """Pages of something, each fetched when it is asked for."""

    async def flow():
        async def pages():
            page = 0
            while page is not None:
                found, page = await s(page)
                for each in found:
                    yield each

        return [each async for each in pages()]

    sim = play(flow).complete("s", [["a", "b"], 1])
    assert awaited(sim) == ["1"]

    assert sim.complete("s", [["c"], None]).result == ["a", "b", "c"]


def test_an_async_generator_closed_by_hand_cleans_up_before_the_next_statement():
    """contextlib.aclosing: its finally may await steps."""

    async def flow():
        async def numbers():
            try:
                for n in itertools.count():
                    yield await s(n)
            finally:
                await s("closed")

        async with contextlib.aclosing(numbers()) as found:
            async for _ in found:
                break
        await s("after")

    sim = play(flow).complete("s")
    assert awaited(sim) == ['"closed"']
    sim.complete("s")

    assert awaited(sim) == ['"after"']


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled"])
def test_an_async_context_manager_may_await_steps_on_its_way_in_and_out(end):
    """Acquire and release as steps, whatever happens between."""

    @contextlib.asynccontextmanager
    async def reserved():
        await s("reserve")
        try:
            yield
        finally:
            await s("release")

    async def flow():
        async with reserved():
            await s("use")

    sim = play(flow).complete("s")
    assert awaited(sim) == ['"use"']
    if end == "returns":
        sim.complete("s")
    elif end == "raises":
        sim.fail("s", ValueError())
    else:
        sim.cancel()

    assert awaited(sim) == ['"release"']
    status = {"returns": "completed", "raises": "failed", "is cancelled": "cancelled"}[end]
    assert sim.complete("s").outcome.status == status


def test_ensure_future_and_create_task_begin_at_once_and_in_order():
    """Before the main task awaits them, beside what it does itself."""

    async def flow():
        async def part(n):
            return await s(n)

        first, second = asyncio.create_task(part(1)), asyncio.ensure_future(part(2))
        third = asyncio.ensure_future(s(3))
        own = await s(4)
        return [await first, await second, await third, own]

    sim = play(flow)

    assert sorted(awaited(sim)) == ["1", "2", "3", "4"]
    assert sim.work().result == [1, 2, 3, 4]


def test_shield_lets_a_task_outlive_the_one_who_waits():
    """The waiter is late, the task goes on and is asked again."""

    async def flow():
        async def two_steps():
            return [await s(1), await s(2)]

        task = asyncio.create_task(two_steps())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 5)
        return await task

    assert play(flow).wait(6).work().result == [1, 2]


# Parallel and racing


def test_c15_the_fastest_of_three_wins_a_race():
    """The others are withdrawn."""

    async def flow():
        return await race(s(1), s(2), s(3))

    sim = play(flow).complete("r#2", 2)

    assert sim.result == 2
    assert [e.op_id for e in sim.log if e.kind == "step_cancelled"] == ["r#1", "r#3"]


@pytest.mark.parametrize("faster", ["step", "sleep"])
def test_c16_a_step_against_a_sleep(faster):
    """Whichever ends first in the log wins; the other is withdrawn."""

    async def flow():
        async def late():
            await sleep(1)
            return "late"

        return await race(s(1), late())

    sim = play(flow)
    sim = sim.complete("s", "done") if faster == "step" else sim.wait(2)

    assert sim.result == ("done" if faster == "step" else "late")
    assert sim.open(events.WaitCreated) == sim.open(events.StepCreated) == []


def test_c18_ten_sleeps_in_parallel_take_as_long_as_one():
    """By the run's clock."""

    async def flow():
        await asyncio.gather(*(sleep(1) for _ in range(10)))

    sim = play(flow).wait(0.9)
    assert sim.outcome is None
    sim.wait(0.2)

    assert sim.outcome is not None
    assert sim.log[-1].at - START == SECOND


@pytest.mark.slow
def test_c20_steps_and_hooks_in_every_order_give_the_same_on_each_replay():
    """Two steps, two payloads and a sleep, in all orders; the course is the log's and no other."""

    async def flow():
        told = []
        hook = create_hook(token="t")

        async def listen():
            for _ in range(2):
                told.append(["payload", await hook, await s("heard")])

        async def act(n):
            told.append(["step", await s(n)])
            await sleep(1)

        await asyncio.gather(listen(), act(0), act(1))
        return told

    for order in set(itertools.permutations(["payload", "payload", "r.2#1", "r.3#1", "wait"])):
        sim = play(flow)
        for n, what in enumerate(order):
            if what == "payload":
                sim.send(n)
            elif what == "wait":
                sim.wait(5)
            else:
                sim.complete(what, n)
        sim.work().wait(5)

        assert sim.outcome.status == "completed"
        assert [n for kind, n, *_ in sim.result if kind == "payload"] == [
            n for n, what in enumerate(order) if what == "payload"
        ]
        for n in range(len(sim.turns)):
            assert plain(sim.said(n), sim.drawn) == plain(sim.again(n), sim.drawn)


# Sleep


def test_c38_every_round_of_a_loop_really_waits():
    """Four rounds of ten seconds are forty."""

    async def flow():
        for n in range(4):
            await sleep("10s")
            await s(n)

    sim = play(flow)
    for _ in range(4):
        sim.wait(9.9)
        assert awaited(sim) == []
        sim.wait(0.1).work()

    assert sim.log[-1].at - START == 40 * SECOND


def test_c43_of_two_sleeps_the_one_due_first_resumes_the_run():
    """The other stays pending."""

    async def flow():
        later = sleep(60)
        await sleep(1)
        await s(1)
        await later

    sim = play(flow).wait(2)

    assert awaited(sim) == ["1"]
    assert [wait.op_id for wait in sim.open(events.WaitCreated)] == ["r#1"]


# The loop


@pytest.mark.parametrize("first", ["r#1", "r#2"])
def test_c96_outcomes_resolve_by_their_place_in_the_log(first):
    """Whatever one of them takes to decode: a megabyte before a number, or after it."""

    async def flow():
        told = []

        async def note(call, name):
            await call
            told.append(name)

        await asyncio.gather(note(s("large"), "r#1"), note(s("small"), "r#2"))
        return told

    sim = play(flow)
    results = {"r#1": [["x" * 100] * 10_000], "r#2": 1}
    second = next(op_id for op_id in results if op_id != first)
    sim.turn(sim.completed(first, results[first]), sim.completed(second, results[second]))

    assert sim.result == [first, second]
