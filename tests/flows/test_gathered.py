"""The outcomes of quick steps of several runs are recorded in one transaction; what cannot be is recorded by itself."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle

from durable import create_hook, registry, sleep, step, workflow
from durable.attempts import record_gathered, record_in_place
from durable.attempts.attempt import StepBody, run_claimed
from durable.store import runs, turns
from durable.store.schema import inbox
from durable.turns.begin_runs import begin_runs
from durable.turns.continuation import Continuation

pytestmark = [all_databases(), pytest.mark.usefixtures("patient_begin")]


@step(name="gathered.adds")
def adds(n: int) -> int:
    return n + 1


@step(name="gathered.fails", max_retries=1, retry_backoff=0)
def fails(n: int) -> int:
    raise LookupError(str(n))


@workflow(name="gathered.counts")
async def counts(n: int) -> int:
    return await adds(await adds(n))


@workflow(name="gathered.breaks")
async def breaks(n: int) -> str:
    try:
        await fails(n)
    except Exception as error:
        return type(error).__name__
    return "never"


@workflow(name="gathered.hears")
async def hears(n: int) -> str:
    """The turn after the step creates a hook, so its commit is not a plain one."""
    await adds(n)
    return f"{await create_hook()}"


@workflow(name="gathered.naps")
async def naps(n: int) -> int:
    await adds(n)
    await sleep(60)
    return n


@pytest.fixture
def manner() -> dict[str, Any]:
    """In place on every database."""
    return {"continuation": "60s"}


@pytest.fixture
def sent(engine, monkeypatch) -> list[str]:
    """The runs that get a turn by a message."""
    found: list[str] = []
    monkeypatch.setattr(type(engine), "send_turns", lambda _self, *runs, **_: found.extend(runs))
    return found


@pytest.fixture
def quick(engine) -> None:
    """The steps are known to be quick."""
    for name in ("gathered.adds", "gathered.fails"):
        engine.quick_steps.note(name, 0.001)


def begun(engine, *started) -> Continuation:
    """The runs have begun, and their first steps are claimed."""
    continuation = Continuation(engine, "celery")
    begin_runs(engine, continuation, [run.id for run in started])
    assert len(continuation.ready) == len(started)
    return continuation


def run_ready(engine, continuation: Continuation) -> None:
    """Run all attempts that are claimed now."""
    for _ in range(len(continuation.ready)):
        continuation.take_ready()
        held = continuation.begin()
        assert held is not None
        record = partial(record_in_place, engine, continuation)
        run_claimed(engine, held, StepBody(registry.steps[held.name]), record)


def commits(engine) -> list[str]:
    found: list[str] = []
    sa.event.listen(engine.store.engine, "commit", lambda _: found.append("commit"))
    return found


def items(engine, run) -> list[str]:
    """What is in the inbox of a run, by the kinds of the events."""
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(inbox.c.kind).where(inbox.c.run_id == run.id)).scalars())


@pytest.mark.usefixtures("quick")
def test_the_outcomes_of_several_runs_are_one_transaction(engine, sent):
    """Each is recorded in the turn that it asks for, with the claim of the run's next step."""
    started = [engine.start(counts, n) for n in range(3)]
    continuation = begun(engine, *started)
    run_ready(engine, continuation)
    assert len(continuation.gathered) == 3
    assert {kinds(run)[-1] for run in started} == {"step_created"}

    made = commits(engine)
    record_gathered(engine, continuation)
    assert made == ["commit"]
    assert len(continuation.ready) == 3
    run_ready(engine, continuation)
    record_gathered(engine, continuation)
    assert [run.result(timeout=0) for run in started] == [2, 3, 4]
    assert kinds(started[0]).count("step_completed") == 2
    assert (sent, engine.running) == ([], set())


@pytest.mark.usefixtures("quick")
def test_the_outcome_of_the_only_run_is_recorded_at_once(engine, sent):
    """There is nothing to wait for."""
    run = engine.start(counts, 1)
    continuation = begun(engine, run)
    run_ready(engine, continuation)

    assert not continuation.gathered
    assert kinds(run)[-2:] == ["step_completed", "step_created"]


@pytest.mark.usefixtures("quick")
def test_a_failure_is_recorded_at_once(engine, sent):
    """Another attempt may follow, which has a message."""
    started = [engine.start(counts, 1)] + [engine.start(breaks, n) for n in range(2)]
    continuation = begun(engine, *started)
    run_ready(engine, continuation)

    assert [each.held.run_id for each in continuation.gathered] == [started[0].id]
    record_gathered(engine, continuation)
    run_ready(engine, continuation)
    settle(engine, *started)
    assert [run.result(timeout=0) for run in started] == [3, "LookupError", "LookupError"]


def test_a_step_that_was_slow_is_recorded_at_once(engine, sent):
    """It was claimed as the first one of its runs."""
    engine.quick_steps.note("gathered.adds", 0.001)
    started = [engine.start(counts, n) for n in range(2)]
    continuation = begun(engine, *started)
    engine.quick_steps.note("gathered.adds", 1.0)
    run_ready(engine, continuation)

    assert not continuation.gathered
    assert [kinds(run)[-2:] for run in started] == [["step_completed", "step_created"]] * 2


