"""``map``: one call for each item, at most so many at the same time, with the results in the order of the items."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .loop import DurableLoop


def bounded_map(
    loop: DurableLoop,
    call: Callable[[Any], Awaitable[Any]],
    items: Sequence[Any],
    limit: int,
    return_exceptions: bool,
) -> asyncio.Future[list[Any]]:
    """Start the calls of the first *limit* items, and the next one whenever a call ends.  Returns all results."""
    return loop.create_call(_run(call, items, limit, return_exceptions), "map")


async def _run(
    call: Callable[[Any], Awaitable[Any]], items: Sequence[Any], limit: int, return_exceptions: bool
) -> list[Any]:
    results: list[Any] = [None] * len(items)
    numbers = iter(range(len(items)))  # shared: each worker takes the next item

    async def work() -> None:
        for number in numbers:
            try:
                results[number] = await call(items[number])
            except Exception as error:
                if not return_exceptions:
                    raise
                results[number] = error

    workers = [asyncio.create_task(work()) for _ in range(min(limit, len(items)))]
    try:
        await asyncio.gather(*workers)
    except BaseException:  # the first failure, or the caller is cancelled
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)
        raise
    return results
