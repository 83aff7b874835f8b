"""Streams on every database: items of workflows and steps, in order and once, and readers that do not hang."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, more_engines, settle
from eventually import eventually

from durable import (
    Durable,
    Run,
    RunNotFound,
    SerializationError,
    Stream,
    close_stream,
    continue_as_new,
    create_hook,
    current,
    emit,
    get_run,
    get_step_metadata,
    resume_hook,
    step,
    step_session,
    workflow,
)
from durable.attempts.outcome import give_up
from durable.cipher import aes_gcm
from durable.recovery.prune import prune
from durable.registry import StreamOptions
from durable.store import NewItem, StreamEmitter, claimed_attempts, emit_items, streams
from durable.store.schema import stream_items
from durable.store.schema import streams as stream_rows
from durable.turns.drive import drive

pytestmark = all_databases()

tokens = Stream("tokens", str, on_retry="discard", until="step")

#: What steps do in their middle, by the number that they are called with.
acts: dict[int, Any] = {}


@pytest.fixture(autouse=True)
def _acts_of_the_test() -> Iterator[None]:
    yield
    acts.clear()


@step(name="streaming.counts", retry_backoff=0)
def counts(number: int) -> int:
    emit("progress", number)
    acts.get(number, lambda: None)()
    emit("progress", number + 1)
    return number


@workflow(name="streaming.flow")
async def flow(*numbers: int) -> int:
    emit("phase", "begun")
    total = 0
    for number in numbers:
        total += await counts(number)
    emit("phase", "done")
    return total


def test_c76_the_items_of_steps_and_workflows_come_in_order_each_once(engine):
    """A reader gets them from any number on; each tells its step and attempt, and the run's streams are over."""
    run = engine.start(flow, 10, 20)
    settle(engine, run)

    assert run.result(timeout=0) == 30
    assert list(run.stream("progress")) == [10, 11, 20, 21]
    assert list(run.stream("progress", start=2)) == [20, 21]
    assert list(run.stream("progress", start=4)) == []
    assert list(run.stream("phase")) == ["begun", "done"]
    marks = [(each.number, each.step_id, each.attempt) for each in run.stream("progress").items()]
    assert marks == [(0, "r#1", 1), (1, "r#1", 1), (2, "r#2", 1), (3, "r#2", 1)]
    assert [(each.number, each.step_id) for each in run.stream("phase").items()] == [(0, None), (1, None)]
    assert [(each["name"], each["items"], each["is_over"]) for each in run.streams()] == [
        ("phase", 2, True),
        ("progress", 4, True),
    ]


def test_what_a_step_emits_is_seen_while_it_runs(engine):
    """The thread writes it: the step itself does nothing for it."""
    seen: list[Any] = []
    acts[5] = lambda: seen.extend(_first(get_run(get_step_metadata().run_id), "progress", 1))
    settle(engine, engine.start(flow, 5))
    assert seen == [5]


def _first(run: Run[Any], name: str, count: int) -> list[Any]:
    """The first items of a stream, which may come while we wait."""
    found = run.stream(name, timeout="20s")
    return [item for _, item in zip(range(count), found, strict=False)]


def test_a_retry_marks_its_items_and_the_old_ones_stay(engine):
    def fail_once() -> None:
        if get_step_metadata().attempt == 1:
            raise OSError("once")

    acts[4] = fail_once
    run = engine.start(flow, 4)
    settle(engine, run)
    assert [(each.value, each.attempt, each.discards) for each in run.stream("progress").items()] == [
        (4, 1, False),
        (4, 2, False),
        (5, 2, False),
    ]


@step(name="streaming.answers", retry_backoff=0, max_retries=2)
def answers(fail: int) -> str:
    attempt = get_step_metadata().attempt
    emit(tokens, f"a{attempt}")
    emit(tokens, f"b{attempt}")
    if attempt <= fail:
        raise OSError("again")
    emit(tokens, f"c{attempt}")
    return "answered"


@workflow(name="streaming.asks")
async def asks(fail: int) -> None:
    try:
        await answers(fail)
    except Exception:
        emit("failures", "one")
    await create_hook(token=f"streaming-asks-{fail}")


