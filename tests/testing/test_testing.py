"""``durable.testing``: what an application's own tests are written with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from celery.exceptions import DuplicateTaskNameWarning

from durable import (
    HookNotFound,
    NonDeterminismError,
    Request,
    Run,
    RunFailed,
    create_hook,
    create_webhook,
    failpoints,
    get_step_metadata,
    now,
    race,
    sleep,
    start,
    step,
    workflow,
)
from durable.store.schema import requests
from durable.testing import Environment, crash_everywhere, export, replay
from durable.testing.faults import Fault, Trace, why_missed
from durable.testing.invariants import check

pytest_plugins = ["durable.testing.plugin"]


@step(name="testing.double")
def double(n: int) -> int:
    return n * 2


@workflow(name="testing.doubled")
async def doubled(n: int) -> int:
    return await double(n)


@workflow(name="testing.naps")
async def naps(n: int) -> tuple[int, float]:
    began = now()
    await sleep("30d")
    return await double(n), (now() - began).total_seconds()


@step(name="testing.answer")
def answer(request: Request) -> str:
    request.respond_with({"hello": request.json()["name"]})
    return str(request.json()["name"])


@workflow(name="testing.greets")
async def greets() -> str:
    return await answer(await create_webhook(respond_with="manual"))


@workflow(name="testing.ignores_answers")
async def ignores_answers() -> None:
    await create_webhook()


@step(name="testing.look_around")
def look_around(request: Request) -> None:
    request.respond_with([flask.has_request_context(), threading.current_thread().name])


@workflow(name="testing.looks_around")
async def looks_around() -> None:
    await look_around(await create_webhook(respond_with="manual"))


@workflow(name="testing.waits")
async def waits() -> str:
    async def asked() -> str:
        return str(await create_hook(token="testing:waits"))

    async def tired() -> str:
        await sleep("1h")
        return "nobody came"

    return await race(asked(), tired())


@workflow(name="testing.ignores")
async def ignores() -> str:
    await create_webhook(respond_with="manual")
    await sleep("1d")
    return "over"


@step(name="testing.answer_late")
def answer_late(request: Request) -> None:
    request.respond_with(request.data)


@workflow(name="testing.answers_late")
async def answers_late() -> str:
    webhook = create_webhook(respond_with="manual", dedupe="X-Id")
    first = await webhook
    await sleep("1h")
    await answer_late(first)
    await sleep("1h")
    return "over"


def test_a_sleep_of_a_month_is_over_at_once(durable_env):
    """The clock jumps; the workflow sees the time that has passed."""
    doubled, secs = durable_env.run(naps, 4)

    assert doubled == 8
    assert secs == 30 * 86400
    assert durable_env.now >= datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=30)


def test_time_passes_as_far_as_it_is_told(durable_env):
    """What is due by then is done, what is due later is not."""
    run = durable_env.start(waits)
    durable_env.advance("59m")
    assert run.status == "running"

    durable_env.advance("2m")
    assert run.result(timeout=0) == "nobody came"


def test_hooks_are_resumed_by_hand(durable_env):
    """A payload is delivered and what follows is done; an unknown token is told."""
    run = durable_env.start(waits)

    durable_env.resume("testing:waits", "me")

    assert run.result(timeout=0) == "me"
    with pytest.raises(HookNotFound):
        durable_env.resume("testing:waits", "again")


def test_a_request_is_held_until_a_step_answers(durable_env):
    """It goes through the blueprint, as one from outside does."""
    run = durable_env.start(greets)

    said = durable_env.post(run.hooks()[0]["url"], json={"name": "Ada"})

    assert (said.status_code, said.json) == (200, {"hello": "Ada"})
    assert run.result(timeout=0) == "Ada"


def test_a_request_that_nobody_answers_gets_its_timeout_answer_at_once(durable_env):
    """Nothing is left to do, so there is nothing to wait for: ten of them do not take as long as one would be held."""
    url = durable_env.start(ignores).hooks()[0]["url"]
    began = time.monotonic()

    answers = [durable_env.post(url, data=b"?") for _ in range(10)]

    assert {answer.status_code for answer in answers} == {202}
    assert time.monotonic() - began < 10
    assert durable_env.post(answers[0].headers["Location"], method="GET").json["status"] == "pending"


def test_a_copy_of_a_request_is_recorded_as_that_request(durable_env):
    """Before the answer and after it, a copy has the first one's URL or answer, and nothing is wrong with the run."""
    run = durable_env.start(answers_late)
    url = run.hooks()[0]["url"]
    first, copy = (durable_env.post(url, data=b"a", headers={"X-Id": "1"}) for _ in range(2))
    assert (first.status_code, copy.status_code) == (202, 202)
    assert first.headers["Location"] == copy.headers["Location"]
    durable_env.advance("1h")
    late = durable_env.post(url, data=b"a", headers={"X-Id": "1"})
    assert (late.status_code, late.data) == (200, b"a")
    durable_env.finish(run)

    assert list(check(durable_env, run)) == []


