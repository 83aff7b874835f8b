"""Steps that run at most once, on every database: an attempt of which nobody knows what became is never repeated."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from celery.exceptions import SoftTimeLimitExceeded
from driving import all_databases, kinds, settle
from eventually import eventually
from giving_up import attempting, found, here, rows, seen

from durable import NotInDoubt, Run, SerializationError, StepFailed, create_hook, resume_hook, step, workflow
from durable.attempts import outcome
from durable.attempts.attempt import attempt
from durable.client import describe, operate
from durable.errors import ConfigurationError
from durable.store import claimed_attempts, claims
from durable.store.schema import steps
from durable.turns.commit import commit
from durable.turns.decide import decide
from durable.turns.decision import Overtaken
from durable.turns.drive import drive
from durable.turns.view import read

pytestmark = all_databases()

TIMEOUT_SECS = 10


@dataclass
class Receipt:
    number: int


@step(semantics="at_most_once")
def gated(how: str = "returns") -> Receipt:
    """Pay, once; held up by the test."""
    mine = here()
    mine.did.append("paid")
    mine.begun.set()
    assert mine.gate.wait(TIMEOUT_SECS)
    if how == "stopped":
        raise SystemExit(-(256 - signal.SIGTERM))  # as billiard ends a child
    return Receipt(1)


@step(semantics="at_most_once", retry_backoff=0)
def raises() -> None:
    here().did.append("raised")
    raise ConnectionError("refused")


@step(semantics="at_most_once", max_retries=1, retry_backoff=0)
def raises_once() -> str:
    mine = here()
    mine.did.append("raised")
    if len(mine.did) == 1:
        raise ConnectionError("refused")
    return "done"


@step
def note(what: str) -> str:
    here().did.append(what)
    return what


@workflow
async def pays(how: str = "returns") -> Any:
    """Pay, and listen meanwhile."""
    hook = create_hook()
    receipt = await gated(how)
    return receipt.number, await hook


@workflow
async def notices() -> str:
    try:
        await gated()
    except StepFailed as error:
        return f"{error.error_type}: {error.message}"
    return "paid"


@workflow
async def does(which: str) -> Any:
    return await {"raises": raises, "raises_once": raises_once}[which]()


def lose(engine: Any, run: Run[Any]) -> None:
    """Give up the attempt, as the sweep does when its process is gone."""
    (row,) = rows(engine, run)
    with engine.store.read() as tx:
        held = claimed_attempts.find(tx, run.id, row.op_id)
    assert held is not None
    assert outcome.give_up(engine, held) is None


def lost(engine: Any, run: Run[Any]) -> None:
    """Claim the run's step, and let the claimant be gone."""
    drive(engine, run.id)
    _, address = found(engine, run, "gated")
    with engine.store.begin() as tx:
        held = claims.claim(
            tx,
            address.run,
            address.op,
            address.attempt,
            by=f"claim of {run.id}",
            worker_id="gone",
            message_id=None,
            now=engine.store.sql_now,
            semantics="at_most_once",
        )
    assert held is not None
    lose(engine, run)


def test_an_attempt_whose_process_is_gone_blocks_the_run_and_is_not_repeated(engine):
    """The reason names the step, the attempt, what happened and the next move; turns stop, the inbox is open."""
    run = engine.start(pays)
    lost(engine, run)

    described = describe.describe(engine, run.id)
    assert described["status"] == "blocked"
    assert f"{gated.name} (r#2), attempt 1, is in doubt" in described["error"]
    assert f"durable runs resolve {run.id}" in described["error"]
    (waiting,) = [entry for entry in described["waiting_for"] if entry["kind"] == "step"]
    assert waiting["state"] == "in_doubt"
    before = kinds(run)
    resume_hook(run.hooks()[0]["token"], "news")
    settle(engine, run)
    assert (kinds(run), run.status) == (before, "blocked")
    assert attempt(engine, *found(engine, run, "gated"), None) is None
    assert seen(run.id).did == []

    assert run.resolve(result={"number": 7}) == "r#2"
    settle(engine, run)
    assert run.result() == (7, "news")
    (ended,) = [event for event in run.events() if event.kind == "step_completed"]
    assert ended.worker == operate.BY_HAND
    assert rows(engine, run) == []


