"""
Runs that wait for each thing that a run can wait for, when their database is migrated.

This module runs under the code of every revision of the schema: see record_upgrades.py.  So it uses the API of the
first one, and that of later ones only where there is such an API.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import durable
from durable import (
    FatalError,
    Request,
    RetryableError,
    create_hook,
    create_webhook,
    get_step_metadata,
    race,
    sleep,
    step,
    workflow,
)

#: Over when the tests run.
SHORT = "30s"
#: Not over when the tests run.
LONG = "36500d"

#: The other variant of `changed` does not fit the log that this one writes.
_IS_OTHER_VARIANT = bool(os.environ.get("UPGRADED_OTHER_VARIANT"))

#: The steps that this process has run, as name and attempt.
executed: list[tuple[str, int]] = []


def enter(name: str) -> str:
    """Note that a step is run; with the others in a file, where there is one."""
    executed.append((name, get_step_metadata().attempt))
    if "UPGRADED_LEDGER" in os.environ:
        with Path(os.environ["UPGRADED_LEDGER"]).open("a") as ledger:
            ledger.write(f"{name}\n")
    return name


def stay() -> None:
    """Do not return while the database is recorded: the process is killed here."""
    while os.environ.get("UPGRADED_STAYS"):
        time.sleep(0.02)


@step
def note(name: str) -> str:
    """A step that ends."""
    return enter(name)


@step
def hold(name: str) -> str:
    """A step that runs."""
    enter(name)
    stay()
    return name


@step
def fail_first(name: str) -> str:
    """A step that waits for its second attempt."""
    enter(name)
    if get_step_metadata().attempt == 1:
        raise RetryableError("not the first time", retry_after=SHORT)
    return name


@step
def refuse(name: str) -> str:
    """A step that fails for good."""
    raise FatalError(f"no {enter(name)}")


@step
def answer(request: Request, name: str) -> bool:
    """A step that answers a request, but for the first one, which its process does not survive."""
    said = request.json()
    enter(f"{name}/{said['id']}")
    if said["id"] == "held":
        stay()
    request.respond_with({"answers": said["id"]})
    return bool(said["last"])


@workflow
async def in_step(name: str) -> list[str]:
    return [await note(f"{name}/1"), await hold(f"{name}/2"), await note(f"{name}/3")]


@workflow
async def in_steps(name: str) -> list[str]:
    return await asyncio.gather(*(note(f"{name}/{n}") for n in range(3)), *(hold(f"{name}/{n}") for n in range(3, 5)))


@workflow
async def in_retry(name: str) -> list[str]:
    return [await fail_first(f"{name}/1"), await note(f"{name}/2")]


@workflow
async def in_sleep(name: str) -> list[str]:
    before = await note(f"{name}/1")
    await sleep(SHORT)
    return [before, await note(f"{name}/2")]


@workflow
async def in_long_sleep(name: str) -> list[str]:
    before = await note(f"{name}/1")
    await sleep(LONG)
    return [before, await note(f"{name}/2")]


@workflow
async def at_hook(name: str) -> list[str]:
    hook = create_hook(token=f"of {name}")
    before = await note(f"{name}/1")
    payload = await hook
    return [before, await note(f"{name}/{payload['said']}")]


@workflow
async def at_race(name: str) -> list[str]:
    hook = create_hook(token=f"of {name}")

    async def given() -> str:
        return await note(f"{name}/{(await hook)['said']}")

    async def late() -> str:
        await sleep(SHORT)
        return await note(f"{name}/late")

    return [await note(f"{name}/1"), await race(given(), late())]


@workflow
async def at_webhook(name: str) -> list[str]:
    webhook = create_webhook(respond_with="manual", timeout="1s")
    answered = []
    async for request in webhook:
        answered.append(f"{name}/{request.json()['id']}")
        if await answer(request, name):
            break
    return answered


@workflow
async def changed(name: str) -> list[str]:
    if _IS_OTHER_VARIANT:
        await sleep("1s")
    hook = create_hook(token=f"of {name}")
    before = await note(f"{name}/1")
    return [before, (await hook)["said"]]


@workflow
async def refused(name: str) -> str:
    return await refuse(f"{name}/1")


@workflow
async def with_children(name: str) -> list[Any]:
    """Two children: one runs a step, one sleeps."""
    return await asyncio.gather(in_step(f"{name}/a"), in_sleep(f"{name}/b"))


HAS_CHILDREN = callable(getattr(durable, "patched", None))
HAS_RECEIVERS = callable(getattr(durable, "receiver", None))
HAS_SCHEDULES = callable(getattr(durable, "create_schedule", None))
HAS_GENERATIONS = callable(getattr(durable, "continue_as_new", None))
HAS_LIMITS = callable(getattr(durable, "concurrency", None))
#: Older code has a module of this name.
HAS_PUBLISHED = callable(getattr(durable, "publish", None))
HAS_RUN_LIMITS = callable(getattr(durable, "debounce", None))
HAS_FORKS = hasattr(durable.Run, "fork")

if HAS_CHILDREN:

    @step(semantics="at_most_once")
    def hold_once(name: str) -> str:
        """A step that runs, and may not be run again."""
        enter(name)
        stay()
        return name

    @workflow
    async def in_doubt(name: str) -> list[str]:
        durable.set_attributes(of=name)
        return [await hold_once(f"{name}/1"), await note(f"{name}/2")]


if HAS_RECEIVERS:
    upgraded_orders = durable.receiver("upgraded-orders")

    @upgraded_orders.start
    @workflow
    async def received(request: Request) -> str:
        """It is started by a request."""
        return await note(f"received/{request.json()['id']}")


if HAS_SCHEDULES:

    @workflow
    async def planned(name: str) -> str:
        """It is started by a schedule, which has missed its times."""
        return await note(f"{name}/1")


if HAS_GENERATIONS:

    @workflow
    async def in_generation(name: str, number: int = 0) -> list[str]:
        """It waits in its third generation."""
        done = await note(f"{name}/{number}")
        if number < 2:
            durable.continue_as_new(name, number + 1)
        await sleep(SHORT)
        return [done, await note(f"{name}/{number + 1}")]


if HAS_LIMITS:

    @step(limits=[durable.concurrency("upgraded-steps", 1)])
    def hold_slot(name: str) -> str:
        """A step that has the only slot of a limit, or waits for it."""
        enter(name)
        stay()
        return name

    @workflow
    async def in_line(name: str) -> list[str]:
        return sorted(await asyncio.gather(*(hold_slot(f"{name}/{n}") for n in range(3))))


if HAS_PUBLISHED:

    @workflow
    async def publishing(name: str) -> str:
        durable.publish("stage", "waits")
        said = (await create_hook(token=f"of {name}"))["said"]
        durable.publish("stage", "goes on")
        return await note(f"{name}/{said}")


if HAS_RUN_LIMITS:

    @workflow(limits=[durable.concurrency("upgraded-runs", 1)])
    async def one_by_one(name: str) -> list[str]:
        return [await hold(f"{name}/1")]

    @workflow(limits=[durable.debounce("upgraded-debounce", wait=SHORT)])
    async def debounced(name: str) -> str:
        return await note(f"{name}/1")
