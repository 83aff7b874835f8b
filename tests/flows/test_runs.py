"""Runs and steps on every database: started, retried, failed, cancelled, blocked, each as the log has it."""

from __future__ import annotations

import asyncio
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, restart, settle

from durable import (
    FatalError,
    RetryableError,
    RunCancelled,
    RunConflict,
    RunFailed,
    get_step_metadata,
    now,
    sleep,
    step,
    workflow,
)
from durable.attempts.outcome import give_up
from durable.client import describe, operate
from durable.store import claimed_attempts
from durable.store.schema import events, inbox, runs, steps, waits
from durable.turns.drive import drive

pytestmark = all_databases()

#: What steps did, by the run that they did it for.
done: dict[str, list[Any]] = {}


def did(what: Any) -> int:
    """Note it for this run; how often there was something to note."""
    mine = done.setdefault(get_step_metadata().run_id, [])
    mine.append(what)
    return len(mine)


@step
def double(number: int) -> int:
    did(number)
    return 2 * number


@workflow
async def doubles(*numbers: int) -> list[int]:
    return list(await asyncio.gather(*(double(number) for number in numbers)))


def test_c1_a_run_returns_what_its_workflow_returned(engine):
    """Each step runs once, and the log tells it in order."""
    run = engine.start(doubles, 1, 2, 3)
    assert run.status == "pending"

    settle(engine, run)

    assert run.status == "completed"
    assert run.result() == [2, 4, 6]
    assert sorted(done[run.id]) == [1, 2, 3]
    told = kinds(run)
    assert told[:2] == ["run_created", "run_started"]
    assert told[-1] == "run_completed"
    assert (told.count("step_created"), told.count("step_completed")) == (3, 3)


def test_a_finished_run_leaves_no_work(engine):
    """Work lists hold rows only while there is something to do."""
    run = engine.start(doubles, 1, 2)
    settle(engine, run)

    with engine.store.read() as tx:
        for table in (inbox, steps, waits):
            assert tx.execute(sa.select(table).where(table.c.run_id == run.id)).all() == []


@step(max_retries=3, retry_backoff=0.01)
def flaky(failures: int) -> int:
    tries = did("try")
    if tries <= failures:
        raise ConnectionError(f"try {tries}")
    return get_step_metadata().attempt


@workflow
async def tries(failures: int) -> int:
    return await flaky(failures)


def test_c22_a_step_that_fails_is_tried_again(engine):
    """Two failures cost two attempts, and the metadata says which one it is."""
    run = engine.start(tries, 2)
    settle(engine, run)

    assert run.result() == 3
    assert kinds(run).count("step_retrying") == 2


def test_c25_a_step_whose_attempts_are_spent_fails_the_run(engine):
    """Three retries are four attempts; the original exception comes out, with a note of the step."""
    run = engine.start(tries, 100)
    settle(engine, run)

    with pytest.raises(RunFailed, match="ConnectionError: try 4") as failed:
        run.result()
    assert isinstance(failed.value.__cause__, ConnectionError)
    assert any("flaky" in note for note in failed.value.__cause__.__notes__)
    assert done[run.id] == ["try"] * 4
    assert kinds(run)[-2:] == ["step_failed", "run_failed"]


@step
def gives_up(how: str) -> None:
    did(how)
    raise FatalError("no use") if how == "fatal" else ValueError("at first")


@step(max_retries=0)
def once() -> None:
    did("once")
    raise ValueError("once")