def test_a_step_in_doubt_may_be_resolved_as_failed(engine):
    """The workflow sees a failure like any other."""
    run = engine.start(notices)
    lost(engine, run)

    run.resolve(fail="the bank says no")
    settle(engine, run)

    assert run.result() == "ResolvedAsFailed: the bank says no"


def test_other_code_does_not_unblock_a_run_in_doubt(engine, monkeypatch):
    """Neither a new version of the code nor `runs retry` lets it have a turn."""
    run = engine.start(pays)
    lost(engine, run)
    resume_hook(run.hooks()[0]["token"], "news")
    monkeypatch.setattr(type(engine), "code_version", lambda *_: "another")

    drive(engine, run.id)
    assert run.status == "blocked"
    assert operate.is_in_doubt(engine, run.id)
    operate.retry(engine, run.id)
    drive(engine, run.id)

    assert run.status == "blocked"


def test_a_turn_under_way_fails_its_fence(engine):
    """It read the run before the doubt, and would commit after it."""
    run = engine.start(pays)
    drive(engine, run.id)
    resume_hook(run.hooks()[0]["token"], "news")
    with engine.store.read() as tx:
        view = read(tx, run.id, engine.now())
    decision = decide(engine, view, pays)
    with attempting(engine, run, "gated"):
        lose(engine, run)
        with pytest.raises(Overtaken):
            commit(engine, decision)


def test_the_process_that_lives_after_all_resolves_the_doubt(engine):
    """Its outcome counts while nobody has said anything else."""
    run = engine.start(pays)
    drive(engine, run.id)
    resume_hook(run.hooks()[0]["token"], "news")
    with attempting(engine, run, "gated"):
        lose(engine, run)
        assert run.status == "blocked"
    assert run.status == "running"
    settle(engine, run)

    assert run.result() == (1, "news")
    assert seen(run.id).did == ["paid"]
    with pytest.raises(NotInDoubt, match="nothing to resolve"):
        run.resolve(result=None)


def test_the_operator_who_was_first_wins(engine, caplog):
    """What the process records later changes nothing."""
    run = engine.start(notices)
    drive(engine, run.id)
    with attempting(engine, run, "gated"):
        lose(engine, run)
        run.resolve(fail="written off")
    settle(engine, run)

    assert run.result() == "ResolvedAsFailed: written off"
    assert kinds(run).count("step_completed") == 0
    assert "its outcome is not recorded" in caplog.text


def test_an_attempt_that_is_stopped_in_its_body_is_in_doubt(engine):
    """A worker's cold shutdown releases only attempts that may be repeated, and this one may not."""
    run = engine.start(pays, "stopped")
    drive(engine, run.id)
    with pytest.raises(SystemExit), attempting(engine, run, "gated"):
        pass

    assert run.status == "blocked"
    assert seen(run.id).did == ["paid"]


@step(semantics="at_most_once", timeout=0.1)
def gated_too_long() -> str:
    """Deaf to what it is told at its deadline."""
    mine = here()
    mine.did.append("paid")
    mine.begun.set()
    with suppress(SoftTimeLimitExceeded):
        time.sleep(TIMEOUT_SECS)
    assert mine.gate.wait(TIMEOUT_SECS)
    return "paid"


@workflow
async def pays_slowly() -> str:
    return await gated_too_long()


