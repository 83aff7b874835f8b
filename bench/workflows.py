"""The workflows that are measured; their steps do nothing and return a small dict with the time of their first line."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from durable import Request, create_hook, create_webhook, emit, rate, sleep, step, workflow


@step(name="bench.stamp")
def stamp(number: int) -> dict[str, Any]:
    """When this line ran."""
    return {"number": number, "at": time.time()}


@step(name="bench.item")
def item(secs: float) -> float:
    """Sleep, as a step does that waits for a server."""
    time.sleep(secs)
    return time.time()


@step(name="bench.answer")
def answer(request: Request) -> dict[str, Any]:
    """Answer the sender with the time just before."""
    at = time.time()
    request.respond_with({"at": at})
    return {"at": at}


@workflow(name="bench.sequence")
async def sequence(length: int, last: int = 1) -> list[float]:
    """One step after the other; the first one's stamp, and those of the *last*."""
    stamps = []
    for number in range(length):
        stamps.append((await stamp(number))["at"])
    return [stamps[0], *stamps[-last:]]


@workflow(name="bench.fan_out")
async def fan_out(count: int) -> int:
    """That many steps at once, gathered."""
    return len(await asyncio.gather(*map(stamp, range(count))))


@step(name="bench.limited", limits=[rate("bench.twenty", 20, per="1s")])
def limited() -> float:
    """When this line ran."""
    return time.time()


@workflow(name="bench.rated")
async def rated(count: int) -> list[float]:
    """The stamps of that many steps with a rate."""
    return await asyncio.gather(*(limited() for _ in range(count)))


@workflow(name="bench.sleeper")
async def sleeper(secs: float) -> list[float]:
    """The stamp of a step before a sleep, and of one after it."""
    before = await stamp(0)
    await sleep(secs)
    after = await stamp(1)
    return [before["at"], after["at"]]


@workflow(name="bench.one_request")
async def one_request() -> dict[str, Any]:
    """Wait for one request, and have it answered."""
    return await answer(await create_webhook(respond_with="manual"))


@workflow(name="bench.held_requests")
async def held_requests(count: int, token: str) -> None:
    """Take that many requests, and answer them once the hook *token* is called."""
    webhook = create_webhook(respond_with="manual", timeout="55s")
    requests = [await webhook for _ in range(count)]
    await create_hook(token)
    await asyncio.gather(*map(answer, requests))


@workflow(name="bench.batch")
async def batch(items: int, at_once: int, secs: float) -> int:
    """That many steps, a bounded number of them *at_once*."""
    slots = asyncio.Semaphore(at_once)

    async def one() -> float:
        async with slots:
            return await item(secs)

    return len(await asyncio.gather(*(one() for _ in range(items))))


@workflow(name="bench.gathered")
async def gathered(items: int, at_once: int, secs: float) -> int:
    """The same without a bound: all at once."""
    return len(await asyncio.gather(*(item(secs) for _ in range(items))))


@workflow(name="bench.completed")
async def completed(items: int, at_once: int, secs: float) -> int:
    """All at once, each taken in when it is done."""
    return len([await each for each in asyncio.as_completed([item(secs) for _ in range(items)])])


@workflow(name="bench.queued")
async def queued(items: int, at_once: int, secs: float) -> int:
    """By so many tasks that take from a queue."""
    waiting: asyncio.Queue[int] = asyncio.Queue()
    for number in range(items):
        waiting.put_nowait(number)

    async def worker() -> int:
        done = 0
        while not waiting.empty():
            waiting.get_nowait()
            await item(secs)
            done += 1
        return done

    return sum(await asyncio.gather(*(worker() for _ in range(at_once))))


@step(name="bench.emits")
def emits(count: int, pace: int, is_loud: bool) -> None:
    """Emit that many items; with a *pace*, so many a second, as from something that the step waits for."""
    began = time.perf_counter()
    for number in range(count):
        if is_loud:
            emit("items", {"number": number, "text": "a word"}, keep=None)
        if pace:
            time.sleep(max(0.0, began + (number + 1) / pace - time.perf_counter()))


@workflow(name="bench.emitting")
async def emitting(count: int, pace: int, is_loud: bool) -> None:
    """One step that emits."""
    await emits(count, pace, is_loud)