@workflow
async def catches(how: str) -> str:
    try:
        await (once() if how == "once" else gives_up(how))
    except (FatalError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


@pytest.mark.parametrize(("how", "caught"), [("fatal", "FatalError: no use"), ("once", "ValueError: once")])
def test_c24_no_second_attempt(engine, how, caught):
    """FatalError and max_retries=0 mean one attempt; the workflow may catch what comes of it."""
    run = engine.start(catches, how)
    settle(engine, run)

    assert run.result() == caught
    assert done[run.id] == [how]


@step
def wrong_type() -> int:
    did("tried")
    return "not a number"  # type: ignore[return-value]


@workflow
async def typed() -> int:
    return await wrong_type()


def test_c29_a_result_that_does_not_fit_is_not_tried_again(engine):
    """A result of another type than the annotation's fails the step at its first attempt."""
    run = engine.start(typed)
    settle(engine, run)

    with pytest.raises(RunFailed, match="SerializationError"):
        run.result()
    assert done[run.id] == ["tried"]


@step
def hinted() -> int:
    if did("try") == 1:
        raise RetryableError("busy", retry_after="300ms")
    return get_step_metadata().attempt


@workflow
async def waits_for_hint() -> int:
    return await hinted()


def test_c23_retry_after_is_the_least_delay(engine):
    """The next attempt does not begin before it."""
    run = engine.start(waits_for_hint)
    settle(engine, run)

    assert run.result() == 2
    (retrying,) = [event for event in run.events() if event.kind == "step_retrying"]
    (completed,) = [event for event in run.events() if event.kind == "step_completed"]
    assert completed.started_at - retrying.at >= 300_000


@step
async def slow_sum(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@workflow
async def naps(delay: str) -> Any:
    before = now()
    await sleep(delay)
    return (now() - before).total_seconds(), await slow_sum(1, b=2)


def test_a_sleep_ends_when_it_is_over(engine):
    """Not before its time by the run's clock, which moves with the log."""
    run = engine.start(naps, "50ms")
    settle(engine, run)

    slept, total = run.result()
    assert slept >= 0.05
    assert total == 3


def test_c40_wake_up_ends_a_sleep(engine):
    """An hour's sleep ends now, once."""
    run = engine.start(naps, "1h")
    settle(engine, run)
    assert run.status == "running"

    assert run.wake_up() == 1
    assert run.wake_up() == 0
    settle(engine, run)

    assert run.status == "completed"


# Attempts given up, turns that meet.


@step(retry_backoff=0)
def loses_its_claim(engine_key: str) -> str:
    number = did("try")
    if number == 1:
        metadata = get_step_metadata()
        engine = engines[engine_key]
        with engine.store.read() as tx:
            held = claimed_attempts.find(tx, metadata.run_id, metadata.step_id)
        assert held is not None
        give_up(engine, held)
    return f"attempt {number}"


engines: dict[str, Any] = {}


@workflow
async def given_up(engine_key: str) -> str:
    return await loses_its_claim(engine_key)


def test_c87_a_late_result_of_a_lost_attempt_changes_nothing(engine):
    """The first attempt's process was taken for dead: what it brings then is not recorded."""
    key = secrets.token_hex(4)
    engines[key] = engine
    run = engine.start(given_up, key)
    settle(engine, run)

    assert run.result() == "attempt 2"
    assert kinds(run).count("step_completed") == 1
    assert kinds(run).count("step_retrying") == 1
    del engines[key]


def test_c86_two_turns_at_once_are_harmless(engine):
    """Eight drives of the same news write it once."""
    run = engine.start(doubles, *range(5))
    together = threading.Barrier(8)

    def turn() -> None:
        together.wait()
        drive(engine, run.id)

    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(turn) for _ in range(8)]:
            future.result()

    assert kinds(run) == ["run_created", "run_started"] + ["step_created"] * 5
    settle(engine, run)
    assert run.result() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("cancelled", [False, True], ids=["driven", "driven and cancelled"])
def test_a_turn_may_be_overtaken_between_its_queries(engine, cancelled):
    """What another turn has taken meanwhile is not missed; what came after that is not mistaken for the beginning."""
    run = engine.start(doubles, 1)
    overtaken: list[str] = []

    def overtake(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "durable_runs" in statement and not overtaken:
            overtaken.append(statement)
            drive(engine, run.id)
            if cancelled:
                run.cancel()

    sa.event.listen(engine.store.engine, "after_cursor_execute", overtake)
    drive(engine, run.id)
    sa.event.remove(engine.store.engine, "after_cursor_execute", overtake)

    assert kinds(run)[:3] == ["run_created", "run_started", "step_created"]
    settle(engine, run)
    assert run.status == ("cancelled" if cancelled else "completed")


def test_c97_a_turn_with_nothing_new_costs_one_query(engine):
    """It writes nothing, and reads one row."""
    run = engine.start(doubles, 1)
    drive(engine, run.id)
    before = kinds(run)
    said: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    drive(engine, run.id)
    sa.event.remove(engine.store.engine, "before_cursor_execute", note)

    assert [statement.split()[0] for statement in said if not statement.startswith("BEGIN")] == ["SELECT"]
    assert kinds(run) == before


# Cancelled.


@step
def tidy(what: str) -> str:
    did(what)
    return what


@workflow
async def cleans_up() -> None:
    try:
        await sleep("1h")
    finally:
        await tidy("table")
        await tidy("floor")


def test_c72_a_pending_run_is_cancelled_at_once(engine):
    """It ends without having begun."""
    run = engine.start(cleans_up)
    assert run.cancel("changed my mind") is True
    settle(engine, run)

    assert run.status == "cancelled"
    with pytest.raises(RunCancelled, match="changed my mind"):
        run.result()
    assert "run_started" not in kinds(run)
    assert run.cancel() is False


def test_a_running_run_cleans_up_after_a_cancel(engine):
    """The steps of its finally block run, then it ends cancelled; its sleep is gone."""
    run = engine.start(cleans_up)
    settle(engine, run)
    assert run.cancel() is True
    settle(engine, run)

    assert run.status == "cancelled"
    assert done[run.id] == ["table", "floor"]
    assert "wait_cancelled" in kinds(run)
    assert run.cancel() is False


# Code that changed.

deployed = {"step": "double"}


@workflow
async def changes() -> Any:
    if deployed["step"] == "double":
        return await double(21)
    return await tidy("up")


def test_c93_code_that_no_longer_matches_blocks_the_run(engine):
    """The run waits with a diff; with code that matches, and a retry, it goes on as if nothing had been."""
    deployed["step"] = "double"
    restart(engine)
    run = engine.start(changes)
    drive(engine, run.id)
    before = kinds(run)

    deployed["step"] = "tidy"
    restart(engine)
    settle(engine, run)

    assert run.status == "blocked"
    assert kinds(run) == before
    diff = describe.describe(engine, run.id)["error"]
    assert "double" in diff
    assert "tidy" in diff
    assert "test_runs.py:" in diff

    deployed["step"] = "double"
    restart(engine)
    assert operate.retry(engine, run.id) is True
    settle(engine, run)
    assert run.result() == 42
    assert operate.retry(engine, run.id) is False


# Keys.


def test_a_key_starts_one_run(engine):
    """Twenty callers at once, one run; other arguments under the same key are refused."""
    key = secrets.token_hex(8)
    keyed = doubles.with_options(idempotency_key=key)
    together = threading.Barrier(20)

    def start() -> str:
        together.wait()
        return str(keyed.start(4).id)

    with ThreadPoolExecutor(20) as threads:
        started = {future.result() for future in [threads.submit(start) for _ in range(20)]}

    assert len(started) == 1
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(runs).where(runs.c.idempotency_key == key)
        assert tx.execute(query).scalar_one() == 1
    with pytest.raises(RunConflict):
        keyed.start(5)
    run = engine.get_run(started.pop())
    settle(engine, run)
    assert run.result() == [8]


# Values.

MIB = 1024 * 1024


@step
def makes(kind: str) -> Any:
    # What is counted is the value as it is written: text with its quotes, bytes in base64.
    return {
        "text": "x" * (8 * MIB),
        "bytes": bytes(range(256)) * 32 * 1024,
        "nul": "a\0b",
        "wide": "\U0001f600é\\",
    }[kind]


@workflow
async def hands_on(kind: str) -> Any:
    return await makes(kind)


@pytest.mark.parametrize("kind", ["text", "bytes", "nul", "wide"])
def test_c33_large_and_odd_values_cross_unchanged(engine, kind):
    """8 MiB of text, 8 MiB of bytes, NUL, and what needs an escape, from a step to the run's result."""
    run = engine.start(hands_on, kind)
    settle(engine, run)

    assert run.result() == makes.run(kind)


def test_c29_an_argument_that_cannot_cross_starts_nothing(engine):
    """The error names the path to it."""
    with engine.store.read() as tx:
        before = tx.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one()

    with pytest.raises(Exception, match=r"numbers\[1\]|\[1\]") as refused:
        engine.start(doubles, 1, object())

    assert type(refused.value).__name__ == "SerializationError"
    with engine.store.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one() == before


def test_c86_a_log_is_never_written_twice(engine):
    """The store itself refuses a second event of the same place."""
    run = engine.start(doubles, 1)
    drive(engine, run.id)
    with engine.store.read() as tx:
        first = dict(tx.execute(sa.select(events).where(events.c.run_id == run.id).limit(1)).mappings().one())

    with pytest.raises(sa.exc.IntegrityError), engine.store.begin() as tx:
        tx.execute(sa.insert(events), first | {"op_id": "another"})
