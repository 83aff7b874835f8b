"""Runs: children, cancelling with clean-up."""

from __future__ import annotations

import asyncio
from typing import Any

from corpus.cases import Case, add, echo, is_over
from corpus.steps import refuses
from durable import Run, RunFailed, race, set_attributes, sleep, workflow
from durable.testing import Environment


@workflow(name="corpus.child")
async def child(n: int) -> int:
    await sleep("1h")
    return await add(n, n)


@workflow(name="corpus.parent")
async def parent() -> int:
    return sum(await asyncio.gather(child(1), child(2)))


@workflow(name="corpus.failing_child")
async def failing_child() -> None:
    await refuses("children")


@workflow(name="corpus.forgiving_parent")
async def forgiving() -> str:
    try:
        await failing_child()
    except RunFailed as error:
        return await echo(error.message)
    return "no"


@workflow(name="corpus.cleans_up")
async def cleans_up() -> None:
    try:
        await sleep("300d")
    finally:
        set_attributes(cleaned=await echo("up"))


@workflow(name="corpus.cancelled_parent")
async def cancelled_parent() -> int:
    return await child(5)


@workflow(name="corpus.gives_up_child")
async def gives_up_child() -> str:
    """The child loses a race against a shorter sleep, and is cancelled."""

    async def soon() -> str:
        await sleep("1m")
        return "soon"

    async def never() -> str:
        return str(await grandparent())

    return await race(never(), soon())


@workflow(name="corpus.grandparent")
async def grandparent() -> int:
    return await parent()


def cancels(env: Environment, run: Run[Any]) -> None:
    """Cancel once it has begun, unless it is over."""
    env.run_until_idle()
    while run.status == "pending" and env.jump():
        pass
    if not is_over(run):
        run.cancel("enough")
        env.run_until_idle()


CASES = [
    Case(parent),
    Case(forgiving),
    Case(grandparent),
    Case(gives_up_child),
    Case(cleans_up, (), cancels, lambda run: (run.status, run.attributes)),
    Case(cancelled_parent, (), cancels),
]
