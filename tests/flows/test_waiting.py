"""What an open run waits for, as `runs show` tells it: on every database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from driving import all_databases, settle

from durable import Durable, create_hook, create_webhook, duration, events, registry, sleep, start, step, workflow
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.client import describe
from durable.recovery.housekeeping import Housekeeping
from durable.turns.drive import drive


@step(name="waiting.stall", max_retries=5, retry_backoff=600, retry_jitter=False)
def stall() -> None:
    raise RuntimeError("not yet")


@step(name="waiting.look")
def look(run_id: str) -> list[dict[str, Any]]:
    """What its own run waits for while this runs."""
    return describe.describe(engine_of["test"], run_id)["waiting_for"]  # type: ignore[no-any-return]


@workflow(name="waiting.child")
async def child() -> None:
    await sleep("2h")


@workflow(name="waiting.everything")
async def everything() -> None:
    with create_hook(token="a-token") as hook, create_webhook() as webhook:
        await asyncio.gather(hook, webhook, stall(), sleep("1h"), child())


@workflow(name="waiting.looker")
async def looker(run_id: str) -> Any:
    return await look(run_id)


engine_of: dict[str, Durable] = {}


@pytest.fixture
def worker(engine: Durable) -> Iterator[Housekeeping]:
    """This process, registered as a worker."""
    housekeeping = Housekeeping(engine)
    housekeeping._beat()
    yield housekeeping
    housekeeping._unregister()


def waiting(engine: Durable, run_id: str) -> dict[str, dict[str, Any]]:
    return {entry["kind"]: entry for entry in describe.describe(engine, run_id)["waiting_for"]}


@all_databases()
def test_each_thing_that_a_run_waits_for_is_told(engine: Durable, worker: Housekeeping) -> None:
    """Steps, sleeps, hooks, webhooks with their URL, and children, each with its operation."""
    run = start(everything)
    drive(engine, run.id)
    found = waiting(engine, run.id)

    assert set(found) == {"step", "sleep", "hook", "webhook", "child"}
    assert len({entry["operation"] for entry in found.values()}) == 5
    assert (found["step"]["name"], found["step"]["attempt"]) == ("waiting.stall", 1)
    assert found["step"]["state"] == "pending"
    assert found["hook"]["token"] == "a-token"
    assert found["webhook"]["url"].startswith("https://hooks.test/")
    assert found["child"]["name"] == "waiting.child"
    assert found["sleep"]["until"] > found["step"]["since"]
    run.cancel()
    settle(engine, run)


@all_databases()
def test_a_step_between_two_attempts_is_delayed(engine: Durable, worker: Housekeeping) -> None:
    """The number of the attempt to come, and when it may start."""
    run = start(everything)
    drive(engine, run.id)
    op_id = waiting(engine, run.id)["step"]["operation"]
    attempt(engine, stall, Address(run.id, op_id, 1), None)
    drive(engine, run.id)
    found = waiting(engine, run.id)["step"]

    assert (found["attempt"], found["state"]) == (2, "delayed")
    assert [found["until"]] == [duration.iso(e.due_at) for e in run.events() if isinstance(e, events.StepRetrying)]
    run.cancel()
    settle(engine, run)


def test_a_step_that_runs_is_told_with_its_process(engine: Durable, worker: Housekeeping) -> None:
    """Who runs it, and since when."""
    engine_of["test"] = engine
    run = looker.with_options(run_id="self").start("self")
    settle(engine, run)
    seen = run.result(timeout=1)[0]

    assert (seen["name"], seen["state"]) == ("waiting.look", "running")
    assert seen["worker"].rpartition(":")[2].isdigit()
    assert seen["since"]


@all_databases()
def test_c05_a_step_that_no_live_worker_knows_is_unknown(
    engine: Durable, worker: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stays running, says what it waits for, and has not failed."""
    run = start(looker, "nobody")
    drive(engine, run.id)
    monkeypatch.delitem(registry.steps, "waiting.look")
    worker._beat()
    found = describe.describe(engine, run.id)

    assert found["status"] == "running"
    assert [(entry["name"], entry["state"]) for entry in found["waiting_for"]] == [("waiting.look", "unknown")]
    run.cancel()
    settle(engine, run)


@all_databases()
def test_c06_a_run_whose_workflow_no_live_worker_knows_is_unknown(
    engine: Durable, worker: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for a turn that nobody can make; with such a worker, for a turn to come."""
    run = start(looker, "nobody")
    monkeypatch.delitem(registry.workflows, "waiting.looker")
    worker._beat()
    unknown = waiting(engine, run.id)["turn"]
    monkeypatch.undo()
    worker._beat()
    known = waiting(engine, run.id)["turn"]

    assert (unknown["name"], unknown["state"], known["state"]) == ("waiting.looker", "unknown", "pending")
    run.cancel()


def test_a_run_with_a_countdown_waits_for_its_time(engine: Durable, worker: Housekeeping) -> None:
    """Its first turn is not before then."""
    found = waiting(engine, child.with_options(countdown="1h").start().id)["turn"]

    assert found["state"] == "delayed"


def test_a_run_that_has_ended_waits_for_nothing(engine: Durable, worker: Housekeeping) -> None:
    """Also when it was cancelled while it waited."""
    run = start(everything)
    drive(engine, run.id)
    run.cancel()
    settle(engine, run)

    assert describe.describe(engine, run.id)["waiting_for"] == []


@workflow(name="waiting.wide")
async def wide() -> None:
    await asyncio.gather(*(sleep("1h") for _ in range(150)))


def test_no_more_than_a_hundred_are_told(engine: Durable, worker: Housekeeping) -> None:
    """A run with 150 sleeps is shown with 100."""
    run = start(wide)
    drive(engine, run.id)

    assert len(describe.describe(engine, run.id)["waiting_for"]) == 100
