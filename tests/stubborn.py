"""
``python stubborn.py WHICH``: a workflow that swallows even its own end is parked, and the process exits.

Run by test_loop.py in a process of its own: what would hang is the exit of Python.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from simulator import Simulator

from durable import sleep
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@step
def work(n: int) -> None: ...


WAITS: dict[str, Callable[[], Awaitable[Any]]] = {
    "step": lambda: work(1),
    "sleep": lambda: sleep(1),
    "asyncio.sleep": lambda: asyncio.sleep(1),
    "gather": lambda: asyncio.gather(work(1), asyncio.sleep(1)),
    "task": lambda: asyncio.create_task(asyncio.sleep(1)),
    "event": lambda: asyncio.Event().wait(),
    "wait_for": lambda: asyncio.wait_for(asyncio.Event().wait(), 5),
}


async def stubborn(which: str) -> None:
    while True:
        try:
            await WAITS[which]()
        except BaseException:
            if which not in WAITS:
                raise


if __name__ == "__main__":
    sim = Simulator(Workflow(stubborn, name="stubborn"), (sys.argv[1],), checked=False).turn()
    sim.kept.park()
    print(sim.kept.unclosable)
