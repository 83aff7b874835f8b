"""Workflows that the tests of the dashboard look at in a browser."""

from __future__ import annotations

import os
from asyncio import gather
from typing import Any

from durable import create_hook, create_webhook, set_attributes, sleep, step, workflow

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"

#: The second release asks for another step than the first has recorded.
RELEASE = os.environ.get("BROWSER_RELEASE", "1")


@step
def note(text: str) -> str:
    return text


@step
def other(text: str) -> str:
    return text


@step(max_retries=1, retry_backoff=0)
def breaks(text: str) -> None:
    raise ValueError(text)


@step(semantics="at_most_once")
def transfers(account: str) -> str:
    """End the process, so that nobody knows whether the step did its work."""
    os._exit(1)


@workflow
async def greets(name: str, loudly: bool = False) -> str:
    set_attributes(customer=name)
    return await note(f"Hello, {name}{'!' if loudly else '.'}")


@workflow
async def approves(token: str) -> Any:
    await note("before")
    payload = await create_hook(token=token)
    await note("after")
    return payload


@workflow
async def naps(text: str) -> str:
    await sleep("30d")
    return await note(text)


@workflow
async def fails(text: str) -> None:
    await breaks(text)


@workflow
async def changes(token: str) -> str:
    await (note if RELEASE == "1" else other)("before")
    await create_hook(token=token)
    return await note("after")


@workflow
async def pays(account: str) -> str:
    return await transfers(account)


@workflow
async def listens() -> str:
    async for request in create_webhook():
        return request.text()
    return ""


@workflow
async def has_a_child(name: str) -> int:
    """A child run beside a step."""
    return len(await gather(greets(name), note("beside it")))


@workflow
async def naps_with_a_child(text: str) -> str:
    """A child run that sleeps."""
    return await naps(text)


@step(queue="nobody")
def count_on(number: int) -> int:
    return number + 1


@workflow(queue="nobody")
async def counts(to: int) -> int:
    """Many steps, of which ten run at once; no worker of the site has this queue."""
    for number in range(0, to, 10):
        await gather(*(count_on(number + each) for each in range(10)))
    return to


@step(name="strange.<i>step</i>", max_retries=0)
def attacked_step(text: str) -> None:
    raise RuntimeError(text)


@workflow(name="strange.<b>workflow</b>")
async def attacked(text: str) -> None:
    """What strangers sent, wherever the pages show it."""
    set_attributes(**{"name<b>": text})
    create_hook(token=text, metadata=text)
    async for request in create_webhook():
        await attacked_step(request.text())
