"""A workflow and steps that only the new release of a deploy has."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from durable import step, workflow


@step
def parcel(number: int) -> int:
    return number


@step
def loads_truck(folder: str) -> None:
    """Keep a worker busy until the file ``go`` exists."""
    Path(folder, "loading").touch()
    deadline = time.monotonic() + 30
    while not Path(folder, "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@workflow
async def ships(count: int) -> int:
    """Steps that run at once go through the broker: all but one of them have a message."""
    return sum(await asyncio.gather(*(parcel(number) for number in range(count))))


@workflow
async def loads(folder: str) -> str:
    await loads_truck(folder)
    return "loaded"
