"""``patched``: changing a workflow's code while runs of it are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from simulator import Simulator

from durable import NonDeterminismError, create_hook, events, patched, sleep
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@step(name="test_patched.s")
def s(n: Any) -> Any:
    return n


@step(name="test_patched.check_fraud")
def check_fraud() -> bool:
    return True


def made(function: Callable[..., Any]) -> Workflow[..., Any]:
    return Workflow(function, name=f"test_patched.{function.__name__}")


def play(function: Callable[..., Any], *args: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(made(function), args).turn()


def deploy(sim: Simulator, function: Callable[..., Any]) -> Simulator:
    """The run goes on with other code: from now on its turns replay its log with *function*."""
    sim.workflow = made(function)
    sim.kept.park()
    sim.kept = sim.cold()
    assert sim.kept.fault is None, str(sim.kept.fault)
    assert sim.kept.take() == []
    return sim


def markers(sim: Simulator) -> list[str]:
    return [e.name for e in sim.log if isinstance(e, events.MarkerRecorded)]


def names(sim: Simulator) -> list[str]:
    """The steps that the run has called, in order."""
    return [name.rpartition(".")[2] for _, name in sim.asked()]


async def before() -> str:
    await s(1)
    await s(2)
    return "old"


async def after() -> str:
    if patched("fraud-check"):
        await check_fraud()
        way = "new"
    else:
        way = "old"
    await s(1)
    await s(2)
    return way


async def once_all_are_new() -> str:
    await check_fraud()
    await s(1)
    await s(2)
    return "new"


def test_a_new_run_takes_the_new_way():
    """It records that it did, once."""
    sim = play(after)

    assert markers(sim) == ["fraud-check"]
    assert sim.complete("check_fraud").complete("s").complete("s").result == "new"
    assert names(sim) == ["check_fraud", "s", "s"]


def test_a_run_that_went_past_the_place_stays_on_the_old_way():
    """To its end, and without a marker; a replay of its finished log agrees."""
    sim = deploy(play(before).complete("s"), after)
    sim.complete("s")

    assert sim.result == "old"
    assert markers(sim) == []
    assert sim.cold().outcome == sim.outcome


def test_a_run_that_has_not_reached_the_place_takes_the_new_way():
    """What lies ahead of a run is new code to it like any other."""

    async def old():
        await s(1)
        await s(2)

    async def new():
        await s(1)
        if patched("later"):
            await check_fraud()
        await s(2)

    sim = deploy(play(old), new).complete("s")

    assert markers(sim) == ["later"]
    assert names(sim) == ["s", "check_fraud"]


def test_adding_one_shifts_no_operation():
    """Steps, sleeps and hooks have the same places as before, so that an old run goes on."""

    async def old():
        hook = create_hook(token="t")
        await sleep(1)
        return await hook

    async def new():
        patched("first")
        hook = create_hook(token="t")
        patched("second")
        await sleep(1)
        patched("third")
        return await hook

    sim = deploy(play(old), new).wait(1).send("payload")

    assert sim.result == "payload"
    assert markers(sim) == ["third"]


def test_it_is_decided_once_for_each_name():
    """A run that took the old way at one place takes it at each later place of that name."""

    async def new():
        ways = [patched("x")]
        await s(1)
        ways.append(patched("x"))
        await s(2)
        return [*ways, patched("x"), patched("another")]

    sim = deploy(play(before), new).complete("s").complete("s")

    assert sim.result == [False, False, False, True]
    assert markers(sim) == ["another"]


def test_in_a_new_run_every_place_of_the_name_is_new():
    """And the marker is recorded at the first."""

    async def flow():
        ways = [patched("x")]
        await s(1)
        return [*ways, patched("x")]

    sim = play(flow).complete("s")

    assert sim.result == [True, True]
    assert markers(sim) == ["x"]


def test_in_a_loop_an_old_run_stays_on_the_old_way_in_every_round():
    """A run does not change its way between two rounds; a new run is new from the first."""

    async def old():
        return [await s("old") for _ in range(3)]

    async def new():
        return [await (s("new") if patched("loop") else s("old")) for _ in range(3)]

    under_way = deploy(play(old).complete("s", 1), new).complete("s", 2).complete("s", 3)
    fresh = play(new).complete("s", 1).complete("s", 2).complete("s", 3)

    assert {e.args for e in under_way.log if isinstance(e, events.StepCreated)} == {'{"n":"old"}'}
    assert {e.args for e in fresh.log if isinstance(e, events.StepCreated)} == {'{"n":"new"}'}
    assert (markers(under_way), markers(fresh)) == ([], ["loop"])


def test_in_a_task_beside_the_others():
    """Tasks that were begun are old, and one that begins after the change with another name is new."""

    async def part(n: int, change: str | None) -> str:
        await s(n)
        if change is not None and patched(change):
            return "new"
        await s(n + 10)
        return "old"

    async def old():
        return await asyncio.gather(part(0, None), part(1, None))

    async def new():
        return await asyncio.gather(part(0, "first"), part(1, "second"))

    sim = deploy(play(old).complete("r.1#1"), new)
    sim.complete("r.2#1").complete("r.1#2")

    assert sim.result == ["old", "new"]
    assert markers(sim) == ["second"]


def test_without_the_old_way_a_run_with_the_marker_goes_on():
    """Once no run is on the old way, the question can go: the marker is left where it is."""
    sim = deploy(play(after).complete("check_fraud"), once_all_are_new)
    sim.complete("s").complete("s")

    assert sim.result == "new"
    assert markers(sim) == ["fraud-check"]


def test_without_the_old_way_a_run_on_it_is_blocked():
    """Nothing is recorded, and the diff says what the log has, what the code asks, and where."""
    sim = play(before).complete("s")

    fault = sim.cold(workflow=made(once_all_are_new)).fault

    assert isinstance(fault, NonDeterminismError)
    assert fault.recorded.startswith('step test_patched.s {"n":1}')
    assert fault.asked.startswith("step test_patched.check_fraud {}")
    assert fault.where is not None
    line = once_all_are_new.__code__.co_firstlineno + 1
    assert fault.where.endswith(f"test_patched.py:{line}")


def test_a_change_without_patched_is_told_apart():
    """The same deploy blocks the run without the question, and does not with it."""
    sim = play(before).complete("s")

    assert sim.cold(workflow=made(once_all_are_new)).fault is not None
    assert sim.cold(workflow=made(after)).fault is None


def test_the_way_is_the_same_while_a_run_is_put_away():
    """A finally that asks, when the workflow is parked, decides nothing."""

    async def flow():
        try:
            await s(1)
        finally:
            patched("cleanup")

    sim = play(flow)
    sim.kept.park()
    sim.kept = sim.cold()
    sim.complete("s")

    assert markers(sim) == ["cleanup"]


@pytest.mark.parametrize("name", ["", "x" * 201, "größer", "a\nb", 1, None])
def test_a_name_is_short_ascii(name):
    """It is part of a key in the log; what does not fit is refused at the call."""

    async def flow():
        with pytest.raises(ValueError, match="printable ASCII"):
            patched(name)

    assert play(flow).outcome.status == "completed"
