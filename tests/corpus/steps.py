"""Steps: chains, retries, failures, timeouts, delivery."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import sqlalchemy as sa

from corpus.cases import Case, add, echo, is_over
from durable import (
    FatalError,
    RetryableError,
    Run,
    StepFailed,
    emit,
    get_step_metadata,
    heartbeat,
    now,
    publish,
    random,
    set_attributes,
    sleep,
    step,
    step_session,
    uuid4,
    workflow,
)
from durable.current import current_engine
from durable.store.schema import attributes
from durable.testing import Environment


@workflow(name="corpus.chain")
async def chain(n: int) -> int:
    for number in range(3):
        n = await add(n, number)
    return n


@step(name="corpus.flaky", max_retries=8, retry_backoff=0.5, retry_jitter=False)
def flaky() -> str:
    if get_step_metadata().attempt < 3:
        raise RetryableError("not yet")
    return "at last"


@workflow(name="corpus.retried")
async def retried() -> str:
    return await flaky()


@step(name="corpus.refuses")
def refuses(what: str) -> None:
    raise FatalError(f"no {what}")


@workflow(name="corpus.caught")
async def caught() -> str:
    try:
        await refuses("money")
    except FatalError as error:
        return await echo(str(error))
    return "paid"


@workflow(name="corpus.uncaught")
async def uncaught() -> None:
    await add(1, 1)
    await refuses("hope")


@workflow(name="corpus.compensated")
async def compensated() -> list[str]:
    done: list[str] = []
    try:
        done.append(await echo("reserved"))
        await refuses("seats")
    except (FatalError, StepFailed):
        done.append(await echo("released"))
    return done


@step(name="corpus.wide", max_retries=9, retry_backoff=600)
def wide() -> int:
    if get_step_metadata().attempt == 1:
        raise RetryableError("come back", retry_after="2h")
    return 7


@workflow(name="corpus.patient")
async def patient() -> int:
    return await wide()


@step(name="corpus.told", retry_backoff=0)
def told() -> str:
    heartbeat({"half": True})
    set_attributes(phase="told")
    return "told"


@workflow(name="corpus.attributes")
async def attributed() -> str:
    set_attributes(customer="acme")
    return await told()


@step(name="corpus.shows", retry_backoff=0)
def shows(number: int) -> int:
    publish("progress", number)
    publish("progress", number + 1)
    return number


@workflow(name="corpus.published")
async def published() -> int:
    publish("url", "https://example.com/1")
    first = await shows(1)
    publish("url", "https://example.com/2")
    return first + await shows(10)


@step(name="corpus.tells", retry_backoff=0)
def tells(number: int) -> int:
    emit("words", f"{number} a", on_retry="discard")
    emit("words", f"{number} b", on_retry="discard")
    emit("answer", number, on_retry="discard", until="step")
    return number


@workflow(name="corpus.emitted")
async def emitted() -> int:
    emit("turns", "first")
    one = await tells(1)
    emit("turns", "second")
    two = await tells(2)
    emit("turns", "third")
    return one + two


def streams_of(run: Run[Any]) -> tuple[Any, ...]:
    """The result, and each item once and in order whatever has crashed."""
    return run.result(timeout=0), *(list(run.stream(each)) for each in ("turns", "words", "answer"))


@step(name="corpus.books", semantics="transactional", retry_backoff=0, max_retries=9)
def books(amount: int) -> int:
    session = step_session()
    run_id = get_step_metadata().run_id
    session.execute(sa.insert(attributes).values(run_id=run_id, name=f"booked-{amount}", value="once"))
    return amount


@workflow(name="corpus.transactional")
async def transactional() -> int:
    return await books(1) + await books(2)


@step(name="corpus.slow", timeout=0.05, retry_backoff=0)
def slow() -> str:
    """Its first attempt hangs, and is interrupted."""
    if get_step_metadata().attempt == 1:
        threading.Event().wait(30)
    return "slow"


@step(name="corpus.slow_async", timeout=0.05, retry_backoff=0)
async def slow_async() -> str:
    if get_step_metadata().attempt == 1:
        await asyncio.sleep(30)
    return "async"


@workflow(name="corpus.timeouts")
async def timeouts() -> list[str]:
    return [await slow(), await slow_async()]


@step(name="corpus.resumable", max_retries=9, retry_backoff=0)
def resumable() -> list[int]:
    """Goes on where the attempt before it was when it died."""
    done = list(get_step_metadata().heartbeat or [])
    while len(done) < 3:
        done.append(len(done))
        heartbeat(done)
        if len(done) == 2:
            raise RetryableError("tired")
    return done


@workflow(name="corpus.beats")
async def beats() -> list[int]:
    return await resumable()


#: How often the card was charged, by the database of the run.
charged: Counter[str] = Counter()


@step(name="corpus.charge", semantics="at_most_once")
def charge(amount: int) -> str:
    charged[str(current_engine().store.url)] += 1
    return f"receipt of {amount}"


@workflow(name="corpus.at_most_once")
async def pays_once() -> str:
    return await echo(await charge(5))


def asks_the_bank(env: Environment, run: Run[Any]) -> None:
    """An operator: says of a step in doubt what it came to, as `durable runs resolve` does."""
    env.run_until_idle()
    while not is_over(run):
        if run.status == "blocked":
            run.resolve(result="receipt of 5")
            env.run_until_idle()
        elif not env.jump():
            return


def charged_once(run: Run[Any]) -> tuple[str, bool]:
    assert run._engine is not None
    return run.result(timeout=0), charged[str(run._engine.store.url)] <= 1


@workflow(name="corpus.own_values")
async def own_values() -> list[Any]:
    began = now()
    drawn = [random().randrange(1000), uuid4().hex, random().random()]
    await sleep("1m")
    return [*drawn, (now() - began).total_seconds() >= 60, await echo("end")]


CASES = [
    Case(chain, (1,)),
    Case(retried),
    Case(caught),
    Case(uncaught),
    Case(compensated),
    Case(patient),
    Case(attributed, outcome=lambda run: (run.result(timeout=0), run.attributes)),
    Case(published, outcome=lambda run: (run.result(timeout=0), run.values())),
    Case(emitted, outcome=streams_of),
    Case(transactional, outcome=lambda run: (run.result(timeout=0), sorted(run.attributes))),
    Case(timeouts),
    Case(beats),
    Case(pays_once, (), asks_the_bank, charged_once),
    Case(own_values),
]
