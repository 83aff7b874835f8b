"""
More workflows whose histories are kept: what asyncio does differently from one Python to the next.

``programs.py`` takes their recordings in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from simulator import Simulator

from durable.registry.decorators import step, workflow


@step(name="asyncio_programs.fetch")
def fetch(n: int) -> int:
    return n * 10


@workflow(name="asyncio_programs.pages")
async def pages() -> list[Any]:
    """Asynchronous generators, read to the end, left by break, and closed by hand; a context manager with steps."""
    seen: list[Any] = []

    @contextlib.asynccontextmanager
    async def reserved(n: int) -> AsyncIterator[int]:
        yield await fetch(n)
        seen.append(await fetch(n + 1))

    async def numbers(first: int, count: int) -> AsyncGenerator[int]:
        try:
            for n in range(first, first + count):
                yield await fetch(n)
        finally:
            seen.append(f"closed {await fetch(first + 90)}")

    async with reserved(1) as place:
        seen += [place] + [n async for n in numbers(2, 2)]
    async for n in numbers(4, 9):
        seen.append(n)
        break
    async with contextlib.aclosing(numbers(6, 9)) as found:
        async for n in found:
            seen.append(n)
            break
    await asyncio.sleep(1)
    return seen


@workflow(name="asyncio_programs.market")
async def market() -> list[Any]:
    """A queue with room for one, a condition whose waiters are cancelled before and after they were notified."""
    told: list[Any] = []
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    bell = asyncio.Condition()

    async def produce() -> None:
        for n in range(4):
            await queue.put(await fetch(n))

    async def listen(name: str) -> None:
        try:
            async with bell:
                await bell.wait()
                told.append(name)
        finally:
            told.append(f"{name} left {await fetch(50)}")

    producer = asyncio.create_task(produce())
    listeners = [asyncio.create_task(listen(name)) for name in "abcd"]
    for n in range(4):
        told.append(await queue.get())
        if n == 1:
            listeners[0].cancel()
        if n == 2:
            async with bell:
                bell.notify()
            listeners[1].cancel()
    await producer
    await asyncio.wait(listeners, timeout=5)
    for each in listeners:
        each.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)
    return told


@workflow(name="asyncio_programs.deadlines")
async def deadlines() -> list[Any]:
    """Groups that fail while they are cancelled, nested; a shield; as_completed with an end; a moved timeout."""
    told: list[Any] = []

    async def stubborn(n: int) -> None:
        try:
            await fetch(n)
        finally:
            raise ValueError(f"cleanup of {n}")

    async def named(n: int) -> int:
        return await fetch(n)

    try:
        async with asyncio.timeout(5):
            try:
                async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
                    outer.create_task(stubborn(1))
                    inner.create_task(stubborn(2))
            except* ValueError as caught:
                told.append(len(caught.exceptions))
            told.append(await fetch(3))
    except TimeoutError:
        told.append("late")
    kept = asyncio.create_task(named(4))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(kept), 5)
    try:
        for ended in asyncio.as_completed([named(n) for n in (5, 6, 7)], timeout=10):
            told.append(await ended)
    except TimeoutError:
        told.append("not all")
    async with asyncio.timeout(1) as limit:
        limit.reschedule(asyncio.get_running_loop().time() + 60)
        told.append(await kept)
    return told


def _pages() -> Simulator:
    return Simulator(pages).turn().work().wait(2).work()


def _market() -> Simulator:
    sim = Simulator(market).turn()
    return sim.complete("fetch", 0).complete("fetch", 10).work().wait(6).work()


def _deadlines() -> Simulator:
    sim = Simulator(deadlines).turn().wait(6).wait(6)
    sim.turn(sim.completed("r.6#1", 70), sim.completed("r.4#1", 50))
    return sim.wait(11).work()


RECORDINGS: dict[str, Callable[[], Simulator]] = {"pages": _pages, "market": _market, "deadlines": _deadlines}