@pytest.mark.parametrize("fail", [0, 1, 3])
def test_a_retry_discards_what_it_makes_void_and_the_end_of_the_step_ends_the_stream(engine, fail):
    """A reader ends with the step, though the run goes on; also when the step has failed for good."""
    run = engine.start(asks, fail)
    settle(engine, run)
    assert run.status == "running"
    found = list(run.stream(tokens, timeout="1ms").items())
    last = min(fail + 1, 3)
    wanted = [f"a{last}", f"b{last}", f"c{last}"][: 2 if fail == 3 else 3]
    assert [(each.value, each.attempt) for each in found] == [(each, last) for each in wanted]
    assert [each.discards for each in found] == [fail > 0] + [False] * (len(wanted) - 1)
    assert [each.number for each in found] == [2 * (last - 1) + place for place in range(len(wanted))]
    run.cancel()
    settle(engine, run)


def test_an_attempt_that_was_given_up_emits_nothing_more(engine):
    def lose_once() -> None:
        metadata, mine = get_step_metadata(), current.current_engine()
        if metadata.attempt == 1:
            with mine.store.read() as tx:
                give_up(mine, claimed_attempts.find(tx, metadata.run_id, metadata.step_id))
            emit("late", True)

    acts[6] = lose_once
    run = engine.start(flow, 6)
    settle(engine, run)
    assert run.result(timeout=0) == 6
    assert list(run.stream("late")) == []
    assert [each.attempt for each in run.stream("progress").items()][-2:] == [2, 2]


def test_a_step_that_is_given_up_for_good_ends_its_stream(engine):
    """Its process is gone, so another one closes the stream with the outcome."""

    def lose() -> None:
        metadata, mine = get_step_metadata(), current.current_engine()
        emit(tokens, "half")
        assert _first(get_run(metadata.run_id), "tokens", 1) == ["half"]
        with mine.store.read() as tx:
            give_up(mine, claimed_attempts.find(tx, metadata.run_id, metadata.step_id))

    acts[66] = lose
    run = engine.start(one_try, 66)
    settle(engine, run)
    assert run.status == "running"
    assert list(run.stream(tokens, timeout="1ms")) == ["half"]
    run.cancel()
    settle(engine, run)


@step(name="streaming.tries_once", max_retries=0)
def tries_once(number: int) -> None:
    acts[number]()


@workflow(name="streaming.one_try")
async def one_try(number: int) -> None:
    try:
        await tries_once(number)
    except Exception:
        await create_hook(token="streaming-one-try")


@step(name="streaming.books", semantics="transactional", retry_backoff=0)
def books(count: int, has_session: bool) -> None:
    if has_session:
        step_session().execute(sa.select(sa.literal(1)))
    for number in range(count):
        emit("booked", (get_step_metadata().attempt, number))
    if get_step_metadata().attempt == 1:
        raise OSError("rolled back")


@workflow(name="streaming.transactional")
async def transactional_flow(count: int, has_session: bool) -> None:
    await books(count, has_session)


@pytest.mark.parametrize("has_session", [True, False])
@pytest.mark.parametrize("count", [2, 1_200])
def test_a_transactional_step_emits_with_its_result(engine, count, has_session):
    """What an attempt that is rolled back has emitted is gone; also more than one statement takes."""
    run = engine.start(transactional_flow, count, has_session)
    settle(engine, run)
    assert [tuple(each) for each in run.stream("booked")] == [(2, number) for number in range(count)]


@workflow(name="streaming.closes")
async def closes(token: str) -> None:
    emit("a", 1)
    close_stream("a")
    close_stream("never")
    emit("a", 2)
    await create_hook(token=token)


def test_a_closed_stream_is_over_and_takes_nothing_more(engine, caplog):
    """Its readers end while the run goes on; what comes after is dropped, and the log says so."""
    run = engine.start(closes, "streaming-closes")
    with caplog.at_level(logging.WARNING, "durable.streams"):
        settle(engine, run)
    assert list(run.stream("a", timeout=0)) == [1]
    assert list(run.stream("never", timeout=0)) == []
    assert "has emitted to the stream 'a' after its end" in caplog.text
    assert [each["closed_at"] is not None for each in run.streams()] == [True, True]
    run.cancel()
    settle(engine, run)


@step(name="streaming.ends_it")
def ends_it() -> None:
    emit("mine", 1)
    close_stream("mine")
    emit("mine", 2)


