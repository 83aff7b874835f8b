"""Polling: ask a service that cannot call back, less and less often, until a deadline."""

import asyncio

from durable import sleep, step, workflow


@step
def begin_export(table: str) -> str:
    return f"export-{table}"


@step
def get_state(export: str) -> str:
    """Return ``running``, or the address of the file."""
    return f"s3://exports/{export}.csv"


@workflow
async def export(table: str) -> str:
    job = await begin_export(table)
    pause = 5.0
    async with asyncio.timeout(3600):  # a durable timer, as every timeout in a workflow
        while (state := await get_state(job)) == "running":
            await sleep(pause)
            pause = min(pause * 2, 300)
    return state
