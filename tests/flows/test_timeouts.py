"""An attempt that takes too long, and one that says that it still works, on every database."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from celery.exceptions import SoftTimeLimitExceeded
from driving import all_databases, kinds, settle
from eventually import eventually
from giving_up import attempting, found, here, rows, seen

from durable import AttemptLost, StepFailed, StepTimeout, get_step_metadata, heartbeat, step, workflow
from durable.attempts import outcome, timeout
from durable.attempts.attempt import attempt
from durable.store import claimed_attempts
from durable.store.schema import steps
from durable.turns.drive import drive

pytestmark = [all_databases(), pytest.mark.usefixtures("unmeasured")]

TIMEOUT_SECS = 10


def dawdle() -> None:
    """Work for long, in small pieces."""
    for _ in range(TIMEOUT_SECS * 100):
        time.sleep(0.01)


@step(timeout=0.1, max_retries=1, retry_backoff=0)
def gated(how: str) -> str:
    """Take too long, each in its way."""
    mine = here()
    mine.did.append(f"attempt {get_step_metadata().attempt}")
    mine.begun.set()
    if how == "the first time" and get_step_metadata().attempt == 2:
        return "in time"
    if how == "catches it":
        with suppress(SoftTimeLimitExceeded):
            dawdle()
        return "what there was"
    if how == "goes on":
        with suppress(SoftTimeLimitExceeded):
            dawdle()
        assert mine.gate.wait(TIMEOUT_SECS)
        return "too late"
    if how == "sleeps in C":
        time.sleep(TIMEOUT_SECS)
    dawdle()
    return "too late"


@step(timeout=0.1, max_retries=0)
async def sleeps(how: str) -> str:
    mine = here()
    mine.begun.set()
    try:
        await asyncio.sleep(TIMEOUT_SECS)
    except asyncio.CancelledError:
        mine.did.append("tidied up")
        if how == "hangs":
            mine.gate.wait(TIMEOUT_SECS)
        raise
    return "too late"


STEPS = {"gated": gated, "sleeps": sleeps}


@workflow
async def awaits(which: str, how: str) -> str:
    try:
        return await STEPS[which](how)
    except StepTimeout as error:
        return f"{type(error).__name__} {error.error_type}: {error.message}"


@pytest.fixture(params=["main thread", "another thread"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Runs a function in the main thread, as prefork and solo do, or in another one, as the pool of threads does."""
    with ThreadPoolExecutor(1) as threads:
        yield (lambda f: f()) if request.param == "main thread" else lambda f: threads.submit(f).result(20)


def test_a_step_is_interrupted_at_its_deadline_and_tried_again(engine, anywhere):
    """The attempt ends as a failure of type StepTimeout, long before its body would."""
    run = engine.start(awaits, "gated", "the first time")
    began = time.monotonic()
    anywhere(lambda: settle(engine, run))

    assert run.result() == "in time"
    assert time.monotonic() - began < TIMEOUT_SECS / 2
    assert seen(run.id).did == ["attempt 1", "attempt 2"]
    (retried,) = [event for event in run.events() if event.kind == "step_retrying"]
    assert "StepTimeout" in retried.error


def test_the_workflow_gets_a_step_timeout_when_the_attempts_are_spent(engine, anywhere):
    """Of its own class, which is a StepFailed, with the step and its timeout in the message."""
    run = engine.start(awaits, "gated", "always")
    anywhere(lambda: settle(engine, run))

    assert issubclass(StepTimeout, StepFailed)
    told = f"attempt 2 of {gated.name} took longer than its timeout of 0.1s"
    assert run.result() == f"StepTimeout StepTimeout: {told}"
    assert rows(engine, run) == []


def test_a_blocking_call_is_interrupted_in_the_main_thread(engine):
    """By a signal, as Celery's soft limit does it."""
    run = engine.start(awaits, "gated", "sleeps in C")
    began = time.monotonic()
    settle(engine, run)

    assert "StepTimeout" in run.result()
    assert time.monotonic() - began < TIMEOUT_SECS / 2


def test_a_step_that_catches_it_and_returns_has_returned(engine, anywhere):
    """As with Celery's soft limit: it is for what there is by then."""
    run = engine.start(awaits, "gated", "catches it")
    anywhere(lambda: settle(engine, run))

    assert run.result() == "what there was"


def test_a_coroutine_is_cancelled_and_may_clean_up(engine, anywhere):
    """Its failure is the same StepTimeout."""
    run = engine.start(awaits, "sleeps", "ends")
    anywhere(lambda: settle(engine, run))

    assert seen(run.id).did == ["tidied up"]
    assert "StepTimeout" in run.result()


