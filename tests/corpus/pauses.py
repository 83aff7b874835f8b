"""
Runs that are paused and resumed.

One run by itself and by its workflow, between its steps, with a sleep that ends meanwhile; and one with its child runs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from corpus.cases import Case, add, echo, is_over
from durable import Run, sleep, workflow
from durable.store import run_page, runs
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


@workflow(name="corpus.paused_child")
async def paused_child(n: int) -> int:
    await sleep("1h")
    return await add(n, n)


@workflow(name="corpus.paused_parent")
async def paused_parent() -> list[int]:
    return list(await asyncio.gather(paused_child(1), paused_child(2)))


def pauses_tree(env: Environment, run: Run[Any]) -> None:
    """Pause the run with its child runs while they sleep, and resume them; after a crash it does both again."""
    env.run_until_idle()
    if not is_over(run):
        run.pause("a strike", children=True)
        below = open_children(env, run)
        env.advance("2h")
        assert run.paused, "the parent does not go on"
        assert {each.id: each.paused for each in open_children(env, run)} == dict.fromkeys((c.id for c in below), True)
        run.resume(children=True)
    env.finish(run)


def open_children(env: Environment, run: Run[Any]) -> list[Run[Any]]:
    """The child runs that have not ended."""
    with env.store.read() as tx:
        return [env.engine.get_run(run_id) for run_id in runs.open_children_of(tx, [run.id])]


def ends_of_tree(run: Run[Any]) -> Any:
    """What the run has returned, and the statuses of its child runs, none of which is paused."""
    with run._engine.store.read() as tx:
        children = run_page.children(tx, run.id, 10)
    return run.result(0), [(child.status, child.paused_at) for child in children]


CASES = [Case(paused, during=pauses_twice), Case(paused_parent, during=pauses_tree, outcome=ends_of_tree)]
