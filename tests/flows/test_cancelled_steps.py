"""A step whose call is given up, on every database: it never starts, or is told; and it is never tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle
from giving_up import STEPS, TIMEOUT_SECS, attempting, begin, does, found, gated, give_up_call, note, rows, seen

from durable import create_hook, get_step_metadata, race, resume_hook, sleep, step, workflow
from durable.attempts import cancellation
from durable.attempts.attempt import attempt
from durable.attempts.outcome import give_up
from durable.store import claimed_attempts
from durable.store.schema import waits
from durable.turns.drive import drive

pytestmark = all_databases()

WAYS = pytest.mark.parametrize("how", ["race", "task", "run"])


# A step that runs.


@WAYS
def test_c82_a_running_step_sees_that_its_call_was_given_up(engine, how):
    """By a race, by its task, by the run: `cancelled` turns True in the step, and its result changes nothing."""
    run = begin(engine, "polls", how)
    with attempting(engine, run, "polls"):
        give_up_call(engine, run, how)
    settle(engine, run)

    assert seen(run.id).did == (["saw it"] if how == "run" else ["saw it", "went on"])
    assert run.status == ("cancelled" if how == "run" else "completed")
    assert "step_cancelled" in kinds(run)
    assert kinds(run).count("step_completed") == (0 if how == "run" else 1)
    assert rows(engine, run) == []


@WAYS
def test_an_async_step_is_cancelled_and_may_clean_up(engine, how, caplog):
    """CancelledError once, however often housekeeping looks meanwhile; what comes of it changes nothing."""
    run = begin(engine, "tidies", how)
    with attempting(engine, run, "tidies"):
        cancellation.interrupt(engine)
        assert seen(run.id).did == []
        give_up_call(engine, run, how)
        cancellation.interrupt(engine)
        assert seen(run.id).tidying.wait(TIMEOUT_SECS)
        cancellation.interrupt(engine)
    settle(engine, run)

    assert seen(run.id).did[:2] == ["cancelled", "tidied up"]
    assert seen(run.id).did[2:] == ([] if how == "run" else ["went on"])
    assert run.status == ("cancelled" if how == "run" else "completed")
    assert {"step_retrying", "step_failed"} & set(kinds(run)) == set()
    assert rows(engine, run) == []
    # Nobody needs to be alarmed.
    assert [r for r in caplog.records if r.name.startswith("durable") and r.levelname != "INFO"] == []


def test_another_runs_step_is_not_interrupted(engine):
    """Only the coroutine whose call was given up is cancelled."""
    one, other = (begin(engine, "tidies", "run") for _ in range(2))
    with attempting(engine, other, "tidies"):
        with attempting(engine, one, "tidies"):
            give_up_call(engine, one, "run")
            cancellation.interrupt(engine)
        assert seen(one.id).did == ["cancelled", "tidied up"]
        assert seen(other.id).did == []
        give_up_call(engine, other, "run")
        cancellation.interrupt(engine)

    assert seen(other.id).did == ["cancelled", "tidied up"]


@step(retry_backoff=0)
async def cancels_itself() -> int:
    number = get_step_metadata().attempt
    if number == 1:
        raise asyncio.CancelledError("of a task of its own")
    return number


@workflow
async def awaits_it() -> int:
    return await cancels_itself()


def test_a_cancelled_error_of_the_steps_own_is_a_failure(engine):
    """Nobody gave the call up: it is tried again as after any exception."""
    run = engine.start(awaits_it)
    settle(engine, run)

    assert run.result() == 2
    assert kinds(run).count("step_retrying") == 1


@WAYS
def test_a_failure_after_the_call_was_given_up_is_not_tried_again(engine, how):
    """The attempt has retries left; nobody wants them."""
    run = begin(engine, "gated", how, "raises")
    with attempting(engine, run, "gated"):
        give_up_call(engine, run, how)
    settle(engine, run)

    assert seen(run.id).did == (["gated 1"] if how == "run" else ["gated 1", "went on"])
    assert {"step_retrying", "step_failed"} & set(kinds(run)) == set()
    assert rows(engine, run) == []


def test_an_attempt_that_dies_after_its_call_was_given_up_is_not_tried_again(engine):
    """Its process is gone: what nobody waits for is not run by another one."""
    run = begin(engine, "gated", "run", "returns")
    with attempting(engine, run, "gated"):
        give_up_call(engine, run, "run")
        (row,) = rows(engine, run)
        with engine.store.read() as tx:
            held = claimed_attempts.find(tx, run.id, row.op_id)
        assert give_up(engine, held) is None
        assert rows(engine, run) == []
    settle(engine, run)

    assert seen(run.id).did == ["gated 1"]
    assert run.status == "cancelled"


def test_a_worker_that_stops_does_not_release_a_cancelled_step(engine):
    """After SIGTERM in a step whose call was cancelled, no other worker begins the step."""
    run = begin(engine, "gated", "run", "stopped")
    with pytest.raises(SystemExit), attempting(engine, run, "gated"):
        give_up_call(engine, run, "run")

    assert rows(engine, run) == []
    assert seen(run.id).did == ["gated 1"]


def test_an_attempt_that_fails_while_its_call_is_given_up_is_not_tried_again(engine):
    """The failure comes between the statements of the turn that gives it up."""
    run = begin(engine, "gated", "task", "raises")
    resume_hook(run.hooks()[0]["token"], None)
    said: list[str] = []

    def fail_now(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "durable_steps" in statement and statement.startswith(("DELETE", "UPDATE")) and not said:
            said.append(statement)
            seen(run.id).gate.set()
            # It ends, or it waits for the turn's locks until that has committed.
            wait([running], timeout=0.3)

    with attempting(engine, run, "gated") as running:
        sa.event.listen(engine.store.engine, "after_cursor_execute", fail_now)
        try:
            drive(engine, run.id)
        finally:
            sa.event.remove(engine.store.engine, "after_cursor_execute", fail_now)
    settle(engine, run)

    assert said
    assert seen(run.id).did == ["gated 1", "went on"]
    assert rows(engine, run) == []


@workflow
async def leaves(what: str, *args: str) -> None:
    """Call a step, and wait for something else."""
    STEPS[what](*args)
    await sleep("1h")


def test_c72_a_step_that_runs_when_its_run_is_cancelled_may_record_its_result(engine):
    """One that nobody awaited: it is told all the same, and what it brings is in the log, after the end."""
    run = engine.start(leaves, "polls")
    drive(engine, run.id)
    with attempting(engine, run, "polls"):
        run.cancel()
        drive(engine, run.id)
        assert run.status == "cancelled"
    settle(engine, run)

    assert seen(run.id).did == ["saw it"]
    assert kinds(run)[-2:] == ["run_cancelled", "step_completed"]
    assert run.status == "cancelled"


def test_an_async_step_that_nobody_awaits_is_cancelled_with_its_run(engine):
    """Its end is in the log as a failure that is not tried again; the run stays as it ended."""
    run = engine.start(leaves, "tidies")
    drive(engine, run.id)
    with attempting(engine, run, "tidies"):
        run.cancel()
        drive(engine, run.id)
        cancellation.interrupt(engine)
    settle(engine, run)

    assert seen(run.id).did == ["cancelled", "tidied up"]
    assert kinds(run)[-2:] == ["run_cancelled", "step_failed"]
    assert rows(engine, run) == []


def test_a_step_that_is_wanted_is_not_cancelled(engine):
    """Neither while it runs nor afterwards; and what it knows of itself can be its result."""
    run = engine.start(tells)
    settle(engine, run)

    told, metadata = run.result()
    assert told is False
    assert metadata.name.endswith(".tell")
    assert metadata.cancelled is False


@step
def tell() -> Any:
    return get_step_metadata().cancelled, get_step_metadata()


@workflow
async def tells() -> Any:
    return await tell()


def test_a_database_that_is_away_cancels_nothing(engine):
    """A step that asks meanwhile goes on, and one that was told stays told."""
    run = begin(engine, "gated", "run", "returns")
    with attempting(engine, run, "gated"):
        (row,) = rows(engine, run)
        check = cancellation.CancellationCheck(engine, row)
        with away(engine):
            assert check.check() is False
        give_up_call(engine, run, "run")
        assert check.check() is True
        with away(engine):
            assert check.check() is True


@contextmanager
def away(engine: Any) -> Iterator[None]:
    """Every statement fails as on a connection that was lost."""

    def lost(*_: Any) -> None:
        raise sa.exc.OperationalError("SELECT", {}, Exception("connection lost"), connection_invalidated=True)

    sa.event.listen(engine.store.engine, "before_cursor_execute", lost)
    try:
        yield
    finally:
        sa.event.remove(engine.store.engine, "before_cursor_execute", lost)


# What does not run yet.


@WAYS
def test_c81_what_is_cancelled_before_it_starts_never_starts(engine, how):
    """The message that carries it comes later, and finds nothing to do."""
    run = begin(engine, "gated", how, "returns")
    carried = found(engine, run, "gated")
    give_up_call(engine, run, how)
    seen(run.id).gate.set()

    attempt(engine, *carried, None)
    settle(engine, run)

    assert seen(run.id).did == ([] if how == "run" else ["went on"])
    assert "step_cancelled" in kinds(run)


def test_c81_a_step_that_waits_for_its_next_attempt_is_withdrawn(engine):
    """The retry is due in a minute; after the cancel there is none."""
    run = engine.start(awaits_retry)
    settle(engine, run)
    (row,) = rows(engine, run)
    assert (row.attempt, row.status) == (2, "pending")

    run.cancel()
    settle(engine, run)

    assert run.status == "cancelled"
    assert rows(engine, run) == []


@step(retry_backoff=60, retry_jitter=False)
def fails_at_first() -> None:
    raise ConnectionError("no")


@workflow
async def awaits_retry() -> None:
    await fails_at_first()


@workflow
async def many(count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(does.run("gated", "returns"))


def test_c78_all_of_several_parallel_steps_are_given_up(engine):
    """One that runs and nine that wait: the run ends at once."""
    run = engine.start(many, 10)
    drive(engine, run.id)
    with attempting(engine, run, "gated"):
        run.cancel()
        drive(engine, run.id)
        assert run.status == "cancelled"
    settle(engine, run)

    assert kinds(run).count("step_cancelled") == 10
    assert seen(run.id).did == ["gated 1"]
    assert rows(engine, run) == []


@workflow
async def sleeps_then_cancels() -> str:
    call = asyncio.ensure_future(gated("returns"))
    await sleep("30ms")
    call.cancel()
    return await note("went on")


def test_c78_a_workflow_that_cancels_a_long_step_goes_on_at_once(engine):
    """It does not wait for the step to end."""
    run = engine.start(sleeps_then_cancels)
    drive(engine, run.id)
    with attempting(engine, run, "gated"):
        settle(engine, run)
        assert run.result() == "went on"
    settle(engine, run)

    assert seen(run.id).did == ["gated 1", "went on"]


def test_c42_a_sleep_that_lost_wakes_nobody(engine):
    """Its row is gone with the race, long before its time."""
    run = engine.start(races)
    drive(engine, run.id)
    resume_hook(run.hooks()[0]["token"], "first")
    settle(engine, run)

    assert run.status == "running"
    assert "wait_cancelled" in kinds(run)
    with engine.store.read() as tx:
        assert tx.execute(sa.select(waits).where(waits.c.run_id == run.id)).all() == []
    resume_hook(run.hooks()[0]["token"], "second")
    settle(engine, run)
    assert run.result() == ["first", "second"]


@workflow
async def races() -> list[Any]:
    """A race that the sleep loses, then one that is cancelled: the hook keeps what it has."""
    hook = create_hook()
    first = await race(hook, sleep("1h"))
    waiting = asyncio.ensure_future(race(hook, asyncio.Event().wait()))
    await sleep("1ms")
    waiting.cancel()
    return [first, await hook]