def test_a_step_sees_nothing_of_the_request_that_is_held_meanwhile(durable_env):
    """Sender and steps take turns in one thread, and are as far from each other as in two processes."""
    run = durable_env.start(looks_around)

    said = durable_env.post(run.hooks()[0]["url"])

    assert said.json == [False, threading.current_thread().name]


def test_a_step_is_replaced_by_a_fake_within_a_test(durable_env):
    """And is itself again afterwards."""
    with durable_env.replace(double, lambda n: n + 1000):
        assert durable_env.run(naps, 1)[0] == 1001

    assert durable_env.run(naps, 1)[0] == 2


def test_a_start_of_tomorrow_begins_when_it_is_due(durable_env):
    """Beyond the horizon nothing is sent until then; the sweep's next round begins it."""
    run = naps.with_options(countdown="1d").start(1)
    durable_env.advance("23h")
    assert run.status == "pending"

    durable_env.advance("1h")
    durable_env.advance("2s")
    assert run.status == "running"


def test_an_environment_is_the_current_engine(durable_env):
    """``start`` and its like need not be told which engine is meant."""
    run = start(waits)

    durable_env.finish(run)

    assert run.result(timeout=0) == "nobody came"


def test_a_history_is_replayed_against_other_code(durable_env, tmp_path):
    """The same code comes to the same; code that asks for something else is told where it parts."""
    run = durable_env.start(naps, 4)
    durable_env.finish(run)
    path = tmp_path / "history.json"
    path.write_text(json.dumps(export(run)))

    @workflow(name="testing.other_naps")
    async def other(n: int) -> int:
        return await double(n)

    found = replay(path)
    assert found is not None
    assert found.status == "completed"
    with pytest.raises(NonDeterminismError, match="double"):
        replay(path, other)


def test_a_history_with_requests_is_replayed(durable_env):
    """What webhooks were sent is part of it."""
    run = durable_env.start(greets)
    durable_env.post(run.hooks()[0]["url"], json={"name": "Ada"})

    found = replay(export(run))

    assert found is not None
    assert found.value == '"Ada"'


@step(name="testing.forgets", retry_backoff=0)
def forgets() -> int:
    """What it returns depends on how often it was tried, which is wrong."""
    return get_step_metadata().attempt


@workflow(name="testing.fragile")
async def fragile() -> int:
    return await forgets()


@step(name="testing.once", max_retries=0)
def once() -> str:
    return "done"


@workflow(name="testing.untried")
async def untried() -> str:
    return await once()


@pytest.mark.parametrize("flow", [fragile, untried])
def test_a_workflow_that_a_crash_changes_is_told_with_the_boundary(flow):
    """A result that depends on the attempt, a step that is not tried again: the fault that shows it is named."""
    with pytest.raises(AssertionError, match=r"a crash at hit \d+, "):
        crash_everywhere(flow)


def test_crashing_everywhere_tells_how_much_it_tried():
    """Each boundary once, each message lost, repeated and late."""
    report = crash_everywhere(waits)

    assert report.boundaries > 10
    assert report.played == report.boundaries + 3 * report.messages


@step(name="testing.fails_once", retry_backoff=0)
def fails_once() -> str:
    """Fails in the first play only: with each that follows there are fewer boundaries."""
    met.append(1)
    if len(met) == 1:
        raise ConnectionError
    return "done"


met: list[int] = []


@workflow(name="testing.changeable")
async def changeable() -> str:
    return await fails_once()


def test_a_fault_that_does_not_come_is_told():
    """Plays that differ are not counted as played: what was seen, and what was without a fault, is told."""
    met.clear()

    with pytest.raises(AssertionError, match=r"a crash at hit \d+, \S+ did not happen: (there were|hit) \d+"):
        crash_everywhere(changeable)