def test_an_attempt_that_does_not_end_in_time_is_in_doubt(engine):
    """Nobody knows what it will still do: it is not a failure that could be retried."""
    run = engine.start(pays_slowly)
    drive(engine, run.id)

    def wait_for_the_doubt() -> None:
        eventually(lambda: run.status == "blocked")
        seen(run.id).gate.set()

    with ThreadPoolExecutor(1) as threads:
        waited = threads.submit(wait_for_the_doubt)
        attempt(engine, *found(engine, run, "gated_too_long"), None)
        waited.result(TIMEOUT_SECS)
    settle(engine, run)

    assert seen(run.id).did == ["paid"]
    # It came to its end after all, before anybody had resolved it.
    assert run.result() == "paid"


def test_what_it_raises_is_known_and_not_retried_unless_told(engine):
    """`max_retries` is 0 by default, and counts exceptions only."""
    run, other = engine.start(does, "raises"), engine.start(does, "raises_once")
    settle(engine, run, other)

    assert (run.status, seen(run.id).did) == ("failed", ["raised"])
    assert (other.result(), seen(other.id).did) == ("done", ["raised", "raised"])


def test_a_cancel_ends_a_run_in_doubt_at_once(engine):
    """What was in doubt is written off; its late outcome changes nothing."""
    run = engine.start(pays)
    drive(engine, run.id)
    with attempting(engine, run, "gated"):
        lose(engine, run)
        run.cancel()
        drive(engine, run.id)
        assert run.status == "cancelled"
        assert rows(engine, run) == []
    settle(engine, run)

    assert kinds(run)[-2:] == ["step_cancelled", "run_cancelled"]


def test_an_attempt_of_a_run_that_has_ended_is_not_in_doubt(engine):
    """Nobody waits for it: its end is noted, and the run stays as it ended."""
    run = engine.start(pays)
    drive(engine, run.id)
    with attempting(engine, run, "gated"):
        run.cancel()
        drive(engine, run.id)
        lose(engine, run)
    settle(engine, run)

    assert run.status == "cancelled"
    assert rows(engine, run) == []


def test_a_result_that_does_not_fit_is_refused(engine):
    """By the step's return annotation; nothing changes."""
    run = engine.start(pays)
    lost(engine, run)

    with pytest.raises(SerializationError, match="number"):
        run.resolve(result={"number": "many"})
    with pytest.raises(TypeError, match="either"):
        run.resolve()
    with pytest.raises(NotInDoubt, match=r"Step 'r#9' .* is not in doubt.  In doubt: r#2"):
        run.resolve(fail="x", step="r#9")

    assert run.status == "blocked"


@step(semantics="at_most_once")
def one_of_two() -> int:
    return 1


@workflow
async def pays_twice() -> list[int]:
    first, second = one_of_two(), one_of_two()
    return [await first, await second]


def test_of_several_in_doubt_one_has_to_be_named(engine):
    """The run stays blocked, with the reason of the other one, until both are resolved."""
    run = engine.start(pays_twice)
    drive(engine, run.id)
    for row in rows(engine, run):
        with engine.store.begin() as tx:
            tx.execute(
                sa.update(steps)
                .where(steps.c.run_id == run.id, steps.c.op_id == row.op_id)
                .values(status="claimed", claim=row.op_id, worker_id="gone", claimed_at=1, semantics="at_most_once")
            )
        with engine.store.read() as tx:
            held = claimed_attempts.find(tx, run.id, row.op_id)
        outcome.give_up(engine, held)

    with pytest.raises(NotInDoubt, match="name one with --step"):
        run.resolve(result=1)
    run.resolve(result=1, step="r#1")
    drive(engine, run.id)
    assert run.status == "blocked"
    reason = describe.describe(engine, run.id)["error"]
    assert "(r#2)" in reason
    assert "(r#1)" not in reason
    run.resolve(result=2)
    settle(engine, run)

    assert run.result() == [1, 2]


def test_semantics_that_there_are_none(engine):
    """The error lists what there is; a coroutine has no session of its own."""
    with pytest.raises(ConfigurationError, match="'at_least_once', 'at_most_once', 'transactional'"):
        step(semantics="exactly_once")
    with pytest.raises(ConfigurationError, match="Make it a `def`"):

        @step(semantics="transactional")
        async def shared() -> None: ...
