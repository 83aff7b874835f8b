"""Hooks in asyncio's own constructs: no payload is lost when tasks wait, time out, race or pass a hook on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from simulator import Simulator

from durable import HookClosed, create_hook, events, race, sleep
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@step(name="test_hooks_in_asyncio.s")
def s(n: Any) -> Any:
    return n


def play(function: Callable[..., Any], *args: Any, **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(Workflow(function, name=f"test_hooks_in_asyncio.{function.__name__}"), args, **options).turn()


# asyncio's ways to wait


def test_wait_takes_one_payload_of_each_hook():
    """asyncio.wait over two hooks gives the first, and the second is still to be had."""

    async def flow():
        hooks = {name: asyncio.ensure_future(create_hook(token=name)) for name in "ab"}
        done, pending = await asyncio.wait(hooks.values(), return_when=asyncio.FIRST_COMPLETED)
        first = [task.result() for task in done]
        return [*first, await pending.pop()]

    assert play(flow).send("of b", "b").send("of a", "a").result == ["of b", "of a"]


def test_wait_with_a_timeout_loses_no_payload():
    """A task that still waits when asyncio.wait gives up gets the payload that comes then."""

    async def flow():
        task = asyncio.ensure_future(create_hook(token="t"))
        done, _ = await asyncio.wait([task], timeout=5)
        return [len(done), await task]

    assert play(flow).wait(6).send("late").result == [0, "late"]


def test_c53_a_task_that_is_cancelled_while_it_waits_leaves_the_payload():
    """A task around a hook is given up; the next await has what comes then."""

    async def flow():
        hook = create_hook(token="t")
        task = asyncio.ensure_future(hook)
        await s(1)
        task.cancel()
        await asyncio.wait([task])
        return await hook

    assert play(flow).complete("s").send("kept").result == "kept"


def test_wait_for_takes_a_payload_in_time():
    """And one that is too late is the next await's."""

    async def flow():
        hook = create_hook(token="t")
        first = await asyncio.wait_for(hook, 5)
        try:
            await asyncio.wait_for(hook, 5)
        except TimeoutError:
            return [first, await hook]

    assert play(flow).send("in time").wait(6).send("late").result == ["in time", "late"]


def test_as_completed_gives_payloads_in_the_order_of_the_log():
    """Whichever hook was created first."""

    async def flow():
        hooks = [create_hook(token=name) for name in "abc"]
        return [await each for each in asyncio.as_completed(hooks)]

    assert play(flow).send(1, "c").send(2, "a").send(3, "b").result == [1, 2, 3]


def test_c20_a_fan_in_of_hooks_sleeps_and_steps():
    """gather has each outcome in its place, whatever came first."""

    async def flow():
        return await asyncio.gather(create_hook(token="a"), sleep(5), s(1), create_hook(token="b"))

    sim = play(flow).send("of b", "b").complete("s", 10).wait(6).send("of a", "a")

    assert sim.result == ["of a", None, 10, "of b"]


def test_a_timeout_around_a_loop_ends_it_and_closes_the_hook():
    """What came in time was taken; leaving the loop by the timeout stops listening."""

    async def flow():
        seen = []
        try:
            async with asyncio.timeout(5):
                async for payload in create_hook(token="t"):
                    seen.append(payload)
        except TimeoutError:
            await s("over")
        return seen

    sim = play(flow).send(1).send(2).wait(6)

    assert [e.kind for e in sim.log[-3:]] == ["wait_completed", "hook_closed", "step_created"]
    assert sim.complete("s").result == [1, 2]


# Handed on


def test_a_hook_may_be_handed_to_a_task():
    """The task takes what it wants, and the main task goes on with the rest."""

    async def two_of(hook):
        return [await hook, await hook]

    async def flow():
        hook = create_hook(token="t")
        task = asyncio.create_task(two_of(hook))
        await s(1)
        return [await task, await hook]

    sim = play(flow)
    sim.turn(*[sim.sent(n) for n in range(3)])

    assert sim.complete("s").result == [[0, 1], 2]


def test_two_loops_over_one_hook_share_its_payloads():
    """Each payload goes to one of them; the first to leave its loop closes the hook, and the other ends."""

    async def listen(hook, last):
        seen = []
        async for payload in hook:
            seen.append(payload)
            if payload == last:
                break
        return seen

    async def flow():
        hook = create_hook(token="t")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(listen(hook, "end")) for _ in range(2)]
        return [task.result() for task in tasks]

    first, second = play(flow).send(1).send(2).send(3).send("end").result

    assert sorted(map(str, [*first, *second])) == ["1", "2", "3", "end"]


def test_a_hook_closed_by_another_task_ends_the_wait():
    """The task that awaits the hook gets HookClosed."""

    async def waits(hook):
        try:
            await hook
        except HookClosed:
            return "closed"

    async def flow():
        hook = create_hook(token="t")
        task = asyncio.create_task(waits(hook))
        await sleep(5)
        hook.close()
        return await task

    assert play(flow).wait(6).result == "closed"


# Races


def test_c53_two_hooks_in_one_race_keep_what_they_lost():
    """The loser's payload, also one that was queued already, is its next awaiter's."""

    async def flow():
        a, b = create_hook(token="a"), create_hook(token="b")
        await s(1)
        return [await race(a, b), await race(a, b), await race(a, b)]

    sim = play(flow)
    sim.turn(sim.sent("b1", "b"), sim.sent("a1", "a"), sim.sent("b2", "b"))

    assert sim.complete("s").result == ["b1", "a1", "b2"]


@pytest.mark.parametrize("together", [True, False], ids=["in one turn", "in turns of their own"])
def test_c53_rounds_of_a_race_lose_no_payload(together):
    """A hook against a sleep, round after round: payloads come before, in and between the rounds."""

    async def flow():
        hook, seen = create_hook(token="t"), []
        while len(seen) < 6:
            payload = await race(hook, sleep(1))
            if payload is not None:
                seen.append(payload)
            if payload == 2:
                await s(1)
        return seen

    sim = play(flow).send(1).wait(3)
    news = [sim.sent(n) for n in (2, 3, 4)]
    for turn in [news] if together else [[each] for each in news]:
        sim.turn(*turn)
    sim.complete("s").wait(2).send(5).wait(1).send(6)

    assert sim.result == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("first", ["payload", "deadline"])
def test_c67_c53_a_payload_at_the_very_deadline(first):
    """Both are news of one turn: what came first wins, and the run ends once."""

    async def flow():
        hook = create_hook(token="t")

        async def payload():
            return await hook

        async def deadline():
            await sleep(5)
            return "late"

        return await race(payload(), deadline())

    sim = play(flow)
    wait = events.WaitCompleted(at=0, op_id=sim.open(events.WaitCreated)[0].op_id)
    news = [sim.sent("payload"), wait]
    sim.turn(*(news if first == "payload" else reversed(news)))

    assert sim.result == ("payload" if first == "payload" else "late")
    assert [e.op_id for e in sim.log if isinstance(e, events.WaitCancelled)] == []


def test_a_cancel_beside_an_outcome_ends_the_run_once():
    """The step that the cancel gave up ends in the same turn: its outcome is recorded, and no withdrawal."""

    async def flow():
        await s(1)

    sim = play(flow)
    sim.turn(events.RunCancelRequested(at=0), sim.completed("s", 1))

    assert sim.outcome.status == "cancelled"
    assert [e.kind for e in sim.log if e.op_id == "r#1"] == ["step_created", "step_completed"]
