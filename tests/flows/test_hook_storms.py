"""Storms on hooks: many payloads against heartbeats and changing hooks, with turns and senders in threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from driving import all_databases, kinds, work

from durable import Durable, HookNotFound, Run, create_hook, race, sleep, workflow
from durable.turns.drive import drive

pytestmark = all_databases()

WORKERS = 2
SENDERS = 3
#: Payloads that each sender sends in a storm.
EACH = 70
#: Rounds with a hook of their own.
ROUNDS = 30


def working(engine: Durable, run: Run[Any]) -> Callable[[], None]:
    """A worker: turns and alarms until the run has ended."""

    def go() -> None:
        while run.status in ("pending", "running"):
            drive(engine, run.id)
            work(engine, run)

    return go


def storm(engine: Durable, run: Run[Any], senders: list[Callable[[], None]], last: Callable[[], Any]) -> Any:
    """Work on the run while all send at once, then do *last*; the run's result."""
    drive(engine, run.id)
    with ThreadPoolExecutor(WORKERS + len(senders)) as threads:
        busy = [threads.submit(working(engine, run)) for _ in range(WORKERS)]
        try:
            for sent in [threads.submit(send) for send in senders]:
                sent.result()
            last()
        except BaseException:
            run.cancel()
            raise
        for worker in busy:
            worker.result()
    return run.result(timeout=1)


@workflow
async def hears_its_heart(token: str) -> list[Any]:
    """Every round races the hook against a sleep so short that either may win."""
    hook = create_hook(token=token)
    seen: list[Any] = []

    async def payload() -> Any:
        return await hook

    async def beat() -> None:
        await sleep("30ms")

    while not seen or seen[-1] != "enough":
        # By turns the hook itself, and a coroutine that awaits it.
        heard = await race(hook if len(seen) % 2 else payload(), beat())
        if heard is not None:
            seen.append(heard)
    return seen


def test_c98_c53_a_heartbeat_beside_a_storm_of_payloads_loses_none(engine, token):
    """Hundreds of payloads, each raced against a tiny sleep: every one is seen once, in its sender's order."""
    run = engine.start(hears_its_heart, token)

    def sender(number: int) -> Callable[[], None]:
        return lambda: [engine.resume_hook(token, f"{number}:{n}") for n in range(EACH)] and None

    seen = storm(engine, run, [sender(n) for n in range(SENDERS)], lambda: engine.resume_hook(token, "enough"))

    assert len(seen) == SENDERS * EACH + 1
    for number in range(SENDERS):
        assert [s for s in seen if s.startswith(f"{number}:")] == [f"{number}:{n}" for n in range(EACH)]
    assert kinds(run).count("hook_received") == len(seen)


@workflow
async def opens_anew(token: str, rounds: int) -> list[Any]:
    """A fresh hook of the same token in each round."""
    seen = []
    for _ in range(rounds):
        with create_hook(token=token) as hook:
            seen.append(await hook)
    return seen


def test_c98_c54_a_token_that_goes_from_hook_to_hook_is_never_unknown(engine, token):
    """One turn closes a hook and opens the next, so a sender always finds one of them."""
    run = engine.start(opens_anew, token, ROUNDS)
    answers: list[bool] = []

    def send() -> None:
        while run.status == "running":
            try:
                engine.resume_hook(token, len(answers))
            except HookNotFound:
                answers.append(run.status != "running")
            else:
                answers.append(True)

    storm(engine, run, [send] * SENDERS, lambda: None)

    assert all(answers)
    assert kinds(run).count("hook_created") == ROUNDS
