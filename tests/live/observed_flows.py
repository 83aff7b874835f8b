"""Workflows whose steps fail, for tests of what Celery's tools see."""

from __future__ import annotations

import contextlib

from celery import shared_task

from durable import get_step_metadata, step, workflow


@step(max_retries=2, retry_backoff=0.01, retry_jitter=False, argsrepr="(an order)")
def flaky(order: str) -> str:
    """Fails once."""
    if get_step_metadata().attempt == 1:
        raise ConnectionError(f"no answer for {order}")
    return order


@step(max_retries=1, retry_backoff=0.01, retry_jitter=False)
def broken(order: str, amount: int) -> None:
    """Fails each time."""
    raise ValueError(f"{order} cannot be charged {amount}")


@shared_task
def adopted_broken(order: str) -> None:
    """A Celery task of the application's, which fails."""
    raise LookupError(f"no {order}")


adopted = step(adopted_broken)


@workflow
async def orders(order: str) -> str:
    """One step that fails once, one that fails at last, and a Celery task that fails."""
    await flaky(order)
    for call in (lambda: broken(order, amount=7), lambda: adopted(order)):
        with contextlib.suppress(ValueError, LookupError):
            await call()
    return await flaky(f"{order} again")
