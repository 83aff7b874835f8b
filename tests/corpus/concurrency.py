"""Several things at once: what asyncio offers, and races."""

from __future__ import annotations

import asyncio

from corpus.cases import Case, add, echo
from corpus.steps import flaky, refuses
from durable import patched, race, sleep, workflow


@workflow(name="corpus.fan_out")
async def fan_out(width: int) -> list[int]:
    return list(await asyncio.gather(*(add(number, 1) for number in range(width))))


@workflow(name="corpus.gather_fails")
async def gather_fails() -> list[str]:
    found = await asyncio.gather(echo("a"), refuses("b"), echo("c"), return_exceptions=True)
    return [str(each) for each in found]


@workflow(name="corpus.raced")
async def raced() -> str:
    async def late() -> str:
        await sleep("1d")
        return "late"

    return await race(flaky(), late())


@workflow(name="corpus.sleep_wins")
async def sleep_wins() -> list[int]:
    order = []

    async def nap(minutes: int) -> None:
        await sleep(f"{minutes}m")
        order.append(minutes)

    await asyncio.gather(nap(3), nap(1), nap(2))
    return order


@workflow(name="corpus.timed_out")
async def timed_out() -> str:
    try:
        async with asyncio.timeout(60):
            await sleep("1h")
    except TimeoutError:
        return await echo("timed out")
    return "slept"


@workflow(name="corpus.group")
async def group() -> int:
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(_twice(1))
        second = tasks.create_task(_twice(2))
    return first.result() + second.result()


async def _twice(number: int) -> int:
    await sleep("10s")
    return await add(number, number)


@workflow(name="corpus.group_fails")
async def group_fails() -> str:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_twice(1))
            tasks.create_task(_refused())
    except ExceptionGroup as errors:
        return await echo(f"group failed: {errors.exceptions[0]}")
    return "no"


async def _refused() -> None:
    await refuses("group")


@workflow(name="corpus.queue")
async def queue() -> list[int]:
    waiting: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        for number in range(3):
            await waiting.put(await add(number, 10))

    producer = asyncio.create_task(produce())
    found = [await waiting.get() for _ in range(3)]
    await producer
    return found


@workflow(name="corpus.as_completed")
async def as_completed() -> list[int]:
    async def nap(hours: int) -> int:
        await sleep(f"{hours}h")
        return await add(hours, 0)

    return [await each for each in asyncio.as_completed([nap(3), nap(1), nap(2)])]


@workflow(name="corpus.limited")
async def limited() -> list[int]:
    places = asyncio.Semaphore(2)

    async def one(number: int) -> int:
        async with places:
            await sleep("1s")
            return await add(number, 1)

    return list(await asyncio.gather(*(one(number) for number in range(4))))


@workflow(name="corpus.loop")
async def loop() -> int:
    total = 0
    for _ in range(3):
        await sleep("1d")
        total = await add(total, 1)
    return total


@workflow(name="corpus.patched")
async def newer() -> int:
    if patched("twice"):
        return await add(2, 2)
    return await add(1, 1)


@workflow(name="corpus.wide")
async def wide() -> list[int]:
    """So many steps at once that some are offered."""
    return list(await asyncio.gather(*(add(number, number) for number in range(19))))


CASES = [
    Case(fan_out, (4,)),
    Case(wide),
    Case(gather_fails),
    Case(raced),
    Case(sleep_wins),
    Case(timed_out),
    Case(group),
    Case(group_fails),
    Case(queue),
    Case(as_completed),
    Case(limited),
    Case(loop),
    Case(newer),
]