@pytest.mark.parametrize(
    ("fault", "hits", "messages", "why"),
    [
        (Fault(hit=2, point="b"), "abx", "", None),
        (Fault(hit=2, point="b"), "acb", "", "hit 2 was c, and without a fault b"),
        (Fault(hit=2, point="b"), "a", "", "there were 1 hits before the end, and 3 without a fault"),
        (Fault(hit=2, point="b"), "cb", "", "hit 1 was c, and without a fault a"),
        (Fault(message=2, what="q", kind="lost"), "", "pqqq", None),
        (Fault(message=2, what="q", kind="lost"), "", "pr", "message 2 was r, and without a fault q"),
        (Fault(message=2, what="q", kind="lost"), "", "p", "there were 1 messages before the end, and 3 without"),
    ],
)
def test_a_fault_has_come_when_all_went_as_without_it_until_then(fault, hits, messages, why):
    """The hit is of the point that is named, the message the one that it is without a fault; else the place is told."""
    expected = Trace(hits=["a", "b", "c"], messages=["p", "q", "r"])

    said = why_missed(fault, Trace(hits=[*hits], messages=[*messages]), expected)

    assert said == why or (why is not None and said is not None and said.startswith(why))


def post_once(env: Environment, run: Run[Any]) -> None:
    if run.hooks():
        env.post(run.hooks()[0]["url"], json={"name": "Ada"})


def test_what_a_sender_was_answered_is_compared_with_what_is_recorded():
    """Another answer in the database than the one that went out fails the play."""

    def forge(env: Environment, run: Run[Any]) -> None:
        post_once(env, run)
        with env.store.begin() as tx:
            tx.execute(sa.update(requests).values(answer_body=b"other"))

    assert crash_everywhere(greets, during=post_once, sample=0).played == 0
    with pytest.raises(AssertionError, match=r"its sender was answered 200 OK .* and recorded is 200 b'other'"):
        crash_everywhere(greets, during=forge, sample=0)


def test_a_request_that_was_accepted_and_is_not_recorded_is_told():
    """Nor is a play good that loses one."""

    def lose(env: Environment, run: Run[Any]) -> None:
        post_once(env, run)
        env.finish(run)
        with env.store.begin() as tx:
            tx.execute(sa.delete(requests))

    with pytest.raises(AssertionError, match="was answered 202, and is not recorded"):
        crash_everywhere(ignores_answers, during=lose, sample=0)


def test_a_run_that_waits_for_nobody_is_told():
    """What has to come from outside is named: without ``during`` nothing does."""
    with pytest.raises(AssertionError, match=r"with no fault is running in the end .*'kind': 'webhook'.* `during`"):
        crash_everywhere(greets)


def test_keywords_are_the_workflows():
    """What are settings is not taken for arguments, nor the other way."""
    report = crash_everywhere(doubled, kwargs={"n": 2}, sample=1, max_events=100)

    assert report.played == 1


def test_what_others_do_meanwhile_is_no_part_of_a_play():
    """A thread that something else has left in this process is neither counted nor crashed."""
    passed = []

    def other() -> None:
        failpoints.hit("commit.after")
        passed.append(threading.current_thread())

    def during(env: Environment, run: Run[Any]) -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
        assert thread in passed

    assert crash_everywhere(untried, during=during, sample=0) == crash_everywhere(untried, sample=0)


def test_a_failure_is_raised_as_a_run_raises_it():
    """``Environment.run`` is ``start`` and ``Run.result``."""

    @step(name="testing.breaks", max_retries=1)
    def breaks() -> None:
        raise ValueError("broken")

    @workflow(name="testing.broken")
    async def broken() -> None:
        await breaks()

    with Environment() as env, pytest.raises(RunFailed, match="broken"):
        env.run(broken)


def test_the_example_passes():
    """examples/test_orders.py, run as an application runs its own tests: nothing of ours is configured there."""
    example = Path(__file__).parents[2] / "examples" / "test_orders.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(example.parent), str(example)],
        capture_output=True,
        text=True,
        check=False,
        cwd=example.parent,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@step(name="test_testing.once")
def give_one() -> int:
    return 1


@workflow(name="test_testing.of_one_app")
async def of_one_app() -> int:
    return await give_one()


def test_environments_of_one_application_warn_of_no_duplicate_task():
    """Each environment, and each restart, registers the tasks again, in place of the ones before."""
    app = Celery("test_testing_app", broker="memory://", set_as_current=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DuplicateTaskNameWarning)
        for celery in (app, app, None):
            with Environment(celery=celery) as env:
                assert env.run(of_one_app) == 1
                env.restart()
                assert env.run(of_one_app) == 1
                with Environment(celery=celery) as inner:
                    assert inner.run(of_one_app) == 1
