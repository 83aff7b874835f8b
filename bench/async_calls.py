"""
``python -m bench.async_calls``: what a client call costs in an event loop.  Prints JSON.

The calls are made one after the other, in both forms by turns, so that a busy machine
slows both.  Then many waiters wait for one run: how soon has the last of them the result?
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from typing import Any

from celery import Celery

from durable import Durable, create_hook, workflow
from durable.turns.drive import drive

from . import servers
from .figures import ms

_CALLS = 300
_TOGETHER = 64


@workflow(name="bench.async_calls")
async def listening() -> str:
    """Wait for one payload."""
    return str(await create_hook())


async def one_by_one(engine: Durable) -> dict[str, float]:
    """Medians in milliseconds of a read and of a start, in both forms."""
    run = engine.start(listening)
    took: dict[str, list[float]] = {"status": [], "astatus": [], "start": [], "astart": []}
    for _ in range(_CALLS):
        began = time.perf_counter()
        _ = run.status
        took["status"].append(time.perf_counter() - began)
        began = time.perf_counter()
        await run.astatus()
        took["astatus"].append(time.perf_counter() - began)
        began = time.perf_counter()
        engine.start(listening)
        took["start"].append(time.perf_counter() - began)
        began = time.perf_counter()
        await engine.astart(listening)
        took["astart"].append(time.perf_counter() - began)
    return {f"{name}_ms": round(ms(statistics.median(each)), 2) for name, each in took.items()}


async def together(engine: Durable) -> float:
    """Reads a second while so many tasks read all the time."""
    run = engine.start(listening)
    began = time.perf_counter()

    async def read() -> None:
        for _ in range(20):
            await run.astatus()

    await asyncio.gather(*(read() for _ in range(_TOGETHER)))
    return round(20 * _TOGETHER / (time.perf_counter() - began))


async def waiting(engine: Durable, waiters: int) -> dict[str, Any]:
    """How long after the end of a run the last of its waiters has the result."""
    run = engine.start(listening)
    drive(engine, run.id)
    tasks = [asyncio.create_task(run.aresult(timeout="60s")) for _ in range(waiters)]
    while engine.completions.count < waiters:
        await asyncio.sleep(0.05)
    await engine.aresume_hook(run.hooks()[0]["token"], "done")
    began = time.perf_counter()
    await asyncio.to_thread(drive, engine, run.id)
    await asyncio.gather(*tasks)
    return {"waiters": waiters, "last_result_ms": round(ms(time.perf_counter() - began))}


async def measure(engine: Durable, waiters: int) -> dict[str, Any]:
    """All of it."""
    found: dict[str, Any] = await one_by_one(engine)
    return found | {"reads_per_sec": await together(engine)} | await waiting(engine, waiters)


def main(arguments: list[str]) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.async_calls", description=__doc__)
    parser.add_argument("--waiters", type=int, default=1000)
    parser.add_argument("--database", choices=servers.DATABASES, default="postgresql")
    options = parser.parse_args(arguments)
    with servers.database(options.database) as database_url, servers.redis_database() as broker_url:
        os.environ.update({"DURABLE_DATABASE_URL": database_url, "DURABLE_BROKER_URL": broker_url})
        engine = Durable(Celery("bench-async"))
        engine.migrate()
        try:
            print(json.dumps({"database": options.database} | asyncio.run(measure(engine, options.waiters))))
        finally:
            engine.close()


if __name__ == "__main__":
    main(sys.argv[1:])
