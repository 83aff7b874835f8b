"""Published values on every database: from workflows and steps, read and waited for from outside."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, more_engines, settle

from durable import (
    Durable,
    Run,
    RunNotFound,
    SerializationError,
    Value,
    ValueNotPublished,
    continue_as_new,
    create_hook,
    current,
    events,
    get_run,
    get_step_metadata,
    publish,
    resume_hook,
    step,
    step_session,
    workflow,
)
from durable.attempts.outcome import give_up
from durable.cipher import aes_gcm
from durable.recovery.prune import prune
from durable.store import claimed_attempts
from durable.store.schema import events as logged
from durable.store.schema import values
from durable.turns.drive import drive

pytestmark = all_databases()


@dataclass
class Progress:
    done: int
    total: int


progress = Value("progress", Progress)

#: What steps do between two values, by the number that they are called with.
acts: dict[int, Any] = {}


@pytest.fixture(autouse=True)
def _acts_of_the_test() -> Iterator[None]:
    yield
    acts.clear()


@step(name="publishing.counts", retry_backoff=0)
def counts(number: int) -> int:
    publish(progress, Progress(number, 10))
    acts.get(number, lambda: None)()
    publish(progress, Progress(number + 1, 10))
    return number


@workflow(name="publishing.flow")
async def flow(*numbers: int) -> int:
    publish("url", "https://example.com/1")
    total = 0
    for number in numbers:
        total += await counts(number)
    publish("url", "https://example.com/2")
    return total


def published(run: Run[Any]) -> list[str]:
    """The names of the values in the run's log, in its order."""
    return [each.name for each in run.events() if isinstance(each, events.ValuePublished)]


def test_the_latest_value_of_each_name_counts_and_the_log_has_all(engine):
    run = engine.start(flow, 1, 2)
    assert run.values() == {}
    settle(engine, run)

    assert run.result(timeout=0) == 3
    assert run.values() == {"progress": Progress(3, 10), "url": "https://example.com/2"}
    assert run.value(progress) == Progress(3, 10)
    assert run.value("url") == "https://example.com/2"
    assert published(run) == ["url", *["progress"] * 4, "url"]


def test_what_a_step_publishes_is_seen_while_it_runs(engine):
    """Before any turn has taken it in, and in the order of the calls."""
    seen: list[Any] = []

    def look() -> None:
        run = get_run(get_step_metadata().run_id)
        seen.append((run.value(progress, timeout=0), run.value("url", timeout=0)))
        publish("url", "from the step")
        seen.append(run.values())

    acts[5] = look
    settle(engine, engine.start(flow, 5))
    first = (Progress(5, 10), "https://example.com/1")
    assert seen == [first, {"progress": Progress(5, 10), "url": "from the step"}]


def test_a_value_stays_when_its_attempt_fails(engine):
    def fail_once() -> None:
        if get_step_metadata().attempt == 1:
            raise OSError("once")

    acts[4] = fail_once
    run = engine.start(flow, 4)
    settle(engine, run)
    assert published(run) == ["url", *["progress"] * 3, "url"]
    assert run.value(progress) == Progress(5, 10)


def test_an_attempt_that_was_given_up_publishes_nothing(engine):
    """As its result is not recorded, neither is what it publishes then."""

    def lose_once() -> None:
        metadata, mine = get_step_metadata(), current.current_engine()
        if metadata.attempt == 1:
            with mine.store.read() as tx:
                give_up(mine, claimed_attempts.find(tx, metadata.run_id, metadata.step_id))
            publish("late", True)

    acts[6] = lose_once
    run = engine.start(flow, 6)
    settle(engine, run)
    assert run.result(timeout=0) == 6
    assert "late" not in run.values()
    assert published(run) == ["url", *["progress"] * 3, "url"]


@step(name="publishing.books", semantics="transactional", retry_backoff=0)
def books() -> None:
    step_session().execute(sa.select(sa.literal(1)))
    publish("booked", get_step_metadata().attempt)
    if get_step_metadata().attempt == 1:
        raise OSError("rolled back")


@workflow(name="publishing.transactional")
async def transactional_flow() -> None:
    await books()


def test_a_transactional_step_publishes_with_its_result(engine):
    """What an attempt that is rolled back has published is gone."""
    run = engine.start(transactional_flow)
    settle(engine, run)
    assert run.value("booked") == 2
    assert published(run) == ["booked"]


def test_what_is_published_last_of_all_is_there(engine):
    """In the turn that ends the run."""
    run = engine.start(flow)
    settle(engine, run)
    assert kinds(run) == ["run_created", "run_started", "value_published", "value_published", "run_completed"]
    assert run.value("url") == "https://example.com/2"


@workflow(name="publishing.ends_first")
async def ends_first() -> str:
    await asyncio.wait([asyncio.ensure_future(counts(3))], timeout=0)
    return "ended"


