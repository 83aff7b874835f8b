"""Forks with all that a run can have: webhooks, large and encrypted values, limits, generations, retention."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from celery import Celery
from driving import all_databases, settle
from servers import migrate

from durable import (
    Durable,
    Request,
    Response,
    Run,
    concurrency,
    continue_as_new,
    create_hook,
    create_webhook,
    current,
    get_step_metadata,
    resume_hook,
    step,
    workflow,
)
from durable.cipher import aes_gcm
from durable.recovery.prune import prune_batch
from durable.store.vault import LIMIT
from durable.web import create_blueprint

pytestmark = all_databases()

ran: Counter[str] = Counter()
broken: set[str] = set()
run_keys: list[str] = []


@pytest.fixture(autouse=True)
def clean_edges() -> Iterator[None]:
    yield
    ran.clear()
    broken.clear()
    run_keys.clear()


@step(name="fork_edges.answer")
def answer(request: Request, text: str) -> bool:
    ran[f"answer {text}"] += 1
    return request.respond_with(Response(text))


@step(name="fork_edges.does", max_retries=0)
def edge(what: Any) -> Any:
    label = what if isinstance(what, str) and len(what) < 40 else "large"
    ran[label] += 1
    run_keys.append(get_step_metadata().idempotency_key)
    if label in broken:
        raise LookupError(label)
    return what


@workflow(name="fork_edges.paid")
async def paid() -> list[Any]:
    webhook = create_webhook(respond_with="manual", timeout=0)
    first = await webhook
    got: list[Any] = [await answer(first, "one"), await edge("between")]
    second = await webhook
    return [*got, await answer(second, "two"), first.text(), second.text()]


def test_an_answered_request_is_not_answered_again(engine):
    """The fork of a run that has ended has the URL, the request, and the answer that was given."""
    app = flask.Flask("forks")
    app.register_blueprint(create_blueprint(engine))
    client = app.test_client()
    broken.add("between")
    run = engine.start(paid)
    settle(engine, run)
    path = run.hooks()[0]["url"].removeprefix("https://hooks.test")
    poll = client.post(path, data=b"a").headers["Location"].removeprefix("https://hooks.test")
    settle(engine, run)
    assert run.status == "failed"
    assert client.post(path, data=b"x").status_code == 410
    broken.clear()
    fork = run.retry()
    settle(engine, fork)
    assert client.get(poll).get_data() == b"one"
    other = client.post(path, data=b"b").headers["Location"].removeprefix("https://hooks.test")
    settle(engine, fork)
    assert client.get(other).get_data() == b"two"
    assert fork.result(0) == [True, "between", True, "a", "b"]
    assert ran == {"answer one": 1, "between": 2, "answer two": 1}


@workflow(name="fork_edges.large")
async def large(value: str) -> list[Any]:
    hook = create_hook(metadata=value)
    return [await edge(value), await edge("last"), len(await hook)]


def test_large_and_encrypted_values_are_the_forks_own(database):
    """The fork reads them, also once the run that it comes from is gone from the payload store."""
    celery = Celery(f"test-{secrets.token_hex(4)}", broker="memory://")
    engine = Durable(celery, database_url=database, continuation=0, cipher=aes_gcm({"k": os.urandom(32)}))
    migrate(engine)
    try:
        value = "v" * (LIMIT + 10)
        broken.add("last")
        run = engine.start(large, value)
        settle(engine, run)
        assert run.status == "failed"
        broken.clear()
        fork = run.retry()
        settle(engine, fork)
        (hook,) = fork.hooks()
        assert hook["metadata"] == value
        resume_hook(hook["token"], value)
        settle(engine, fork)
        assert fork.result(0) == [value, "last", len(value)]
        assert ran == {"large": 1, "last": 2}
        assert len({each for each in run_keys if each.endswith("#3")}) == 1
        engine.replays.close()
        assert fork.events()[0].args == run.events()[0].args
    finally:
        celery.close()
        engine.close()
        current.forget(engine)


@workflow(name="fork_edges.limited", limits=[concurrency("fork_edges", 1, key="key")])
async def one_by_one(key: str) -> str:
    await edge("begins")
    return str(await create_hook(f"{key}-hook"))


def test_a_fork_waits_for_the_limits_of_its_workflow(engine):
    """As a new run would: it begins when the run before has ended."""
    key = secrets.token_hex(4)
    broken.add("begins")
    failed = engine.start(one_by_one, key)
    settle(engine, failed)
    assert failed.status == "failed"
    broken.clear()
    running = engine.start(one_by_one, key)
    settle(engine, running)
    fork = failed.retry()
    settle(engine, fork)
    assert (running.status, fork.status) == ("running", "pending")
    resume_hook(f"{key}-hook", "first")
    settle(engine, running, fork)
    settle(engine, fork)
    resume_hook(f"{key}-hook", "second")
    settle(engine, fork)
    assert (running.result(0), fork.result(0)) == ("first", "second")


@workflow(name="fork_edges.generations")
async def generation(token: str, left: int) -> list[Any]:
    hook = create_hook(token)
    got = await hook
    if left:
        continue_as_new(token, left - 1)
    return [got, await edge("last"), await hook]


def test_the_last_generation_is_forked(engine):
    """With the hooks that it was handed over, under their tokens."""
    token = secrets.token_hex(4)
    broken.add("last")
    run = engine.start(generation, token, 1)
    settle(engine, run)
    for payload in ("a", "b"):
        resume_hook(token, payload)
        settle(engine, *run.generations())
    assert run.status == "failed"
    broken.clear()
    fork = run.retry()
    settle(engine, fork)
    resume_hook(token, "c")
    settle(engine, fork)
    assert fork.result(0) == ["b", "last", "c"]
    assert len(run.generations()) == 2
    assert fork.generations() == [fork]


def test_a_run_is_kept_while_a_fork_of_it_goes_on(engine):
    """Its steps' keys are found there; a fork of a fork keeps both."""
    token = secrets.token_hex(4)
    broken.add("last")
    runs: list[Run[Any]] = [engine.start(generation, token, 0)]
    settle(engine, runs[0])
    resume_hook(token, "a")
    settle(engine, runs[0])
    for _ in range(2):
        runs.append(runs[-1].retry())
        settle(engine, runs[-1])
    broken.clear()
    runs.append(runs[-1].retry())
    settle(engine, runs[-1])
    prune_batch(engine, engine.now() + 1_000_000)
    assert [each.exists for each in runs] == [True] * 4
    assert len(set(run_keys)) == 1
    runs[-1].cancel()
    settle(engine, runs[-1])
    for _ in range(4):
        prune_batch(engine, engine.now() + 1_000_000)
    assert [each.exists for each in runs] == [False] * 4
