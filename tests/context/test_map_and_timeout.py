"""``map`` and ``timeout``: a bounded number of calls at once, and a limit of time as a duration."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from simulator import Simulator

import durable
from durable import NotAwaited, now, sleep, step, timeout
from durable.registry.definitions import Workflow


@step(name="test_map_and_timeout.charge")
def charge(n: Any) -> Any:
    return n


def play(function: Callable[..., Any], **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(Workflow(function, name="test_map_and_timeout.flow"), **options).turn()


# map


def test_results_are_in_the_order_of_the_items_and_the_limit_holds():
    """Three calls run at a time, whichever ends first, and the next starts when one has ended."""

    async def flow():
        return await durable.map(charge, range(7), limit=3)

    sim = play(flow)
    while sim.outcome is None:
        running = list(sim.open_ops)
        assert len(running) <= 3
        sim.complete(running[-1], len(sim.asked()))

    assert sorted(sim.result) == [3, 4, 5, 6, 7, 7, 7]
    assert sim.result != sorted(sim.result)


def test_a_map_without_a_limit_starts_all_calls():
    """As ``gather`` does; of no items it returns an empty list."""

    async def flow():
        return [await durable.map(charge, iter([])), await durable.map(charge, (n for n in range(20)))]

    sim = play(flow)
    assert len(sim.open_ops) == 20
    sim.work()

    assert sim.result == [[], list(range(20))]


def test_the_first_failure_ends_a_map():
    """Its error is raised; running calls are given up and the others never start."""

    async def flow():
        try:
            await durable.map(charge, range(10), limit=2)
        except ValueError as error:
            return str(error)

    sim = play(flow)
    sim.fail(list(sim.open_ops)[1], ValueError("no"))

    assert sim.result == "no"
    assert len(sim.asked()) == 2
    assert [e.kind for e in sim.log].count("step_cancelled") == 1


def test_failures_can_be_results():
    """With ``return_exceptions``, each failure is in the place of its result, and all calls are made."""

    async def flow():
        found = await durable.map(charge, range(3), limit=1, return_exceptions=True)
        return [repr(each) for each in found]

    sim = play(flow)
    sim.complete("charge", 5).fail("charge", ValueError("no")).complete("charge", 6)

    assert sim.result == ["5", "ValueError('no')", "6"]


def test_a_map_takes_any_function_that_returns_an_awaitable():
    """Such as one that makes several calls for each item."""

    async def both(n: int) -> int:
        return await charge(n) + await charge(n)

    async def flow():
        return await durable.map(both, [1, 2, 3], limit=2)

    sim = play(flow)
    sim.work()

    assert sim.result == [2, 4, 6]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
def test_a_limit_is_at_least_one(limit):
    """Anything else is refused at the call."""

    async def flow():
        await durable.map(charge, [1], limit=limit)

    with pytest.raises(ValueError, match="at least 1"):
        play(flow).result  # noqa: B018


def test_a_map_that_is_not_awaited_is_no_list():
    """Using it as one raises, as for other calls."""

    async def flow():
        return list(durable.map(charge, [1]))

    sim = play(flow)
    sim.kept.park()

    with pytest.raises(NotAwaited, match=r"map\(...\) was iterated over"):
        sim.result  # noqa: B018


# timeout


@pytest.mark.parametrize("limit", ["10m", 600, timedelta(minutes=10), "moment"])
def test_a_block_has_the_time_that_a_duration_gives(limit):
    """What sleep takes; when it is over, TimeoutError is raised at that moment of the run's clock."""

    async def flow():
        started = now()
        try:
            async with timeout(now() + timedelta(minutes=10) if limit == "moment" else limit):
                await charge(1)
        except TimeoutError:
            return (now() - started).total_seconds()

    sim = play(flow)
    sim.wait(599)
    assert sim.outcome is None
    sim.wait(2)

    assert sim.result == 600


def test_a_block_that_ends_in_time_leaves_no_timer():
    """None is no limit."""

    async def flow():
        async with timeout("10m"):
            await charge(1)
        async with timeout(None):
            await sleep("1h")
        return "done"

    sim = play(flow)
    sim.work().wait(3600)

    assert sim.result == "done"


@pytest.mark.parametrize("limit", ["ten minutes", -1, float("nan")])
def test_a_malformed_limit_is_refused(limit):
    """With the ValueError of ``sleep``, at the call."""

    async def flow():
        timeout(limit)

    with pytest.raises(ValueError, match="duration"):
        play(flow).result  # noqa: B018


@pytest.mark.parametrize("call", [lambda: timeout("1s"), lambda: durable.map(charge, [])])
def test_outside_a_workflow_they_name_themselves(call):
    """As the other functions for workflows do."""
    with pytest.raises(RuntimeError, match=r"\w+\(\) was called outside a workflow"):
        call()