@workflow(name="streaming.step_closes")
async def step_closes() -> None:
    await ends_it()
    emit("mine", 3)


def test_a_step_closes_a_stream(engine):
    run = engine.start(step_closes)
    settle(engine, run)
    assert list(run.stream("mine")) == [1]


# Bounds


@step(name="streaming.emits_many")
def emits_many(count: int, keep: int | None) -> None:
    for number in range(count):
        emit("many", number, keep=keep)


@workflow(name="streaming.many")
async def many(count: int, keep: int | None) -> None:
    await emits_many(count, keep)


@pytest.mark.parametrize(("count", "keep", "kept"), [(1_700, 300, 300), (700, 600, 600), (1_100, None, 1_100)])
def test_a_stream_keeps_the_last_items_under_their_numbers(engine, count, keep, kept):
    """Also when one transaction brings more than it keeps; a reader begins with the first that is left."""
    run = engine.start(many, count, keep)
    settle(engine, run)
    found = list(run.stream("many").items())
    assert [each.value for each in found] == list(range(count - kept, count))
    assert [each.number for each in found] == [each.value for each in found]
    with engine.store.read() as tx:
        left = tx.execute(
            sa.select(sa.func.count()).select_from(stream_items).where(stream_items.c.run_id == run.id)
        ).scalar()
    assert left == kept


# Readers


@workflow(name="streaming.waits")
async def waits(token: str) -> str:
    hook = create_hook(token=token)
    emit("heard", "listening")
    emit("heard", await hook)
    return "done"


def test_a_reader_waits_for_the_next_item_and_ends_with_the_run(engine):
    run = engine.start(waits, "streaming-waits")
    settle(engine, run)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(lambda: list(run.stream("heard", timeout="20s")))
        _waiting_for(engine, run)
        assert not read.done()
        resume_hook("streaming-waits", "now")
        settle(engine, run)
        assert read.result(20) == ["listening", "now"]


def _waiting_for(engine: Durable, run: Run[Any]) -> None:
    eventually(lambda: run.id in engine.completions._waiters, what="a call waits for the run")


def test_a_reader_is_not_kept_longer_than_it_wants(engine):
    run = engine.start(waits, "streaming-none")
    settle(engine, run)
    with pytest.raises(TimeoutError, match="has emitted no item 1 to the stream 'heard' after 0"):
        list(run.stream("heard", timeout=0))
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(lambda: list(run.stream("nothing")))
        _waiting_for(engine, run)
        run.cancel()
        settle(engine, run)
        assert read.result(20) == []
    with pytest.raises(RunNotFound):
        list(get_run("no such run").stream("heard"))
    with pytest.raises(ValueError, match="start=-1"):
        list(run.stream("heard", start=-1))
    with pytest.raises(ValueError, match="1 to 255"):
        run.stream("")


def test_an_item_that_does_not_have_the_type_any_more_is_refused(engine):
    run = engine.start(flow)
    settle(engine, run)
    with pytest.raises(SerializationError, match="phase"):
        list(run.stream(Stream("phase", int)))


@workflow(name="streaming.ends_first")
async def ends_first() -> str:
    import asyncio

    await asyncio.wait([asyncio.ensure_future(counts(3))], timeout=0)
    return "ended"


def test_a_step_that_goes_on_after_the_end_of_its_run_emits_nothing(engine):
    run = engine.start(ends_first)
    drive(engine, run.id)
    assert run.status == "completed"
    settle(engine, run)
    assert (list(run.stream("progress")), run.streams()) == ([], [])


# Writers


def test_items_whose_commit_was_not_acknowledged_are_written_once(engine):
    """The second try finds the first one's items."""
    items = [NewItem("s", str(number), 1_000 + number, StreamOptions()) for number in range(3)]
    emitter = StreamEmitter("run-once", "r#1", 1)
    key = f"once-{secrets.token_hex(8)}"
    with engine.store.begin() as tx:
        assert not emit_items.is_written(tx, key, items, emitter)
        assert emit_items.append(tx, key, items, emitter) == {}
        assert emit_items.is_written(tx, key, items, emitter)
        assert not emit_items.is_written(tx, key, items, StreamEmitter("run-once", "r#1", 2))
    with engine.store.begin() as tx:
        for table in (stream_items, stream_rows):
            tx.execute(sa.delete(table).where(table.c.run_id == key))