def test_a_step_that_does_not_end_is_given_up_and_its_late_result_refused(engine, anywhere):
    """After the grace of a second the next attempt may start; what the first returns changes nothing."""
    run = engine.start(awaits, "gated", "goes on")
    drive(engine, run.id)
    the_step, address = found(engine, run, "gated")

    def open_the_gate_once_it_is_given_up() -> None:
        eventually(lambda: [(row.attempt, row.status) for row in rows(engine, run)] == [(2, "pending")])
        seen(run.id).gate.set()

    with ThreadPoolExecutor(1) as threads:
        opened = threads.submit(open_the_gate_once_it_is_given_up)
        anywhere(lambda: attempt(engine, the_step, address, None))
        opened.result(TIMEOUT_SECS)

    assert kinds(run)[-1] == "step_created"
    drive(engine, run.id)
    assert kinds(run)[-1] == "step_retrying"
    assert [(row.attempt, row.deadline_at) for row in rows(engine, run)] == [(2, None)]


def test_a_coroutine_that_hangs_holds_its_thread_no_longer(engine):
    """The attempt is given up after the grace, and the waiting thread goes on."""
    run = engine.start(awaits, "sleeps", "hangs")
    drive(engine, run.id)
    began = time.monotonic()
    attempt(engine, *found(engine, run, "sleeps"), None)
    assert time.monotonic() - began < TIMEOUT_SECS / 2
    seen(run.id).gate.set()
    settle(engine, run)

    assert "StepTimeout" in run.result()


def test_the_sweep_gives_up_what_its_process_did_not(engine):
    """By the deadline in the row, some grace later; what has no deadline, or has time left, is left alone."""
    run = engine.start(awaits, "gated", "goes on")
    drive(engine, run.id)
    with engine.store.begin() as tx:
        claimed = {"status": "claimed", "claim": "theirs", "worker_id": "hung", "claimed_at": engine.now()}
        tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(**claimed, deadline_at=engine.now()))
    timeout.give_up_overdue(engine)
    assert [row.status for row in rows(engine, run)] == ["claimed"]
    with engine.store.begin() as tx:
        long_ago = engine.now() - 12_000_000
        tx.execute(sa.update(steps).where(steps.c.run_id == run.id).values(deadline_at=long_ago))
    timeout.give_up_overdue(engine)

    assert [(row.status, row.attempt, row.claim) for row in rows(engine, run)] == [("pending", 2, None)]


def test_signals_that_are_not_ours_are_passed_on(engine):
    """Celery's soft limit comes by the same signal: its handler hears of it as before."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
    try:
        run = engine.start(awaits, "gated", "the first time")
        settle(engine, run)
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert heard == [signal.SIGUSR1]
    assert run.result() == "in time"


# heartbeat


@step(timeout=0.4, retry_backoff=0, max_retries=1)
def beats() -> Any:
    """Work for longer than the timeout, in pieces; the first attempt stops saying so at the third."""
    mine, metadata = here(), get_step_metadata()
    mine.did.append(metadata.heartbeat)
    pause = threading.Event()
    for piece in range(8):
        if metadata.attempt == 1 and piece == 3:
            dawdle()
        pause.wait(0.1)
        heartbeat({"piece": piece})
    return metadata.heartbeat


@workflow
async def awaits_beats() -> Any:
    return await beats()


def test_a_heartbeat_starts_the_timeout_anew_and_is_read_by_the_next_attempt(engine):
    """Nothing at first; then what was said last; an attempt of 0.8 s outlives its timeout of 0.4 s."""
    run = engine.start(awaits_beats)
    settle(engine, run, within_secs=20)

    assert run.result() == {"piece": 2}
    assert seen(run.id).did == [None, {"piece": 2}]


@step(retry_backoff=0)
def gated_beats() -> str:
    """Beat after the test has taken the attempt away."""
    mine = here()
    mine.begun.set()
    assert mine.gate.wait(TIMEOUT_SECS)
    if get_step_metadata().attempt == 1:
        with pytest.raises(AttemptLost, match="was given up") as caught:
            heartbeat("mine")
        mine.did.append(caught.value.attempt)
    return f"{get_step_metadata().heartbeat}"


@workflow
async def loses_it() -> str:
    return await gated_beats()


def test_a_heartbeat_of_an_attempt_that_was_given_up_says_so_and_writes_nothing(engine):
    """AttemptLost in the step; the next attempt reads nothing of it."""
    run = engine.start(loses_it)
    drive(engine, run.id)
    with attempting(engine, run, "gated_beats"):
        (row,) = rows(engine, run)
        with engine.store.read() as tx:
            held = claimed_attempts.find(tx, run.id, row.op_id)
        outcome.give_up(engine, held)
    settle(engine, run)

    assert seen(run.id).did == [1]
    assert run.result() == "None"
