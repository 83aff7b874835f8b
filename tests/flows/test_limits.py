"""A run whose body never comes to an end, or whose log never does: the worker goes on, and the run says why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from driving import all_databases, kinds, settle

from durable import Durable, LogTooLong, RunFailed, create_hook, registry, sleep, step, workflow
from durable.client import describe


@step
def number(n: int) -> int:
    return n


@workflow
async def counts(upto: int) -> int:
    total = 0
    for n in range(upto):
        total += await number(n)
    return total


@workflow
async def thinks(limit: int) -> str:
    """Spins after a step, as long as there is no limit to it."""
    await number(1)
    while limit < 0:
        pass
    return "thought"


@workflow
async def asks_without_end() -> None:
    while True:
        number(1)


@workflow
async def sleeps_without_end() -> None:
    while True:
        asyncio.ensure_future(asyncio.sleep(1))  # noqa: RUF006
        sleep(1)


@pytest.fixture
def limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default 0.2 s of CPU time a turn, 10 events a run."""
    cpu, events = getattr(request, "param", ("200ms", "10"))
    monkeypatch.setenv("DURABLE_TURN_CPU_LIMIT", cpu)
    monkeypatch.setenv("DURABLE_MAX_EVENTS", events)


@pytest.fixture
def limited(limits: None, engine: Durable) -> Durable:
    """The engine, which reads its settings when it is first used."""
    return engine


def shown(engine: Durable, run: Any) -> str:
    """Why the run is blocked, as ``durable runs show`` tells it."""
    return str(describe.describe(engine, run.id)["error"])


@all_databases()
@pytest.mark.usefixtures("unmeasured")
def test_a_body_that_spins_blocks_its_run_and_the_worker_goes_on(limited):
    """The log stays as it was, the reason names the line and the fix, and the next run is run."""
    run = limited.start(thinks, -1)
    settle(limited, run)

    assert run.status == "blocked"
    assert kinds(run) == ["run_created", "run_started", "step_created"]
    line = thinks.function.__code__.co_firstlineno + 4
    assert "0.2 s of CPU time" in shown(limited, run)
    assert any(f"{__file__}:{each}" in shown(limited, run) for each in (line, line + 1))
    assert "into a step" in shown(limited, run)

    after = limited.start(counts, 2)
    settle(limited, after)
    assert after.result() == 1


@pytest.mark.usefixtures("unmeasured")
def test_a_run_that_spun_goes_on_with_code_that_does_not(limited, monkeypatch):
    """Like any blocked run: once by each version of the code."""
    run = limited.start(thinks, -1)
    settle(limited, run)
    assert run.status == "blocked"

    async def mended(limit: int) -> str:
        await number(1)
        return "mended"

    monkeypatch.setitem(registry.workflows, thinks.name, registry.Workflow(mended, name=thinks.name))
    settle(limited, run)

    assert run.result() == "mended"


@all_databases()
def test_c91_a_run_with_too_many_events_fails(limited):
    """The error names the limit and child runs; what was recorded stays, and what is held open is closed."""
    run = limited.start(counts, 100)
    settle(limited, run)

    assert run.status == "failed"
    with pytest.raises(RunFailed, match="max_events allows 10") as failed:
        run.result()
    assert isinstance(failed.value.__cause__, LogTooLong)
    assert "child runs" in str(failed.value)
    assert kinds(run)[-1] == "run_failed"
    assert len(kinds(run)) <= 13


def test_c91_a_run_of_just_so_many_events_completes(limited):
    """Created, started, two for each step, completed: the end of a run needs no room."""
    run = limited.start(counts, 4)
    settle(limited, run)

    assert run.result() == 6
    assert len(kinds(run)) == 11


@workflow
async def listens_without_end(token: str) -> None:
    async for _ in create_hook(token=token):
        pass


def test_c91_payloads_count_and_the_token_is_free_afterwards(limited):
    """A run that is sent more than its log may hold fails, and others may listen."""
    run = limited.start(listens_without_end, "busy")
    settle(limited, run)
    for n in range(8):
        limited.resume_hook("busy", n)
    settle(limited, run)
    assert run.status == "failed"

    again = limited.start(listens_without_end, "busy")
    settle(limited, again)
    assert [hook["token"] for hook in again.hooks()] == ["busy"]


@pytest.mark.parametrize("endless", [asks_without_end, sleeps_without_end])
def test_a_body_that_asks_without_awaiting_fails_its_run(limited, endless):
    """It would fill the memory: nothing that it asked for is begun, and the reason names its line."""
    run = limited.start(endless)
    settle(limited, run)

    assert run.status == "failed"
    assert kinds(run) == ["run_created", "run_failed"]
    assert f"{__file__}:" in shown(limited, run)
    assert "max_events allows 10" in shown(limited, run)


@pytest.mark.parametrize("limits", [("0", "0")], indirect=True)
def test_without_limits_nothing_is_counted(limited):
    """0 turns each of them off."""
    run = limited.start(counts, 30)
    settle(limited, run)

    assert run.result() == 435
