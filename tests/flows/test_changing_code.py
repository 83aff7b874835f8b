"""Code that changes under a run, on every database: blocked with a diff, and on again with `patched` and a retry."""

from __future__ import annotations

import pytest
from driving import all_databases, kinds, restart, settle

from durable import create_hook, events, get_workflow_metadata, patched, resume_hook, step, workflow
from durable.client import describe, operate

pytestmark = all_databases()

#: Which release of `order` is deployed.
deployed = {"release": "first"}


@pytest.fixture(autouse=True)
def first_release():
    deployed["release"] = "first"


@step
def charge(amount: int) -> str:
    return f"charged {amount}"


@step
def check_fraud() -> str:
    return "checked"


@step
def ship() -> str:
    return "shipped"


@workflow
async def order() -> list[str]:
    told = []
    match deployed["release"]:
        case "second, careless":
            told.append(await check_fraud())
        case "second":
            if patched("fraud-check"):
                told.append(await check_fraud())
        case "third":
            told.append(await check_fraud())
    told.append(await charge(5))
    await create_hook(token=f"paid:{get_workflow_metadata().run_id}")
    return [*told, await ship()]


def begun(engine):
    run = engine.start(order)
    settle(engine, run)
    return run


def finish(engine, run):
    resume_hook(f"paid:{run.id}", None)
    settle(engine, run)


def test_a_careless_change_blocks_runs_and_a_careful_one_lets_them_go_on(engine):
    """The diff says what the log has, what the code asks, and where; nothing is lost while the run is blocked."""
    run = begun(engine)
    deployed["release"] = "second, careless"
    restart(engine)
    finish(engine, run)

    assert run.status == "blocked"
    diff = describe.describe(engine, run.id)["error"]
    recorded, asked = [line for line in diff.splitlines() if line.startswith("  ")]
    assert recorded.startswith('  recorded  step test_changing_code.charge {"amount":5}')
    assert asked.startswith("  asked     step test_changing_code.check_fraud {}")
    line = order.function.__code__.co_firstlineno + 5
    assert f"no longer matches its log at r#1 ({__file__}:{line})" in diff

    deployed["release"] = "second"
    restart(engine)
    assert operate.retry(engine, run.id) is True
    settle(engine, run)

    assert run.result() == ["charged 5", "shipped"]
    assert "marker_recorded" not in kinds(run)
    assert describe.describe(engine, run.id)["error"] is None


def test_a_new_run_is_marked_and_the_old_way_may_go(engine):
    """The third release asks no more, and the runs of the second go on with it."""
    deployed["release"] = "second"
    restart(engine)
    run = begun(engine)
    assert [e.name for e in run.events() if isinstance(e, events.MarkerRecorded)] == ["fraud-check"]

    deployed["release"] = "third"
    restart(engine)
    finish(engine, run)

    assert run.result() == ["checked", "charged 5", "shipped"]


def test_a_run_of_the_first_release_does_not_outlive_the_second(engine):
    """Without the old way it is blocked, and told so; taking the release back lets it end."""
    run = begun(engine)
    deployed["release"] = "third"
    restart(engine)
    finish(engine, run)
    assert run.status == "blocked"

    deployed["release"] = "second"
    restart(engine)
    operate.retry(engine, run.id)
    settle(engine, run)

    assert run.result() == ["charged 5", "shipped"]


@workflow
async def asks_at_length() -> list[bool]:
    return [patched("x" * 200), patched("X" * 200)]


def test_names_are_kept_as_they_are(engine):
    """Of up to 200 characters, and by case."""
    run = engine.start(asks_at_length)
    settle(engine, run)

    assert run.result() == [True, True]
    assert [e.name for e in run.events() if isinstance(e, events.MarkerRecorded)] == ["x" * 200, "X" * 200]
