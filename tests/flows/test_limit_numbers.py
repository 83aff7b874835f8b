"""Rates, numbers that are set at run time, and limits that cannot be."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from driving import DATABASES
from limited import Process

from durable import ConfigurationError, RetryableError, concurrency, rate, set_limit, sleep, step, workflow
from durable.cli import main
from durable.client import describe, operate
from durable.recovery import sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import schema
from durable.store.limits import Numbers
from durable.testing import Environment

all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)
PAGE = Path(__file__).parents[2] / "docs/how-to/limits-of-steps.md"

#: When each message was sent, by the environment's clock.
began: list[float] = []
environment: list[Environment] = []


@step(name="limits.sms", limits=[rate("limits.send-sms", 4, per="1s")])
def sms(number: int) -> int:
    began.append(environment[-1].now.timestamp())
    return number


@workflow(name="limits.many")
async def many(count: int) -> int:
    return len(await asyncio.gather(*(sms(number) for number in range(count))))


@step(name="limits.job", limits=[concurrency("limits.jobs", 1, key="shop")])
def job(shop: str, number: int) -> int:
    return number


@workflow(name="limits.work")
async def work(shop: str, count: int) -> int:
    return len(await asyncio.gather(*(job(shop, number) for number in range(count))))


def key_of_bad(what: str) -> Any:
    return {"raises": lambda: 1 / 0, "number": lambda: 7, "long": lambda: "k" * 256, "good": lambda: "k"}[what]()


@step(name="limits.keyed", limits=[concurrency("limits.bad", 1, key=key_of_bad)])
def keyed(what: str) -> str:
    return what


@workflow(name="limits.bad")
async def bad(what: str) -> str:
    return await keyed(what)


#: When each call of a service began that is busy at first, by its key.
called: list[tuple[str, float]] = []


@step(name="limits.busy_call", limits=[concurrency("limits.service", 10, key="shop")])
def call(shop: str, number: int) -> int:
    called.append((shop, environment[-1].now.timestamp()))
    if len(called) == 1:
        raise RetryableError("busy", retry_after="1h", pause="limits.service")
    return number


@step(name="limits.misnamed", limits=[concurrency("limits.service", 10, key="shop")], retry_backoff=0)
def misnamed(shop: str) -> str:
    called.append((shop, 0.0))
    if len(called) == 1:
        raise RetryableError("busy", pause="no.such.limit")
    return shop


@workflow(name="limits.busy_calls")
async def calls(shops: list[str]) -> int:
    """One call after the other is asked for, and all of them at once wait for the service."""
    first = asyncio.ensure_future(call(shops[0], 0))
    await sleep("1s")
    return sum(await asyncio.gather(first, *(call(shop, number) for number, shop in enumerate(shops[1:], 1))))


@workflow(name="limits.misnames")
async def misnames() -> str:
    return await misnamed("acme")


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    made = Process(database)
    yield made
    made.close()


def test_c77_a_rate_holds_over_a_minute():
    """240 calls at four a second take a minute, and no second has more than four and the burst."""
    began.clear()
    with Environment() as env:
        environment.append(env)
        assert env.run(many, 240) == 240

    took = began[-1] - began[0]
    assert 59 <= took <= 61
    assert max(sum(at <= each < at + 1 for each in began) for at in began) <= 5


@pytest.mark.parametrize(("burst", "most"), [(None, 124), (20, 119), (1, 100)])
def test_within_any_period_of_a_rate_at_most_its_number_and_its_burst_begin(burst, most):
    """100 a second, after a quiet time: those of the burst begin at once, and then one every 10 ms."""
    limit = rate("x", 100, per="1s", burst=burst)
    numbers, recovers_at, begin_at = Numbers(*limit.numbers), 0, list[int]()
    for now in range(0, 5_000_000, 1_000):
        room = numbers.room(0, recovers_at, now)
        begin_at += [now] * room
        recovers_at = max(recovers_at, now) + room * numbers.share

    in_a_second = max(sum(at <= each < at + 1_000_000 for each in begin_at) for at in begin_at)
    assert in_a_second == most < limit.n + (limit.burst or 0)
    assert len(begin_at) == (limit.burst or 0) + 499


def test_an_error_that_names_a_limit_pauses_its_key():
    """Calls of the same key begin an hour later, with the retry; those of another key begin at once."""
    called.clear()
    with Environment() as env:
        environment.append(env)
        assert env.run(calls, ["acme", "acme", "other"]) == 3

    (_, began_at), *others = called
    waited = sorted((shop, round(at - began_at)) for shop, at in others)
    assert waited == [("acme", 3600), ("acme", 3600), ("other", 1)]


def test_a_pause_of_a_limit_that_the_step_does_not_have_is_warned_of(caplog):
    """The step is retried all the same."""
    called.clear()
    with Environment() as env:
        assert env.run(misnames) == "acme"

    assert "RetryableError(pause='no.such.limit') names none of the step's limits" in caplog.text


@all_databases
def test_a_rate_sends_no_more_than_its_burst_at_once(process):
    """A burst of one: the other calls have no message yet, and the key says when the next one has."""
    process.start(many, 3)

    assert len(process.sent) == 1
    (key,) = process.rows(schema.limit_keys)
    assert key["next_check_at"] - process.engine.now() <= 250_000


@all_databases
def test_a_number_set_at_run_time_is_in_force_at_once_and_survives_a_deploy(process, database):
    """A higher one lets more in with the next sweep; a process that declares the limit anew leaves it."""
    process.start(work, "acme", 6)
    assert len(process.sent) == 1

    set_limit("limits.jobs", 3)
    sweep.sweep(process.engine)
    assert len(process.sent) == 3

    process.engine.declared_limits.clear()
    process.start(work, "other", 6)
    assert len(process.sent) == 6
    set_limit("limits.jobs", None)
    while process.sent:
        process.run_next()
        assert process.in_use()["acme"] <= 3


@all_databases
def test_it_shows_who_waits_for_what(process, monkeypatch):
    """In ``durable runs show``, and in ``durable limits list``."""
    keeper = Housekeeping(process.engine)
    keeper.tick()
    run = process.start(work, "acme", 3)
    found = [each for each in describe.describe(process.engine, run.id)["waiting_for"] if each["state"] == "limited"]
    assert [(each["limit"], each["key"], each["in_use"], each["n"]) for each in found] == [
        ("limits.jobs", "acme", 1, 1)
    ] * 2
    monkeypatch.setattr("durable.cli.common.Context.engine", process.engine)

    shown = CliRunner().invoke(main, ["runs", "show", run.id]).output
    keeper._unregister()
    assert "a slot of limits.jobs (key acme): 1 of 1 in use" in shown
    (listed,) = json.loads(CliRunner().invoke(main, ["limits", "list", "--json"]).output)
    assert (listed["limit"], listed["key"], listed["in_use"], listed["waiting"]) == ("limits.jobs", "acme", 1, 2)
    assert "acme" in CliRunner().invoke(main, ["limits", "list"]).output
    done = CliRunner().invoke(main, ["limits", "set", "limits.jobs", "2"])
    assert (done.exit_code, done.output) == (0, "The limit limits.jobs is 2 now.\n")
    assert len(process.sent) == 1
    sweep.sweep(process.engine)
    assert len(process.sent) == 2
    refused = CliRunner().invoke(main, ["limits", "set", "limits.jobs", "0"])
    assert refused.exit_code != 0
    assert "0" in refused.output


@pytest.mark.parametrize("what", ["raises", "number", "long"])
def test_a_bad_key_blocks_the_run_and_corrected_code_goes_on(what, monkeypatch):
    """The reason names the limit and the step; nothing is lost."""
    with Environment() as env:
        run = env.start(bad, what)
        assert run.status == "blocked"
        reason = describe.describe(env.engine, run.id)["error"]
        assert "limits.bad" in str(reason)
        assert "limits.keyed" in str(reason)

        monkeypatch.setattr(keyed, "limits", (concurrency("limits.bad", 1),))
        operate.retry(env.engine, run.id)
        env.finish(run)
        assert run.result(timeout=0) == what


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: concurrency("x", 0), "n=0"),
        (lambda: concurrency("x", True), "n=True"),
        (lambda: concurrency("x", 2.5), "n=2.5"),  # type: ignore[arg-type]
        (lambda: concurrency("", 1), "name of a limit"),
        (lambda: concurrency("x", 1, key=7), "key of the limit"),  # type: ignore[arg-type]
        (lambda: rate("x", 5, per="0s"), "per='0s'"),
        (lambda: rate("x", 5, per="soon"), "per"),
        (lambda: rate("x", 5, per=timedelta(seconds=1), burst=0), "burst=0"),
        (lambda: step(limits=[concurrency("x", 1, key="shp")])(job.function), "no such parameter.  Did you mean shop?"),
        (lambda: step(limits=["x"])(job.function), "no limit"),  # type: ignore[list-item]
        (lambda: step(limits=[concurrency("x", 1), rate("x", 1, per=1)])(job.function), "twice"),
        (lambda: step(name="limits.other", limits=[concurrency("limits.jobs", 2)])(job.function), "numbers differ"),
        (lambda: set_limit("limits.jobs", 0), "n=0"),
        (lambda: set_limit("limits.jbs", 1), "Did you mean limits.jobs?"),
    ],
)
def test_what_can_be_no_limit_is_refused_at_definition(make, says, own_registry):
    """With the value, and what to write instead."""
    with Environment(), pytest.raises(ConfigurationError, match=re.escape(says)):
        make()


def test_the_example_of_the_page_runs(own_registry):
    """As it is written."""
    found: dict[str, Any] = {}
    source = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    exec(compile(source, "<page>", "exec"), found)

    with Environment() as env:
        assert env.run(found["order"], "acme", "+43") == "acme pays 500"
