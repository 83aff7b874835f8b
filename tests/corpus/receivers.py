"""Receivers: requests that start runs, that wait for a hook, and that its sender sends again after a crash."""

from __future__ import annotations

from typing import Any

from corpus.cases import Case, During, echo, is_over
from durable import HookNotFound, Request, Run, create_hook, receiver, resume_hook, sleep, step, workflow
from durable.testing import Environment

news = receiver("corpus.news", dedupe="/id")
news.resume(lambda request: f"corpus:{request.json()['about']}", wait="1d")
starts = receiver("corpus.starts", dedupe="/id", each=lambda request: request.json())


@workflow(name="corpus.awaited_requests")
async def awaited_requests() -> list[str]:
    """The first request comes before the hook is open."""
    await sleep("1m")
    found = []
    async for request in create_hook(token="corpus:news"):
        found.append(await echo(request.json()["id"]))
        if len(found) == 2:
            break
    return found


@step(name="corpus.tell", retry_backoff=0)
def tell(request: Request) -> None:
    try:
        resume_hook("corpus:started", request.json()["id"])
    except HookNotFound:
        return  # an attempt before this one has told


@starts.start
@workflow(name="corpus.on_request")
async def on_request(request: Request) -> None:
    await tell(request)


@workflow(name="corpus.told_by_a_started_run")
async def told() -> str:
    return await echo(await create_hook(token="corpus:started"))


def starts_once_awaited(env: Environment, run: Run[Any]) -> None:
    """The started run tells this one, whose hook has to be open then."""
    while not is_over(run) and not run.hooks() and env.jump():
        pass
    sends("corpus.starts", [{"id": "one"}])(env, run)


def sends(name: str, *bodies: Any) -> During:
    """A sender that sends all again, since it has not seen all answers."""

    def during(env: Environment, run: Run[Any]) -> None:
        for body in bodies:
            if not is_over(run):
                env.post(f"https://durable.test/.well-known/workflow/v1/receive/{name}", json=body)

    return during


CASES = [
    Case(awaited_requests, during=sends("corpus.news", *({"id": each, "about": "news"} for each in ("one", "two")))),
    Case(told, during=starts_once_awaited),
]
