"""A run that fails, and its forks: at the step that has failed, and behind an earlier event."""

from __future__ import annotations

import asyncio
from typing import Any

from corpus.cases import Case, add, is_over, waited
from durable import FatalError, Run, create_hook, get_step_metadata, step, workflow
from durable.store import fork_run
from durable.testing import Environment


@step(name="corpus.pay", retry_backoff=0)
def pay(amount: int) -> str:
    """Fails in the run that calls it first, and not in a fork, which keeps the key."""
    metadata = get_step_metadata()
    if metadata.idempotency_key.startswith(metadata.run_id):
        raise FatalError("the card has expired")
    return f"{metadata.idempotency_key} paid {amount}"


@workflow(name="corpus.forked")
async def forked(token: str) -> list[Any]:
    hook = create_hook(token)
    first, beside = await asyncio.gather(add(1, 2), add(3, 4))
    async with asyncio.timeout(3600):
        return [first, beside, await hook, await pay(first)]


def forks_twice(env: Environment, run: Run[Any]) -> None:
    """Resume the hook once, let the run fail, and fork it unless that was done: two forks, one after the other."""
    env.run_until_idle()
    if not is_over(run) and not any(event.kind == "hook_received" for event in waited(env, run).events()):
        env.resume("corpus:forked", "go")
    while not is_over(run) and env.jump():
        pass
    paid = next(event.seq for event in run.events() if getattr(event, "name", "") == "corpus.pay")
    for number, behind in enumerate((None, paid)):
        if len(_forks(env, run)) == number:
            run.fork(from_event=behind)
        for fork in _forks(env, run):
            env.finish(fork)


def _forks(env: Environment, run: Run[Any]) -> list[Run[Any]]:
    with env.store.read() as tx:
        return [env.engine.get_run(row.id) for row in fork_run.forks_of(tx, [run.id])]


def ends(run: Run[Any]) -> Any:
    """How the run and its forks have ended."""
    engine = run._engine
    with engine.store.read() as tx:
        rows = fork_run.forks_of(tx, [run.id])
    return [run.status, *(engine.get_run(row.id).result(0) for row in rows)]


CASES = [Case(forked, args=("corpus:forked",), during=forks_twice, outcome=ends)]
