"""Cancelling runs on every database: what cleans up is durable, and what has ended stays as it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from driving import all_databases, kinds, restart, settle
from giving_up import attempting, does, found, gated, note, rows, seen

from durable import HookNotFound, Run, RunCancelled, create_hook, race, resume_hook, sleep, workflow
from durable.attempts.attempt import attempt
from durable.attempts.outcome import give_up
from durable.client import describe
from durable.store import claimed_attempts, claims
from durable.turns.drive import drive

pytestmark = all_databases()


@workflow
async def cleans_up(token: str, how: str = "finally") -> str:
    """Sleep; clean up in two steps, with a hook and a nap between."""
    try:
        await sleep("1h")
    except asyncio.CancelledError:
        await note("table")
        await note(await create_hook(token=token))
        await sleep("1ms")
        if how == "raises":
            raise ValueError("the floor is wet") from None
        await note("floor")
        if how != "swallows":
            raise
    return "as if nothing had been"


def cleaning(engine: Any, how: str = "finally") -> tuple[Run[Any], str]:
    """A run that was cancelled, and waits for a payload in its cleanup."""
    token = secrets.token_hex(8)
    run = engine.start(cleans_up, token, how)
    settle(engine, run)
    assert run.cancel("enough") is True
    settle(engine, run)
    assert run.status == "running"
    assert seen(run.id).did == ["table"]
    return run, token


def test_hooks_stay_open_while_a_cancelled_run_cleans_up(engine):
    """A cleanup may wait for a payload, steps and sleeps; its hooks close when the run ends."""
    run, token = cleaning(engine)
    resume_hook(token, "chairs")
    settle(engine, run)

    assert run.status == "cancelled"
    assert seen(run.id).did == ["table", "chairs", "floor"]
    with pytest.raises(HookNotFound):
        resume_hook(token, "too late")


def test_a_second_cancel_changes_nothing(engine):
    """The cleanup goes on, and the first reason stays."""
    run, token = cleaning(engine)
    assert run.cancel("now, please") is True
    settle(engine, run)
    assert run.status == "running"
    resume_hook(token, "chairs")
    settle(engine, run)

    assert seen(run.id).did == ["table", "chairs", "floor"]
    with pytest.raises(RunCancelled, match="enough"):
        run.result()


def test_a_run_that_swallows_its_cancel_ends_cancelled(engine):
    """Whatever it returns."""
    run, token = cleaning(engine, "swallows")
    resume_hook(token, "chairs")
    settle(engine, run)

    assert run.status == "cancelled"
    with pytest.raises(RunCancelled) as cancelled:
        run.result()
    assert cancelled.value.__cause__ is None


def test_an_error_in_the_cleanup_is_shown(engine):
    """The run ends cancelled; `result` has the error as the cause, `runs show` prints it."""
    run, token = cleaning(engine, "raises")
    resume_hook(token, "chairs")
    settle(engine, run)

    assert run.status == "cancelled"
    with pytest.raises(RunCancelled, match="enough") as cancelled:
        run.result()
    assert repr(cancelled.value.__cause__) == "ValueError('the floor is wet')"
    assert "the floor is wet" in describe.describe(engine, run.id)["error"]


def test_cleanup_goes_on_after_a_worker_died_in_it(engine):
    """The step that was lost runs again, those that are done do not, on whichever worker."""
    run, token = cleaning(engine)
    resume_hook(token, "chairs")
    drive(engine, run.id)
    (row,) = rows(engine, run)
    with engine.store.begin() as tx:
        assert claims.claim(
            tx,
            run.id,
            row.op_id,
            1,
            by=secrets.token_hex(16),
            worker_id="of a worker that dies",
            message_id=None,
            now=engine.store.sql_now,
        )
    with engine.store.read() as tx:
        held = claimed_attempts.find(tx, run.id, row.op_id)
    give_up(engine, held)
    settle(engine, run)

    assert run.status == "cancelled"
    assert seen(run.id).did == ["table", "chairs", "floor"]
    assert kinds(run).count("step_retrying") == 1


@pytest.mark.parametrize("ended", ["step", "wait"])
def test_a_cancel_and_an_outcome_in_one_turn(engine, ended):
    """The run was cancelled just before its step, or its sleep, was over: it ends, and each of them once."""
    run = engine.start(does, "gated", "returns") if ended == "step" else engine.start(naps, "1h")
    seen(run.id).gate.set()
    drive(engine, run.id)
    run.cancel()
    if ended == "step":
        attempt(engine, *found(engine, run, "gated"), None)
    else:
        assert run.wake_up() == 1
    drive(engine, run.id)

    assert run.status == "cancelled"
    assert [e.kind for e in run.events() if e.phase == "ended"] == [f"{ended}_completed", "run_cancelled"]


def test_all_that_was_raced_ends_in_one_turn(engine):
    """The winner ends the run, and the loser was over before it could be given up: each ends once."""
    run = engine.start(first_of_two)
    seen(run.id).gate.set()
    drive(engine, run.id)
    attempt(engine, *found(engine, run, "gated"), None)
    assert run.wake_up() == 1
    drive(engine, run.id)

    assert run.result() == "done"
    ended = [e.kind for e in run.events() if e.phase == "ended"]
    assert ended == ["step_completed", "wait_completed", "run_completed"]


@workflow
async def first_of_two() -> Any:
    return await race(gated("returns"), sleep("1h"))


@workflow
async def naps(delay: str) -> None:
    await sleep(delay)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
def test_c72_a_run_that_has_ended_stays_what_it_is(engine, how):
    """`cancel` says False, as often as it is asked, and the log stays as it was."""
    run = engine.start(ends, how)
    if how == "cancelled":
        run.cancel()
    settle(engine, run)
    before = run.events()

    assert [run.cancel("late"), run.cancel("later")] == [False, False]
    settle(engine, run)

    assert run.status == how
    assert run.events() == before


@workflow
async def ends(how: str) -> None:
    if how == "failed":
        raise ValueError(how)


def test_a_blocked_run_is_cancelled_at_once(engine):
    """No code matches its log, so none cleans up; what it had asked for is withdrawn."""
    deployed["changed"] = False
    restart(engine)
    run = engine.start(changes)
    drive(engine, run.id)
    deployed["changed"] = True
    restart(engine)
    attempt(engine, *found(engine, run, "note"), None)
    drive(engine, run.id)
    assert run.status == "blocked"

    assert run.cancel("no use") is True
    drive(engine, run.id)

    assert run.status == "cancelled"
    assert kinds(run)[-1] == "run_cancelled"
    assert seen(run.id).did == ["as it was"]
    assert rows(engine, run) == []


deployed = {"changed": False}


@workflow
async def changes() -> None:
    if deployed["changed"]:
        await sleep("1h")
    await asyncio.gather(note("as it was"), gated("returns"))


@workflow
async def calls_a_child(token: str) -> None:
    await cleans_up(token)


def test_cancelling_a_run_reaches_its_child(engine):
    """The child cleans up as any other run does; its parent has ended meanwhile."""
    token = secrets.token_hex(8)
    run = engine.start(calls_a_child, token)
    drive(engine, run.id)
    (created,) = [event for event in run.events() if event.kind == "child_created"]
    child = engine.get_run(created.run_id)
    settle(engine, run, child)

    run.cancel()
    settle(engine, run, child)
    assert (run.status, child.status) == ("cancelled", "running")
    resume_hook(token, "chairs")
    settle(engine, child)

    assert child.status == "cancelled"
    assert seen(child.id).did == ["table", "chairs", "floor"]


# A job that can be cancelled from anywhere.


@workflow
async def job(token: str, limit: float) -> str:
    """Run a long step until it ends, the time limit passes, or a caller resumes the hook."""
    stop = create_hook(token=token)
    try:
        async with asyncio.timeout(limit):
            return await race(gated("returns"), stop)
    except TimeoutError:
        return await note("out of time")
    except asyncio.CancelledError:
        await note("rolled back")
        raise


@contextmanager
def working(engine: Any, limit: float = 3600) -> Iterator[tuple[Run[Any], str]]:
    """A job whose step runs."""
    token = f"job:{secrets.token_hex(8)}"
    run = engine.start(job, token, limit)
    drive(engine, run.id)
    with attempting(engine, run, "gated"):
        yield run, token


def test_c83_a_job_is_cancelled_by_hand(engine):
    """By its id, from any process: it rolls back and ends cancelled, whatever its step does then."""
    with working(engine) as (run, _):
        assert engine.get_run(run.id).cancel("by hand") is True
        settle(engine, run)
        assert run.status == "cancelled"
    settle(engine, run)

    assert seen(run.id).did == ["gated 1", "rolled back"]
    with pytest.raises(RunCancelled, match="by hand"):
        run.result()


def test_c83_a_job_is_cancelled_by_its_time_limit(engine):
    """The step is given up when the time is over, and the workflow goes on."""
    with working(engine, limit=0.05) as (run, _):
        settle(engine, run)
        assert run.result() == "out of time"
    settle(engine, run)

    assert seen(run.id).did == ["gated 1", "out of time"]


def test_c83_a_job_is_found_again_by_its_token(engine):
    """A caller that knows the token stops the run without its id; a second call raises `HookNotFound`."""
    with working(engine) as (run, token):
        assert resume_hook(token, "stopped by token").id == run.id
        settle(engine, run)
        assert run.result() == "stopped by token"
        with pytest.raises(HookNotFound):
            resume_hook(token, "again")
    settle(engine, run)

    assert kinds(run).count("step_cancelled") == 1
    assert "step_completed" not in kinds(run)
