"""
``python -m bench.async_calls``: what a client call costs in an event loop.  Prints JSON.

The calls are made one after the other, in both forms by turns, so that a busy machine
slows both: the median time of each, and the CPU time of the process.  On PostgreSQL the
asynchronous form is measured in greenlets, and in threads as other databases have it.
Then many calls at once wait for a slow database, and many waiters wait for one run: how
soon has the last of them the result?
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import threading
import time
from collections import defaultdict
from typing import Any

from celery import Celery

from durable import Durable, create_hook, workflow
from durable.turns.drive import drive

from . import servers
from .figures import ms

_CALLS = 300
_TOGETHER = 64
#: So many calls at once, of which each takes the database so long.
_SLOW = 200
_SLOW_SECS = 0.05


@workflow(name="bench.async_calls")
async def listening() -> str:
    """Wait for one payload."""
    return str(await create_hook())


async def one_by_one(engine: Durable) -> dict[str, Any]:
    """The median of a read and of a start in milliseconds, in each form, and the mean of its CPU time."""
    run = engine.start(listening)
    forms: dict[str, list[float | None]] = {
        "": [None],
        "a": [math.inf, 0.0] if engine.store.waits_in_loop else [math.inf],
    }
    found: dict[str, Any] = {}
    took: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _ in range(_CALLS):
        for prefix, ways in forms.items():
            for way in ways:
                if way is not None:
                    engine.loop_calls.settled_secs = way
                name = {None: "in_thread_of_caller", math.inf: "in_threads", 0.0: "in_greenlets"}[way]
                for call in ("status", "start"):
                    began, used = time.perf_counter(), time.process_time()
                    await _call(engine, run, prefix + call)
                    took[f"{prefix}{call} {name}"].append((time.perf_counter() - began, time.process_time() - used))
    for name, each in took.items():
        times, cpu = zip(*each, strict=True)
        found[name] = {"ms": round(ms(statistics.median(times)), 2), "cpu_ms": round(ms(statistics.mean(cpu)), 2)}
    return found


async def _call(engine: Durable, run: Any, name: str) -> None:
    match name:
        case "status":
            _ = run.status
        case "astatus":
            await run.astatus()
        case "start":
            engine.start(listening)
        case "astart":
            await engine.astart(listening)


async def slow(engine: Durable) -> dict[str, Any]:
    """Many calls at once, each of which the database takes long for: the time of all, and the threads started."""

    def call() -> None:
        with engine.store.read() as tx:
            tx.exec_driver_sql(f"SELECT pg_sleep({_SLOW_SECS})")

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(engine.loop_calls.run(call) for _ in range(_SLOW)))
    return {
        "ms": round(ms(time.perf_counter() - began)),
        "cpu_ms": round(ms(time.process_time() - used)),
        "threads": sum(each.name.startswith("durable-call") for each in threading.enumerate()),
    }


async def together(engine: Durable) -> float:
    """Reads a second while so many tasks read all the time."""
    run = engine.start(listening)

    async def read() -> None:
        for _ in range(20):
            await run.astatus()

    await asyncio.gather(*(run.astatus() for _ in range(_TOGETHER)))
    began = time.perf_counter()
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
    ways = {"in_greenlets": 0.0, "in_threads": math.inf} if engine.store.waits_in_loop else {"in_threads": math.inf}
    for name, way in ways.items():
        engine.loop_calls.settled_secs = way
        found[f"reads_per_sec {name}"] = await together(engine)
    return found | await waiting(engine, waiters)


def measure_slow(pool_size: int) -> dict[str, Any]:
    """Slow calls in threads and in greenlets, each with an engine of its own."""
    found = {}
    for name, way in {"in_threads": math.inf, "in_greenlets": 0.0}.items():
        engine = Durable(Celery("bench-async-slow"), pool_size=pool_size)
        engine.loop_calls.settled_secs = way
        found[f"slow {name}"] = asyncio.run(slow(engine))
        engine.close()
        while any(each.name.startswith("durable-call") for each in threading.enumerate()):
            time.sleep(0.01)
    return found


def main(arguments: list[str]) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.async_calls", description=__doc__)
    parser.add_argument("--waiters", type=int, default=1000)
    parser.add_argument("--database", choices=servers.DATABASES, default="postgresql")
    parser.add_argument("--pool-size", type=int, default=5)
    options = parser.parse_args(arguments)
    with servers.database(options.database) as database_url, servers.redis_database() as broker_url:
        os.environ.update({"DURABLE_DATABASE_URL": database_url, "DURABLE_BROKER_URL": broker_url})
        engine = Durable(Celery("bench-async"), pool_size=options.pool_size)
        engine.migrate()
        try:
            found = asyncio.run(measure(engine, options.waiters))
        finally:
            engine.close()
        if engine.store.waits_in_loop:
            found |= measure_slow(options.pool_size)
        print(json.dumps({"database": options.database, "pool_size": options.pool_size} | found))


if __name__ == "__main__":
    main(sys.argv[1:])
