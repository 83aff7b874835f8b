"""Many at once on one run, on every database: nothing is lost, nothing twice, nobody is turned away."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from driving import all_databases, kinds, work

from durable import Durable, HookNotFound, Run, create_hook, step, workflow
from durable.turns.drive import drive

pytestmark = all_databases()

WORKERS = 3
SENDERS = 4
#: Payloads that each sender sends.
EACH = 10

attempts: Counter[str] = Counter()


@step
def count(run_id: str, payload: str) -> str:
    attempts[f"{run_id}:{payload}"] += 1
    return payload


@workflow
async def collects(run_id: str, token: str) -> list[str]:
    hook = create_hook(token=token)
    counted: list[str] = []
    async for payload in hook:
        if payload == "enough":
            break
        counted.append(await count(run_id, payload))
    return counted


def working(engine: Durable, run: Run[Any]) -> Callable[[], None]:
    """A worker: turns and attempts until the run has ended."""

    def go() -> None:
        while run.status in ("pending", "running"):
            drive(engine, run.id)
            work(engine, run)

    return go


def test_three_workers_and_four_senders_meet_on_one_run(engine):
    """Each payload is taken once, in each sender's order; each step runs once."""
    token = secrets.token_hex(8)
    run = engine.start(collects, token, token)
    drive(engine, run.id)

    def send(sender: int) -> None:
        for number in range(EACH):
            engine.resume_hook(token, f"{sender}:{number}")

    with ThreadPoolExecutor(WORKERS + SENDERS) as threads:
        busy = [threads.submit(working(engine, run)) for _ in range(WORKERS)]
        for sent in [threads.submit(send, sender) for sender in range(SENDERS)]:
            sent.result()
        engine.resume_hook(token, "enough")
        for worker in busy:
            worker.result()

    taken = run.result()
    for sender in range(SENDERS):
        assert [p for p in taken if p.startswith(f"{sender}:")] == [f"{sender}:{n}" for n in range(EACH)]
    assert len(taken) == SENDERS * EACH
    assert {attempts[f"{token}:{payload}"] for payload in taken} == {1}
    assert kinds(run).count("step_created") == SENDERS * EACH


@workflow
async def takes_one(token: str) -> Any:
    return await create_hook(token=token)


def test_c50_an_accepted_payload_is_in_the_log(engine):
    """Senders race the run's end: an accepted payload is in the log, a refused one is not."""
    for _ in range(5):
        token = secrets.token_hex(8)
        run = engine.start(takes_one, token)
        drive(engine, run.id)
        together = threading.Barrier(SENDERS + 1)

        def send(number: int, token: str = token, together: threading.Barrier = together) -> bool:
            together.wait()
            try:
                engine.resume_hook(token, number)
            except HookNotFound:
                return False
            return True

        with ThreadPoolExecutor(SENDERS + 1) as threads:
            sent = [threads.submit(send, number) for number in range(SENDERS)]
            together.wait()
            working(engine, run)()
            accepted = sum(future.result() for future in sent)
        drive(engine, run.id)

        assert kinds(run).count("hook_received") == accepted >= 1


def test_c85_one_token_wanted_by_many_has_one_owner(engine):
    """Eight runs ask for it in the same moment: one holds it, the others are told."""
    token = secrets.token_hex(8)
    started = [engine.start(takes_one, token) for _ in range(8)]
    together = threading.Barrier(8)

    def turn(run: Run[Any]) -> None:
        together.wait()
        drive(engine, run.id)

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(turn, run) for run in started]:
            future.result()

    assert Counter(run.status for run in started) == {"running": 1, "failed": 7}
    (owner,) = [run for run in started if run.status == "running"]
    assert engine.get_hook(token).run_id == owner.id
