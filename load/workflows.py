"""What listens: runs that hold their senders for a while, and runs that take whatever is their sender's."""

from __future__ import annotations

import asyncio
from typing import Any

from durable import Request, create_webhook, sleep, step, verify, workflow

#: The header by which each request is known.
ID = "X-GitHub-Delivery"
SECRET = "LOAD_SECRET"
#: Bytes that a body may have.
MAX_BODY = 16 * 1024


@step(name="load.answer")
def answer(request: Request) -> None:
    """Answer a sender with the id that it gave."""
    request.respond_with({"id": request.headers[ID]})


@workflow(name="load.hold")
async def hold(secs: float) -> None:
    """Hold each request for so long, then have it answered."""

    async def handle(request: Request) -> None:
        await sleep(secs)
        await answer(request)

    tasks: list[asyncio.Task[Any]] = []
    async for request in create_webhook(respond_with="manual", timeout="55s", dedupe=ID):
        tasks.append(asyncio.create_task(handle(request)))


@workflow(name="load.listen")
async def listen() -> None:
    """Take what is signed, once."""
    async for _ in create_webhook(verify=verify.github(f"env:{SECRET}"), max_body=MAX_BODY):
        pass
