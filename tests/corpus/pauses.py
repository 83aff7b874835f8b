"""A run that is paused by itself, and by its workflow, between its steps, with a sleep that ends meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from corpus.cases import Case, add, echo, is_over
from durable import Run, sleep, workflow
from durable.testing import Environment


@workflow(name="corpus.paused")
async def paused() -> list[Any]:
    first, _ = await asyncio.gather(add(1, 2), sleep("1h"))
    await sleep("1h")
    return [first, *await asyncio.gather(echo("a"), echo("b"))]


def pauses_twice(env: Environment, run: Run[Any]) -> None:
    """Pause and resume the run, then its workflow; each again after a crash, which finds it so or does it."""
    engine = env.engine
    if not is_over(run):
        run.pause("a strike")
        env.advance("90m")
        run.resume()
        env.run_until_idle()
    if not is_over(run):
        engine.pause(workflow=paused, reason="a bad deploy")
        env.advance("2h")
        engine.resume(workflow=paused)
    env.finish(run)


CASES = [Case(paused, during=pauses_twice)]