@pytest.mark.usefixtures("quick")
def test_an_attempt_that_took_long_this_time_is_recorded_at_once(engine, sent):
    """Housekeeping gives up what was claimed long ago and does not run any more."""
    started = [engine.start(counts, n) for n in range(2)]
    continuation = begun(engine, *started)
    continuation.ready = deque(replace(held, claimed_at=held.claimed_at - 1_000_001) for held in continuation.ready)
    run_ready(engine, continuation)

    assert not continuation.gathered
    assert [kinds(run)[-2:] for run in started] == [["step_completed", "step_created"]] * 2


@pytest.mark.usefixtures("quick")
def test_a_turn_that_is_not_plain_is_committed_by_itself(engine, sent):
    """It creates a hook."""
    started = [engine.start(counts, 1), engine.start(hears, 1)]
    continuation = begun(engine, *started)
    run_ready(engine, continuation)

    assert kinds(started[1])[-1] == "hook_created"
    assert [each.held.run_id for each in continuation.gathered] == [started[0].id]
    record_gathered(engine, continuation)


@pytest.mark.usefixtures("quick")
def test_a_turn_that_begins_a_sleep_is_committed_at_once(engine, sent):
    """Otherwise the sleep would be late, and those of several runs would be over at the same moment."""
    started = [engine.start(counts, 1), engine.start(naps, 1)]
    continuation = begun(engine, *started)
    run_ready(engine, continuation)

    assert kinds(started[1])[-2:] == ["step_completed", "wait_created"]
    assert [each.held.run_id for each in continuation.gathered] == [started[0].id]
    record_gathered(engine, continuation)


@pytest.mark.usefixtures("quick")
def test_what_is_overtaken_goes_through_the_inbox(engine, sent, monkeypatch):
    """The others are recorded, and nothing is lost."""
    started = [engine.start(counts, n) for n in range(3)]
    continuation = begun(engine, *started)
    run_ready(engine, continuation)
    with engine.store.begin() as tx:
        runs.invalidate_turn(tx, started[1].id)
    record_gathered(engine, continuation)

    assert sent == [started[1].id]
    assert [items(engine, run) for run in started] == [[], ["step_completed"], []]
    settle(engine, *started)
    assert started[1].result(timeout=0) == 3


@pytest.mark.usefixtures("quick")
def test_where_the_transaction_fails_each_outcome_is_recorded_by_itself(engine, sent, monkeypatch):
    """No step runs again."""
    started = [engine.start(counts, n) for n in range(3)]
    continuation = begun(engine, *started)
    run_ready(engine, continuation)

    claims = {each.held.claim for each in continuation.gathered}

    def fail(*_: object) -> list[bool]:
        assert claims <= engine.running, "housekeeping would give up what does not run"
        raise sa.exc.OperationalError("COMMIT", None, Exception("away"))

    with monkeypatch.context() as away:
        away.setattr(turns, "commit_all", fail)
        record_gathered(engine, continuation)

    assert sent == sorted(run.id for run in started)
    assert not engine.running & claims
    assert [items(engine, run) for run in started] == [["step_completed"]] * 3
    settle(engine, *started)
    assert [run.result(timeout=0) for run in started] == [2, 3, 4]


@pytest.mark.usefixtures("quick")
def test_outcomes_wait_some_milliseconds_for_others(engine):
    """And none waits for a step that may take long."""
    clock = [100.0]
    continuation = Continuation(engine, "celery", clock=lambda: clock[0])
    started = [engine.start(counts, n) for n in range(3)]
    begin_runs(engine, continuation, [run.id for run in started])
    after = continuation.ready[1]
    assert not continuation.records_before(after)
    continuation.take_ready()
    held = continuation.begin()
    assert held is not None
    run_claimed(engine, held, StepBody(registry.steps[held.name]), partial(record_in_place, engine, continuation))

    assert not continuation.records_before(after)
    clock[0] += 0.006
    assert continuation.records_before(after)
    clock[0] -= 0.006
    engine.quick_steps.note("gathered.adds", 1.0)
    assert continuation.records_before(after)
    record_gathered(engine, continuation)


@pytest.mark.usefixtures("quick")
def test_an_outcome_that_cannot_be_recorded_keeps_no_other(engine, sent, monkeypatch, caplog):
    """It is lost, and the log says so; housekeeping has the attempt run again."""
    started = [engine.start(counts, n) for n in range(3)]
    continuation = begun(engine, *started)
    run_ready(engine, continuation)
    bad = min(run.id for run in started)

    def fail(*_: object) -> list[bool]:
        raise sa.exc.OperationalError("COMMIT", None, Exception("away"))

    recorded = sys.modules["durable.attempts.go_on"].record

    def record(engine, held, ended):
        if held.run_id == bad:
            raise LookupError("a bug")
        return recorded(engine, held, ended)

    with monkeypatch.context() as away:
        away.setattr(turns, "commit_all", fail)
        away.setattr(sys.modules["durable.attempts.go_on"], "record", record)
        record_gathered(engine, continuation)

    assert sent == sorted(run.id for run in started if run.id != bad)
    assert f"Run {bad}: the outcome of r#1 is lost" in caplog.text
