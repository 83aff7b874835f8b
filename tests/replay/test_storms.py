"""
Storms: many rounds, and news at every wrong moment, drawn by a seed.

The ledger is what the test itself sent, and what steps were asked for; what the
workflow returns is held against it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from simulator import Simulator

from durable import HookClosed, create_hook, events, race, sleep
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@step(name="test_storms.s")
def s(n: Any) -> Any:
    return n


def play(function: Callable[..., Any]) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(Workflow(function, name=f"test_storms.{function.__name__}")).turn()


@pytest.mark.parametrize("seed", range(10))
def test_c98_storm_of_steps_against_watchdogs(seed):
    """Rounds of steps that race sleeps, with a hook that nobody reads: no outcome is lost, taken twice or swapped."""

    async def flow():
        create_hook(token="unread")

        async def watchdog(n):
            await sleep(30 + n)
            return f"late {n}"

        found = []
        for number in range(5):
            calls = [race(s([number, n]), watchdog(n)) for n in range(6)]
            found.append(await asyncio.gather(*calls))
        return found

    rng, sim, ledger = Random(seed), play(flow), {}
    while sim.outcome is None:
        steps = sim.open(events.StepCreated)
        if steps and rng.random() < 0.8:
            chosen = rng.choice(steps)
            ledger[chosen.args[5:-1]] = result = f"result of {chosen.args[5:-1]}"
            news = [sim.completed(chosen.op_id, result)] + ([sim.sent("x", "unread")] if rng.random() < 0.3 else [])
            rng.shuffle(news)
            sim.turn(*news)
        else:
            sim.wait(rng.choice([1, 10, 31]))

    for number, outcomes in enumerate(sim.result):
        assert outcomes == [ledger.get(f"[{number},{n}]", f"late {n}") for n in range(6)]


@pytest.mark.parametrize("seed", range(10))
def test_c98_storm_of_payloads_around_the_watchdogs_deadline(seed):
    """Bursts before, in and after the turn of the deadline: each payload is read once, in the order sent."""

    async def flow():
        hook, got, late = create_hook(token="t"), [], 0
        while len(got) < 20:
            async with asyncio.timeout(5) as limit:
                with contextlib.suppress(asyncio.CancelledError):
                    got.append(await hook)
            late += limit.expired()
        return got

    async def racing():
        hook, got = create_hook(token="t"), []
        while len(got) < 20:
            first = await race(hook, sleep(5))
            if first is not None:
                got.append(first)
        return got

    for made in (flow, racing):
        rng, sim, sent = Random(seed), play(made), []
        while sim.outcome is None:
            burst = [sim.sent(len(sent) + n) for n in range(rng.randint(1, 3))]
            sent += range(len(sent), len(sent) + len(burst))
            due = sim.open(events.WaitCreated)[0]
            if rng.random() < 0.6:  # the deadline in the same turn
                sim.clock = max(sim.clock, due.due_at)
                burst.insert(rng.randint(0, len(burst)), events.WaitCompleted(at=0, op_id=due.op_id))
            sim.turn(*burst)
            if sim.outcome is None and rng.random() < 0.3:
                sim.wait(5)

        assert sim.result == sent[:20]


def test_c98_a_blocked_branch_holds_up_nobody():
    """One branch waits for a payload that never comes, under a lock that only it wants; the others finish."""

    async def flow():
        never, told = create_hook(token="never"), []

        async def blocked():
            await s("blocked")
            await never

        async def busy(n):
            for k in range(4):
                told.append([n, await s(k)])
                await sleep(1)

        branch = asyncio.create_task(blocked())
        await asyncio.gather(*(busy(n) for n in range(3)))
        branch.cancel()
        return told

    sim = play(flow)
    for _ in range(6):
        sim.work().wait(1)

    assert sorted(sim.result) == [[n, k] for n in range(3) for k in range(4)]


@pytest.mark.parametrize("seed", range(10))
def test_c98_wake_loop_with_stale_and_fresh_wakes(seed):
    """One hook against a heartbeat: a beat that lost and rings all the same changes nothing."""

    async def flow():
        hook, told = create_hook(token="t"), []
        while "stop" not in told:
            told.append(await race(hook, beat()))
        return told

    async def beat():
        await sleep(10)
        return "beat"

    rng, sim, sent = Random(seed), play(flow), []
    while sim.outcome is None:
        waits = [e for e in sim.log if isinstance(e, events.WaitCreated)]
        rung = {e.op_id for e in sim.log if isinstance(e, events.WaitCompleted)}
        stale = [e for e in waits if e not in sim.open(events.WaitCreated) and e.op_id not in rung]
        news: list[events.Event] = [events.WaitCompleted(at=0, op_id=e.op_id) for e in stale if rng.random() < 0.5]
        if rng.random() < 0.4:
            news.append(events.WaitCompleted(at=0, op_id=sim.open(events.WaitCreated)[0].op_id))
        sent.append("stop" if len(sent) == 15 else f"payload {len(sent)}")
        news.append(sim.sent(sent[-1]))
        rng.shuffle(news)
        sim.turn(*news)

    assert [each for each in sim.result if each != "beat"] == sent
    assert len(sim.open(events.WaitCreated)) == 0


@pytest.mark.parametrize("seed", range(10))
def test_c98_control_by_a_hook_while_the_run_sleeps(seed):
    """Pause, go on and stop come while a schedule runs: each is obeyed once, in order, and no round runs twice."""

    async def flow():
        control, heard, rounds = create_hook(token="control"), [], 0
        while True:
            command = await race(control, sleep(60))
            if command is None:
                await s(["round", rounds])
                rounds += 1
                continue
            heard.append(command)
            while command == "pause":
                heard.append(command := await control)
            if command == "stop":
                return [rounds, heard]

    rng, sim, sent = Random(seed), play(flow), []
    while sim.outcome is None:
        if rng.random() < 0.5:
            sent.append("stop" if len(sent) >= 8 else rng.choice(["pause", "go on"]))
            sim.send(sent[-1])
        elif rng.random() < 0.5:
            sim.wait(61)
        else:
            sim.work()

    rounds, heard = sim.result
    asked = [event.args for event in sim.log if isinstance(event, events.StepCreated)]
    assert heard == sent[: len(heard)]
    assert heard.index("stop") == len(heard) - 1
    assert asked == [f'{{"n":["round",{n}]}}' for n in range(rounds)]


@pytest.mark.parametrize("seed", range(5))
def test_c98_a_fresh_hook_per_round(seed):
    """Each round opens, reads and closes the same token: payloads go to the round that was open when they came."""

    async def flow():
        told = []
        for number in range(12):
            with create_hook(token="t") as hook:
                told.append([number, await race(hook, sleep(20))])
            with contextlib.suppress(HookClosed):
                while True:
                    told.append([number, await hook])
        return told

    rng, sim, ledger = Random(seed), play(flow), []
    while sim.outcome is None:
        number = len([e for e in sim.log if isinstance(e, events.HookCreated)]) - 1
        if rng.random() < 0.3:
            ledger.append([number, None])
            sim.wait(20)
            continue
        ledger.append([number, len(ledger)])
        sim.send(len(ledger) - 1)

    assert sim.result == ledger
    assert len([e for e in sim.log if isinstance(e, events.HookClosedEvent)]) == 12
