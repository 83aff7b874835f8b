"""A call that is used without ``await`` raises; one that was never awaited is warned of when its run has completed."""

from __future__ import annotations

import asyncio
import linecache
import logging
from collections.abc import Callable
from typing import Any

import pytest
from simulator import Simulator

from durable import NotAwaited, race, sleep
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@step(name="test_unawaited.charge")
def charge(amount: int) -> int:
    return amount


def play(function: Callable[..., Any], *args: Any, **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(Workflow(function, name="test_unawaited.flow"), args, **options).turn()


def line(function: Callable[..., Any], text: str) -> str:
    """``file:line`` of the first line of *function* that holds *text*."""
    code = function.__code__
    for number in range(code.co_firstlineno, code.co_firstlineno + 50):
        if text in linecache.getline(code.co_filename, number):
            return f"{code.co_filename}:{number}"
    raise AssertionError(text)


def finish(sim: Simulator) -> None:
    """Run open steps and let time pass until the run has ended."""
    while sim.outcome is None:
        sim.work()
        sim.wait(1)


USES: dict[str, Callable[[Any], object]] = {
    "tested as a condition": lambda call: "paid" if call else "unpaid",
    "used in arithmetic": lambda call: call + 1,
    "compared": lambda call: call == 3,
    "iterated over": lambda call: [*call],
    "indexed": lambda call: call["id"],
    "formatted as text": lambda call: f"charged {call}",
    "asked for its attribute 'status'": lambda call: call.status,
    "given an attribute 'status'": lambda call: setattr(call, "status", "paid"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("call", ["charge", "sleep", "past sleep", "race"])
def test_a_call_used_as_a_value_raises_with_the_fix_and_the_line(use, call):
    """The error names the call, what was done with it, the line, and ``await``."""
    calls: dict[str, Callable[[], Any]] = {
        "charge": lambda: charge(1),
        "sleep": lambda: sleep("1h"),
        "past sleep": lambda: sleep(0),
        "race": lambda: race(sleep("1h"), sleep("2h")),
    }
    found: list[NotAwaited] = []

    async def flow():
        try:
            USES[use](calls[call]())
        except NotAwaited as error:
            found.append(error)

    play(flow)

    error = found[0]
    assert (error.call, error.use) == (f"{call.split()[-1]}(...)", use)
    assert str(error).startswith(f"{error.call} was {use} without `await` ({__file__}:")
    assert f"write `await {error.call}`" in str(error)


@pytest.mark.parametrize(
    "use",
    [
        lambda call: 1 + call,
        lambda call: -call,
        lambda call: call < 3,
        lambda call: call != "x",
        lambda call: 3 in call,
        lambda call: len(call),
        lambda call: str(call),
        lambda call: "a" + call,
        lambda call: [1, 2][call],
        lambda call: round(call),
        lambda call: not call,
    ],
)
def test_every_operator_of_a_value_raises(use):
    """Also with the call on the right, and as an index."""

    async def flow():
        use(charge(1))

    assert "write `await charge(...)`" in str(play(flow, checked=False).kept.fault)


def test_a_condition_says_how_to_ask_for_none():
    """``if call:`` may have meant to ask whether there is a call."""

    async def flow():
        call = charge(1)
        if call:
            await call

    assert "write `is not None`" in str(play(flow, checked=False).kept.fault)


def test_what_asyncio_and_collections_do_with_a_call_is_allowed():
    """Gathering, waiting, keeping, hashing, comparing with other calls, its repr and its own methods raise nothing."""

    async def flow():
        a, b, c, d = (charge(n) for n in range(4))
        calls = [a, b, c, d]
        assert a in calls
        assert calls.index(c) == 2
        assert a not in (b, None)
        assert len({*calls, a}) == 4
        assert {a: 1}[a] == 1
        assert not hasattr(a, "status")
        assert "OpFuture" in repr(a)
        assert not a.done()
        assert asyncio.ensure_future(a) is a
        calls.remove(d)
        done, _ = await asyncio.wait({a, b})
        assert {each.result() for each in done} <= {0, 1}
        values = await asyncio.gather(a, b, c)
        for each in asyncio.as_completed([d]):
            values.append(await each)
        return [*values, await asyncio.wait_for(charge(9), 60), await asyncio.shield(charge(10))]

    sim = play(flow)
    finish(sim)

    assert sorted(sim.result) == [0, 1, 2, 3, 9, 10]


# Never awaited


def warnings_of(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_what_was_never_awaited_is_warned_of_with_its_line(caplog):
    """Once, when the run has completed: a bare sleep, a bare step and a bare race."""

    async def flow():
        sleep("1s")
        kept = await charge(1)
        charge(2)
        sleep(0)
        race(sleep("1h"), sleep("2h"))
        return kept

    sim = play(flow)
    assert warnings_of(caplog) == []
    sim.complete("charge", 7)

    (warning,) = set(warnings_of(caplog))
    assert warning.startswith("Run run-1 has completed without awaiting ")
    for call, text in {
        "sleep(...)": 'sleep("1s")',
        "charge(...)": "charge(2)",
        "race(...)": "race(sleep",
    }.items():
        assert f"{call} ({line(flow, text)})" in warning
    assert line(flow, "kept = await") not in warning
    caplog.clear()
    sim.cold().park()
    assert warnings_of(caplog) == []


def test_a_run_that_awaited_everything_is_not_warned_of(caplog):
    """Also what asyncio, a race or a later line awaited, and what was cancelled."""

    async def flow():
        later, unwanted = charge(1), charge(2)
        unwanted.cancel()
        await race(sleep("1s"), charge(3))
        await asyncio.gather(sleep("1s"), charge(4))
        await asyncio.wait([charge(5)], timeout=1)
        return await later

    sim = play(flow)
    finish(sim)

    assert sim.result == 1
    assert warnings_of(caplog) == []


def test_a_task_that_was_cancelled_is_not_blamed(caplog):
    """It may not have come to the line that awaits; nor has a task that still runs."""

    async def worker():
        call = charge(1)
        await sleep("1h")
        await call

    async def flow():
        await race(worker(), sleep("1s"))
        running = asyncio.create_task(worker())
        await sleep("1s")
        return running.done()

    sim = play(flow)
    finish(sim)

    assert sim.result is False
    assert warnings_of(caplog) == []


def test_a_run_that_fails_is_not_warned_of(caplog):
    """Its error may have come before the line that awaits."""

    async def flow():
        charge(1)
        raise ValueError("no")

    play(flow)

    assert warnings_of(caplog) == []