def test_a_step_that_goes_on_after_the_end_of_its_run_publishes_nothing(engine):
    """Not for a moment: a reader who was told that there will be no value was told the truth."""
    seen: list[Any] = []
    acts[3] = lambda: seen.append(get_run(get_step_metadata().run_id).values())
    run = engine.start(ends_first)
    drive(engine, run.id)
    assert run.status == "completed"
    settle(engine, run)
    assert "step_completed" in kinds(run)
    assert (seen, run.values(), published(run)) == ([{}], {}, [])


# Waiting


@workflow(name="publishing.waits")
async def waits(token: str) -> str:
    publish("url", f"https://example.com/{await create_hook(token=token)}")
    return "done"


def test_a_reader_waits_until_the_value_is_there(engine):
    """It is woken by the turn that publishes it."""
    run = engine.start(waits, "publishing-waits")
    settle(engine, run)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(run.value, "url", "20s")
        waiting_for(engine, run)
        assert not read.done()
        resume_hook("publishing-waits", "now")
        settle(engine, run)
        assert read.result(20) == "https://example.com/now"


def waiting_for(engine: Durable, run: Run[Any]) -> None:
    """Wait until a thread waits for news of this run."""
    pause = threading.Event()
    for _ in range(2_000):
        if run.id in engine.completions._waiters:
            return
        pause.wait(0.005)
    raise AssertionError("nobody waits for the run")


def test_a_reader_is_told_when_there_will_be_none(engine):
    """At once when the run has ended, with its status; and when its own time is over."""
    run = engine.start(waits, "publishing-none")
    settle(engine, run)
    with pytest.raises(TimeoutError, match="is running and has not published 'url' after 0"):
        run.value("url", timeout=0)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(run.value, "url")
        waiting_for(engine, run)
        run.cancel()
        settle(engine, run)
        with pytest.raises(ValueNotPublished, match="is cancelled and has not published 'url'") as told:
            read.result(20)
    assert (told.value.run_id, told.value.name, told.value.status) == (run.id, "url", "cancelled")
    with pytest.raises(RunNotFound):
        get_run("no such run").value("url")


def test_a_name_that_cannot_be_published_is_refused_for_reading_too(engine):
    run = engine.start(flow)
    with pytest.raises(ValueError, match="1 to 255"):
        run.value("")


def test_a_value_that_does_not_have_the_type_any_more_is_told(engine):
    run = engine.start(flow)
    settle(engine, run)
    with pytest.raises(SerializationError, match="url"):
        run.value(Value("url", int))


# Generations, encryption, large values, retention


@workflow(name="publishing.endless")
async def endless(generation: int) -> None:
    publish("generation", generation)
    if generation == 1:
        publish("first", "of the first")
        continue_as_new(2)
    await create_hook(token="publishing-endless")


def test_a_run_that_continues_as_new_keeps_its_values(engine):
    """What the next generation publishes again replaces them."""
    run = engine.start(endless, 1)
    settle(engine, run)
    settle(engine, run.generations()[-1])
    assert run.values() == {"first": "of the first", "generation": 2}
    assert run.generations()[-1].value("first") == "of the first"
    run.cancel()
    settle(engine, *run.generations())


def test_a_large_value_goes_to_the_payloads_and_along(engine):
    """Also to the next generation, whose values have to outlive those of the first."""
    big = "x" * 300_000

    acts[7] = lambda: publish("big", big)
    run = engine.start(flow, 7)
    settle(engine, run)
    assert run.value("big") == big
    with engine.store.read() as tx:
        (stored,) = tx.execute(sa.select(values.c.value).where(values.c.run_id == run.id, values.c.name == "big"))
    assert len(stored.value) < 1_000


def test_values_are_encrypted_as_results_are(database):
    """In the log, in the inbox and in their own row."""
    seen: list[Any] = []
    acts[8] = lambda: seen.append(get_run(get_step_metadata().run_id).values())
    with more_engines(database) as make:
        engine = make(cipher=aes_gcm({"k1": secrets.token_bytes(32)}))
        run = engine.start(flow, 8)
        settle(engine, run)
        assert seen == [{"progress": Progress(8, 10), "url": "https://example.com/1"}]
        assert run.value("url") == "https://example.com/2"
        with engine.store.read() as tx:
            stored = [
                row.value
                for table in (values, logged)
                for row in tx.execute(sa.select(table.c.value).where(table.c.run_id == run.id))
            ]
    sealed = [each for each in stored if each is not None]
    assert len(sealed) == 2 + 8
    assert not any(word in each for each in sealed for word in ("example", "Progress"))


def test_values_are_deleted_with_their_run(engine):
    run = engine.start(flow)
    settle(engine, run)
    prune(engine, "0s")
    assert not run.exists
    with engine.store.read() as tx:
        assert tx.execute(sa.select(values).where(values.c.run_id == run.id)).all() == []
