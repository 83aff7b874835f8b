"""Workflows whose steps make spans, for tests of traces over processes."""

from __future__ import annotations

import asyncio

from celery import shared_task
from opentelemetry import baggage, trace

from durable import create_webhook, get_step_metadata, sleep, step, workflow


def library(name: str) -> None:
    """What an instrumented library does."""
    with trace.get_tracer("library").start_as_current_span(name):
        pass


@step(name="flaky", max_retries=1, retry_backoff=0.01, retry_jitter=False)
def flaky() -> int:
    library("in flaky")
    if get_step_metadata().attempt == 1:
        raise ConnectionError("no answer")
    return get_step_metadata().attempt


@step(name="coroutine")
async def coroutine() -> object:
    await asyncio.sleep(0)
    library("in coroutine")
    return baggage.get_baggage("customer")


@shared_task(name="adopted")
def adopted_task() -> str:
    library("in adopted")
    return "adopted"


adopted = step(adopted_task)


@workflow(name="inner")
async def inner() -> int:
    return await flaky()


@workflow(name="traced")
async def traced() -> list[object]:
    first = [await flaky(), await coroutine(), await adopted()]
    await sleep(0.05)
    return [*first, *await asyncio.gather(inner(), coroutine())]


@workflow(name="received")
async def received() -> str:
    return (await create_webhook()).text()
