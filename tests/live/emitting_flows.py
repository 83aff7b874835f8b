"""A step that emits for some seconds, for the tests that kill its process."""

from __future__ import annotations

import time

from durable import emit, step, workflow

ITEMS = 400


@step(name="emitting_flows.counts", retry_backoff=0)
def counts() -> int:
    for number in range(ITEMS):
        emit("numbers", number)
        time.sleep(0.005)
    return ITEMS


@workflow(name="emitting_flows.counting")
async def counting() -> int:
    return await counts()
