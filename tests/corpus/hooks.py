"""Hooks: payloads from outside, typed, raced, in loops, in conflict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corpus.cases import Case, add, echo, is_over, resume, resumes, waited
from durable import HookConflict, Run, create_hook, define_hook, race, sleep, workflow
from durable.testing import Environment


@workflow(name="corpus.hook")
async def hooked() -> str:
    return await echo(await create_hook(token="corpus:hook"))


@dataclass
class Verdict:
    approved: bool
    by: str


verdicts = define_hook(Verdict, name="corpus.verdicts")


@workflow(name="corpus.typed_hook")
async def typed() -> str:
    verdict = await verdicts.create(token="corpus:verdict")
    return await echo(f"{verdict.by}: {verdict.approved}")


@workflow(name="corpus.hook_loop")
async def hook_loop() -> list[int]:
    found = []
    async for number in create_hook(token="corpus:loop"):
        found.append(await add(number, 1))
        if number == 3:
            break
    return found


@workflow(name="corpus.reminded")
async def reminded() -> str:
    """One hook read against a fresh sleep each round: no payload is lost to a round that it has lost."""
    with create_hook(token="corpus:reminded") as hook:

        async def answer() -> str:
            return str(await hook)

        async def reminder() -> None:
            await sleep("365d")

        while True:
            found = await race(answer(), reminder())
            if found is not None:
                return await echo(found)


@workflow(name="corpus.conflict")
async def conflict() -> str:
    first = create_hook(token="corpus:conflict")
    second = create_hook(token="corpus:conflict")
    try:
        await second
    except HookConflict:
        return await echo(await first)
    return "none"


@workflow(name="corpus.reopened")
async def reopened() -> list[str]:
    found = []
    for _ in range(2):
        with create_hook(token="corpus:reopened") as hook:
            found.append(await echo(await hook))
    return found


def answers_each(env: Environment, run: Run[Any]) -> None:
    """Each payload is for a hook of its own, so it waits until that is open: the one before it has the same token."""
    for number, payload in enumerate(("one", "two"), 1):
        while not is_over(run) and _count(waited(env, run), "hook_created") < number and env.jump():
            pass
        if not is_over(run) and _count(run, "hook_received") < number:
            resume(env, run, "corpus:reopened", payload)


def _count(run: Run[Any], kind: str) -> int:
    return sum(event.kind == kind for event in run.events())


CASES = [
    Case(hooked, during=resumes(("corpus:hook", "hello"))),
    Case(typed, during=resumes(("corpus:verdict", Verdict(True, "ann")))),
    Case(hook_loop, during=resumes(*(("corpus:loop", number) for number in (1, 2, 3)))),
    Case(reminded, during=resumes(("corpus:reminded", "yes"))),
    Case(conflict, during=resumes(("corpus:conflict", "mine"))),
    Case(reopened, during=answers_each),
]
