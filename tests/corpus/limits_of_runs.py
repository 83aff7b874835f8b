"""Limits of workflows: children that run one after the other, also over generations, and a start that is debounced."""

from __future__ import annotations

import asyncio

from corpus.cases import Case, add, is_over
from durable import (
    HookNotFound,
    Run,
    concurrency,
    continue_as_new,
    create_hook,
    debounce,
    resume_hook,
    sleep,
    step,
    workflow,
)
from durable.testing import Environment


@workflow(name="corpus.exclusive", limits=[concurrency("corpus.exclusive", 1, key=lambda number, left: "all")])
async def exclusive(number: int, left: int) -> int:
    await sleep("10s")
    if left:
        continue_as_new(number, left - 1)
    return await add(number, 1)


@workflow(name="corpus.one_at_a_time")
async def one_at_a_time() -> list[int]:
    return await asyncio.gather(*(exclusive(number, number % 2) for number in range(3)))


@step(name="corpus.tell_latest", retry_backoff=0)
def tell_latest(number: int) -> None:
    try:
        resume_hook("corpus:latest", number)
    except HookNotFound:
        return  # an attempt before this one has told


@workflow(name="corpus.debounced", limits=[debounce("corpus.debounced", wait="1d")])
async def debounced(number: int) -> None:
    await tell_latest(number)


@workflow(name="corpus.told_by_the_latest")
async def told_by_the_latest() -> int:
    return await add(await create_hook(token="corpus:latest"), 0)


def starts_twice(env: Environment, run: Run[int]) -> None:
    """The run that both starts become tells this one, whose hook has to be open then."""
    while not is_over(run) and not run.hooks() and env.jump():
        pass
    if not is_over(run):
        env.start(debounced, 1)
        env.start(debounced, 2)


CASES = [Case(one_at_a_time), Case(told_by_the_latest, during=starts_twice)]
