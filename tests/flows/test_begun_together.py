"""The first turns of several runs, which one message carries, are taken in one transaction; or each by itself."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle

from durable import create_hook, registry, sleep, step, workflow
from durable.attempts.attempt import StepBody, run_claimed
from durable.store import runs, turns
from durable.store.schema import steps
from durable.turns.begin_runs import begin_runs
from durable.turns.conclude import conclude
from durable.turns.continuation import Continuation

pytestmark = [all_databases(), pytest.mark.usefixtures("patient_begin")]


@step(name="begun_together.adds")
def adds(n: int) -> int:
    return n + 1


@workflow(name="begun_together.counts")
async def counts(n: int) -> int:
    return await adds(await adds(n))


@workflow(name="begun_together.naps")
async def naps() -> None:
    await sleep(0.01)


@workflow(name="begun_together.returns")
async def returns(n: int) -> int:
    return n


@workflow(name="begun_together.hears")
async def hears() -> str:
    """Its first turn creates a hook, so its commit is not a plain one."""
    return f"{await create_hook()}"


@workflow(name="begun_together.fails")
async def fails() -> None:
    raise LookupError("not there")


@pytest.fixture
def manner() -> dict[str, Any]:
    """In place on every database."""
    return {"continuation": "60s"}


@pytest.fixture
def left(engine, monkeypatch) -> list[str]:
    """The runs that get a message of their own."""
    found: list[str] = []
    monkeypatch.setattr(type(engine), "send_turns", lambda _self, *runs, **_: found.extend(runs))
    return found


def begin(engine, *started) -> Continuation:
    continuation = Continuation(engine, "celery")
    begin_runs(engine, continuation, [run.id for run in started])
    return continuation


def finish(engine, continuation: Continuation) -> None:
    """Run what was claimed, as a worker does."""
    while continuation.next is not None or continuation.take_ready() is not None:
        held = continuation.begin()
        assert held is not None
        run_claimed(engine, held, StepBody(registry.steps[held.name]), partial(conclude, engine, continuation))


def transactions(engine) -> list[str]:
    """The commits of the engine's from now on, and its statements that commit by themselves."""
    found: list[str] = []
    sa.event.listen(engine.store.engine, "commit", lambda _: found.append("commit"))
    return found


def status_of(engine, run, name: str) -> list[str]:
    with engine.store.read() as tx:
        query = sa.select(steps.c.status).where(steps.c.run_id == run.id, steps.c.name == name)
        return list(tx.execute(query).scalars())


def test_several_runs_begin_in_one_transaction(engine, left):
    """A run that sleeps first, one that ends at once, and those with quick steps, which this process runs next."""
    engine.quick_steps.note("begun_together.adds", 0.001)
    started = [engine.start(counts, n) for n in range(4)] + [engine.start(naps), engine.start(returns, 7)]
    commits = transactions(engine)
    continuation = begin(engine, *started)

    assert commits == ["commit"]
    assert [claim.run_id for claim in continuation.ready] == sorted(run.id for run in started[:4])
    assert {claim.claim for claim in continuation.ready} <= engine.running
    finish(engine, continuation)
    settle(engine, *started)
    assert [run.result(timeout=0) for run in started] == [2, 3, 4, 5, None, 7]
    assert kinds(started[0])[:3] == ["run_created", "run_started", "step_created"]
    assert left == []


def test_steps_that_may_take_long_are_sent(engine, left):
    """But for one, since this process does nothing else meanwhile."""
    started = [engine.start(counts, n) for n in range(3)]
    continuation = begin(engine, *started)

    assert len(continuation.ready) == 1
    claimed = [run for run in started if status_of(engine, run, "begun_together.adds") == ["claimed"]]
    sent = [run for run in started if status_of(engine, run, "begun_together.adds") == ["pending"]]
    assert (len(claimed), len(sent)) == (1, 2)
    finish(engine, continuation)
    settle(engine, *started)
    assert [run.result(timeout=0) for run in started] == [2, 3, 4]


def test_what_cannot_begin_like_this_gets_a_message_of_its_own(engine, left, monkeypatch):
    """A turn that creates a hook, and a workflow that this process does not know."""
    known = engine.start(counts, 1)
    hook, unknown = engine.start(hears), engine.start(returns, 1)
    monkeypatch.delitem(registry.workflows, "begun_together.returns")
    begin(engine, known, hook, unknown)

    assert left == [hook.id, unknown.id]
    assert [run.status for run in (known, hook, unknown)] == ["running", "pending", "pending"]


def test_first_turns_that_take_long_are_left_to_other_processes(engine, left, monkeypatch):
    """The step of the first run would wait for them, and so would they for each other."""
    monkeypatch.setattr(sys.modules["durable.turns.begin_runs"], "MOST_SECS", 0)
    started = [engine.start(counts, n) for n in range(3)]
    continuation = begin(engine, *started)

    (claim,) = continuation.ready
    assert claim.run_id == min(run.id for run in started)
    assert sorted([claim.run_id, *left]) == sorted(run.id for run in started)


def test_a_run_that_fails_at_once_fails(engine, left):
    """And the others begin."""
    good, bad = engine.start(counts, 1), engine.start(fails)
    begin(engine, good, bad)

    assert (good.status, bad.status, left) == ("running", "failed", [])


def test_there_is_nothing_to_do_for_a_run_that_has_begun(engine, left):
    """A message may come twice."""
    started = [engine.start(counts, n) for n in range(2)]
    first = begin(engine, *started)
    again = begin(engine, *started)

    assert not again.ready
    finish(engine, first)
    settle(engine, *started)
    assert [run.result(timeout=0) for run in started] == [2, 3]
    assert left == []


def test_a_paused_run_does_not_begin(engine, left):
    """It needs no message until it is resumed."""
    held, other = engine.start(counts, 1), engine.start(counts, 2)
    held.pause()
    begin(engine, held, other)

    assert (held.status, other.status, left) == ("pending", "running", [])


def test_a_cancelled_run_is_left_to_a_turn_of_its_own(engine, left):
    """The cancel is in its inbox as well."""
    cancelled, other = engine.start(counts, 1), engine.start(counts, 2)
    cancelled.cancel("not needed")
    left.clear()
    begin(engine, cancelled, other)

    assert left == [cancelled.id]
    assert other.status == "running"


def test_a_run_that_is_overtaken_is_left_and_the_others_begin(engine, left, monkeypatch):
    """Its fence fails, and its step's claim is not kept."""
    engine.quick_steps.note("begun_together.adds", 0.001)
    started = [engine.start(counts, n) for n in range(3)]
    write = turns.commit_all

    def overtake(store, plain):
        with store.begin() as tx:
            runs.invalidate_turn(tx, started[1].id)
        return write(store, plain)

    monkeypatch.setattr(turns, "commit_all", overtake)
    continuation = begin(engine, *started)

    assert left == [started[1].id]
    assert {claim.run_id for claim in continuation.ready} == {started[0].id, started[2].id}
    assert engine.running == {claim.claim for claim in continuation.ready}


def test_where_the_transaction_fails_each_gets_a_message_of_its_own(engine, left, monkeypatch):
    """Nothing is written, and nothing claimed."""
    started = [engine.start(counts, n) for n in range(3)]

    def fail(*_: object) -> list[bool]:
        raise sa.exc.OperationalError("COMMIT", None, Exception("away"))

    monkeypatch.setattr(turns, "commit_all", fail)
    continuation = begin(engine, *started)

    assert left == [run.id for run in started]
    assert not continuation.ready
    assert not engine.running
    assert {run.status for run in started} == {"pending"}