def test_two_processes_that_emit_to_one_stream_lose_nothing(engine, database):
    """Each number is given once, and none is left out."""
    key = f"both-{secrets.token_hex(8)}"

    def write(mine: Durable, who: int) -> None:
        for number in range(30):
            item = NewItem("s", str(who * 100 + number), number, StreamOptions())
            emitter = StreamEmitter("run-both", f"r#{who}", 1)
            mine.store.write(lambda tx, item=item, emitter=emitter: emit_items.append(tx, key, [item], emitter))

    with more_engines(database) as make, ThreadPoolExecutor(2) as threads:
        for each in [threads.submit(write, make(), who) for who in (1, 2)]:
            each.result(60)
    with engine.store.begin() as tx:
        found = streams.page(tx, streams.StreamPlace(key, "s", 0))
        for table in (stream_items, stream_rows):
            tx.execute(sa.delete(table).where(table.c.run_id == key))
    assert [each.number for each in found] == list(range(60))
    for who in (1, 2):
        assert [int(each.stored) for each in found if each.step_id == f"r#{who}"] == [who * 100 + n for n in range(30)]


def test_an_item_that_the_database_refuses_fails_its_step(engine, monkeypatch):
    """And the items of other steps are written all the same."""
    append = emit_items.append

    def refuse(tx: Any, key: str, emitted: Any, emitter: Any = None) -> set[str]:
        if any(each.item == '"bad"' for each in emitted):
            raise ValueError("refused by the database")
        return append(tx, key, emitted, emitter)

    monkeypatch.setattr(emit_items, "append", refuse)
    acts[9] = lambda: emit("other", "bad")
    run = engine.start(flow, 9)
    settle(engine, run)
    assert run.status == "failed"
    assert "refused by the database" in str(run.events()[-1])


def test_a_run_without_streams_asks_for_none(engine):
    """Neither its turns nor its attempts nor its end look at the tables of streams."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    run = engine.start(without_streams)
    settle(engine, run)
    sa.event.remove(engine.store.engine, "before_cursor_execute", note)
    assert run.status == "completed"
    assert asked
    assert [each for each in asked if "durable_stream" in each] == []


@step(name="streaming.nothing", retry_backoff=0)
def nothing() -> None:
    if get_step_metadata().attempt == 1:
        raise OSError("once")


@workflow(name="streaming.without")
async def without_streams() -> None:
    await nothing()


# Generations, encryption, retention


@workflow(name="streaming.endless")
async def endless(generation: int) -> None:
    emit("generations", generation)
    await counts(generation)
    if generation < 3:
        continue_as_new(generation + 1)
    await create_hook(token="streaming-endless")


def test_a_run_that_continues_as_new_goes_on_with_its_streams(engine):
    run = engine.start(endless, 1)
    for _ in range(3):
        settle(engine, *run.generations())
    last = run.generations()[-1]
    assert _first(run, "generations", 3) == [1, 2, 3]
    assert _first(last, "progress", 6) == [1, 2, 2, 3, 3, 4]
    assert not run.streams()[0]["is_over"]
    run.cancel()
    settle(engine, *run.generations())
    assert list(run.stream("generations")) == [1, 2, 3]


def test_items_are_encrypted_as_results_are(database):
    with more_engines(database) as make:
        engine = make(cipher=aes_gcm({"k1": secrets.token_bytes(32)}))
        run = engine.start(flow, 8)
        settle(engine, run)
        assert list(run.stream("phase")) == ["begun", "done"]
        with engine.store.read() as tx:
            stored = tx.execute(sa.select(stream_items.c.item).where(stream_items.c.run_id == run.id)).scalars().all()
    assert len(stored) == 4
    assert not any("begun" in each or each in ("8", "9") for each in stored)


def test_items_are_deleted_with_their_run(engine):
    run = engine.start(flow, 1)
    settle(engine, run)
    prune(engine, "0s")
    assert not run.exists
    with engine.store.read() as tx:
        for table in (stream_items, stream_rows):
            assert tx.execute(sa.select(table).where(table.c.run_id == run.id)).all() == []
