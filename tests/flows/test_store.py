"""What the store promises on every database: one dense log, one owner, one writer, and nothing after the end."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, kinds, settle, work

from durable import (
    Durable,
    HookNotFound,
    LogTooLong,
    RunConflict,
    RunFailed,
    RunNotFound,
    create_hook,
    events,
    get_step_metadata,
    sleep,
    step,
    workflow,
)
from durable.client import describe
from durable.registry import workflows
from durable.replay.commands import CreateHook
from durable.store import claims, hooks, run_log, runs
from durable.store.outbox import SendTimes
from durable.store.schema import events as event_rows
from durable.store.schema import hooks as hook_rows
from durable.store.schema import runs as run_rows
from durable.store.schema import steps as step_rows
from durable.turns.commit import commit
from durable.turns.decide import decide
from durable.turns.decision import Overtaken
from durable.turns.drive import drive
from durable.turns.view import read

pytestmark = all_databases()


@step(max_retries=1, retry_backoff=0)
def flaky(number: int) -> int:
    if get_step_metadata().attempt == 1:
        raise ConnectionError("at first")
    return number


@step
def plain(number: int) -> int:
    return number


@workflow
async def fans_out(*numbers: int) -> list[int]:
    return list(await asyncio.gather(*map(plain, numbers)))


@workflow
async def retries() -> int:
    return await flaky(7)


@workflow
async def listens(token: str) -> Any:
    return await create_hook(token=token)


# The log


def test_c84_the_log_is_read_in_pages_both_ways(engine):
    """Dense from 1, ascending by default; pages by the last seq seen neither overlap nor leave anything out."""
    run = engine.start(fans_out, *range(5))
    settle(engine, run)
    whole = run.events()
    assert [event.seq for event in whole] == list(range(1, len(whole) + 1))

    forward: list[events.Event] = []
    while page := run.events(after=forward[-1].seq if forward else 0, limit=3):
        assert len(page) <= 3
        forward += page
    backward: list[events.Event] = []
    while page := run.events(before=backward[-1].seq if backward else 2**62, limit=3, newest_first=True):
        backward += page

    assert forward == whole
    assert backward == whole[::-1]
    assert run.events(after=2, before=5) == whole[2:4]
    assert run.events(after=len(whole)) == []


def test_c90_a_log_without_payloads_is_the_same_log(engine):
    """Every event in its place, with its kind, time and operation; values are empty text."""
    run = engine.start(fans_out, 1, 2)
    settle(engine, run)
    bare = run.events(payloads=False)

    def without(event: events.Event) -> events.Event:
        field = event.value_field
        return replace(event, **{field: ""}) if field and getattr(event, field) is not None else event

    assert bare == [without(event) for event in run.events()]
    assert {event.result for event in bare if isinstance(event, events.StepCompleted)} == {""}


def test_c90_runs_are_listed_by_name_and_status(engine, token):
    """Newest first, as many as are wanted; a name or a status that nothing has lists nothing."""
    done = [engine.start(fans_out, number) for number in range(3)]
    waits = engine.start(listens, token)
    settle(engine, *done, waits)

    def ids(limit: int = 50, **wanted: str) -> list[str]:
        return [each["id"] for each in describe.list_runs(engine, limit=limit, **wanted)]

    newest = [run.id for run in reversed(done)]
    assert ids(name=fans_out.name)[:3] == newest
    assert ids(name=fans_out.name, limit=2) == newest[:2]
    assert ids(name=listens.name, status="running")[0] == waits.id
    assert waits.id not in ids(status="completed")
    assert set(newest) <= set(ids(status="completed", name=fans_out.name))
    assert ids(name="no.such.workflow") == ids(status="blocked", name=listens.name) == []


# One of each


def test_c85_what_is_unknown_is_an_error(engine, token):
    """A run by its id, a hook by its token: asked for its state, not when it is named."""
    run = engine.get_run(f"unknown-{token}")

    assert run.exists is False
    for look in (lambda: run.status, run.events, run.result):
        with pytest.raises(RunNotFound, match=token):
            look()
    with pytest.raises(HookNotFound, match=token):
        engine.get_hook(token)


def test_c85_a_token_taken_behind_a_turns_back_is_a_conflict(engine, token):
    """The token was free when the turn thought, and taken when it wrote: it thinks again, and knows the owner."""
    owner, late = engine.start(listens, token), engine.start(listens, token)
    overtaken: list[str] = []

    def overtake(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE durable_runs") and not overtaken:
            overtaken.append(statement)
            if engine.store.dialect != "sqlite":  # which has one writer at a time
                drive(engine, owner.id)

    if engine.store.dialect == "sqlite":
        drive(engine, owner.id)
    sa.event.listen(engine.store.engine, "before_cursor_execute", overtake)
    drive(engine, late.id)
    sa.event.remove(engine.store.engine, "before_cursor_execute", overtake)

    assert overtaken
    assert engine.get_hook(token).run_id == owner.id
    assert "hook_conflicted" in kinds(late)
    assert "hook_conflicted" not in kinds(owner)


@workflow
async def asks_for_one_of_each(token: str) -> None:
    calls = [plain(1), sleep("1h"), create_hook(token=token)]
    await asyncio.gather(*calls)


def test_c86_what_a_run_asks_for_is_created_once(engine, token):
    """Six turns in the same moment: one step, one wait, one hook, and no error for those that came second."""
    run = engine.start(asks_for_one_of_each, token)
    together = threading.Barrier(6)

    def turn() -> None:
        together.wait()
        drive(engine, run.id)

    with ThreadPoolExecutor(6) as threads:
        for future in [threads.submit(turn) for _ in range(6)]:
            future.result()

    assert sorted(kinds(run)[2:]) == ["hook_created", "step_created", "wait_created"]
    drive(engine, run.id)
    assert len(kinds(run)) == 5


def test_c86_a_run_is_created_once(engine, token):
    """The same id again gives the run that is there; with other arguments it is refused."""
    first = fans_out.with_options(run_id=token).start(1)

    assert fans_out.with_options(run_id=token).start(1) == first
    with pytest.raises(RunConflict):
        fans_out.with_options(run_id=token).start(2)
    settle(engine, first)
    assert first.result(timeout=1) == [1]


# Order


@pytest.mark.parametrize("phase", ["created", "ended"])
def test_c87_an_operation_is_created_and_ended_once(engine, phase):
    """The tables themselves refuse a second step_created, and a second outcome after step_completed."""
    run = engine.start(fans_out, 1)
    settle(engine, run)
    again: events.Event = {
        "created": events.StepCreated(at=1, seq=100, op_id="r#1", name="x", digest="x", args="{}"),
        "ended": events.StepFailedEvent(at=1, seq=100, op_id="r#1", attempt=1, error="null"),
    }[phase]

    with pytest.raises(sa.exc.IntegrityError), engine.store.begin() as tx:
        run_log.append(tx, run.id, [again])

    assert 100 not in [event.seq for event in run.events()]


@pytest.mark.parametrize(
    "late",
    [
        events.StepCompleted(at=1, op_id="r#1", attempt=1, result="99"),
        events.StepFailedEvent(at=1, op_id="r#1", attempt=2, error="null"),
    ],
    ids=lambda event: event.kind,
)
def test_c87_a_finished_step_keeps_its_outcome(engine, late):
    """A second result or failure, however it got into the inbox, is dropped; the step cannot be claimed again."""
    run = engine.start(waits_after)
    settle(engine, run)
    before = kinds(run)
    with engine.store.begin() as tx:
        run_log.post(tx, run.id, late, SendTimes(0, None))
        now = engine.store.now()
        assert claims.claim(tx, run.id, "r#1", 1, by="late", worker_id="w", message_id=None, now=now) is None
    settle(engine, run)
    assert kinds(run) == before

    run.wake_up()
    settle(engine, run)
    assert run.result(timeout=1) == 1


@workflow
async def waits_after() -> int:
    number = await plain(1)
    await sleep("1h")
    return number


def test_c87_a_retried_step_is_pending_and_its_next_start_counts_one_more(engine):
    """The attempt that failed cannot be started again; the next one can, once."""
    run = engine.start(retries)
    drive(engine, run.id)
    work(engine, run)

    with engine.store.read() as tx:
        row = tx.execute(sa.select(step_rows).where(step_rows.c.run_id == run.id)).one()
    assert (row.status, row.attempt) == ("pending", 2)
    with engine.store.begin() as tx:
        now = engine.store.now()
        assert claims.claim(tx, run.id, "r#1", 1, by="a", worker_id="w", message_id=None, now=now) is None
        taken = claims.claim(tx, run.id, "r#1", 2, by="b", worker_id="w", message_id=None, now=now)
        assert taken is not None
        assert taken.attempt == 2
        assert claims.claim(tx, run.id, "r#1", 2, by="c", worker_id="w", message_id=None, now=now) is None
        tx.rollback()
    settle(engine, run)
    assert run.result(timeout=1) == 7


def test_c87_an_outcome_before_its_step_blocks_the_run(engine, token):
    """News of what the workflow never asked for is written into no log."""
    run = engine.start(listens, token)
    settle(engine, run)
    before = kinds(run)
    with engine.store.begin() as tx:
        run_log.post(tx, run.id, events.HookReceived(at=1, op_id="r#9", payload="1"), SendTimes(0, None))
    drive(engine, run.id)

    assert run.status == "blocked"
    assert kinds(run) == before


# The end


@workflow
async def leaves_work(token: str) -> int:
    """Ends while a step runs, a sleep is pending and a hook is open."""
    plain(1)
    sleep("1h")
    create_hook(token=token)
    return 3


def test_c88_a_finished_run_takes_nothing_but_the_result_of_a_step_that_ran(engine, token):
    """No start, no end, no cancel, no payload, no wake-up; the step that was called may still record its result."""
    run = engine.start(leaves_work, token)
    drive(engine, run.id)
    assert run.status == "completed"
    before = kinds(run)

    assert run.cancel() is False
    assert run.wake_up() == 0
    with pytest.raises(HookNotFound):
        engine.resume_hook(token, 1)
    with engine.store.begin() as tx:
        for news in (
            events.RunCreated(at=1, name="again", args="{}"),
            events.RunCancelRequested(at=1),
            events.HookReceived(at=1, op_id="r#3", payload="1"),
            events.WaitCompleted(at=1, op_id="r#2"),
            events.ChildCompleted(at=1, op_id="r#9", result="1"),
        ):
            run_log.post(tx, run.id, news, SendTimes(0, None))
    drive(engine, run.id)
    assert kinds(run) == before
    assert run.result(timeout=1) == 3

    work(engine, run)
    drive(engine, run.id)
    assert kinds(run) == [*before, "step_completed"]
    assert run.status == "completed"
    with engine.store.read() as tx:
        open_hooks = sa.select(hook_rows).where(hook_rows.c.run_id == run.id, hook_rows.c.closed_at.is_(None))
        assert tx.execute(open_hooks).all() == []


@workflow
async def sleeps_with_a_step(token: str) -> None:
    await asyncio.gather(plain(1), create_hook(token=token), sleep("1h"))


def test_c88_a_cancelled_run_drops_what_has_not_begun(engine, token):
    """Its pending step is not started, its hook is closed; a second cancel changes nothing."""
    run = engine.start(sleeps_with_a_step, token)
    drive(engine, run.id)
    run.cancel()
    drive(engine, run.id)

    assert run.status == "cancelled"
    assert not work(engine, run)
    assert run.cancel() is False
    with pytest.raises(HookNotFound):
        engine.resume_hook(token, 1)
    assert "step_completed" not in kinds(run)


# The fence


def tables(engine: Durable, run_id: str) -> list[Any]:
    """Every row that concerns the run."""
    with engine.store.read() as tx:
        found = [tx.execute(sa.select(run_rows).where(run_rows.c.id == run_id)).all()]
        for table in (event_rows, step_rows, hook_rows):
            found.append(tx.execute(sa.select(table).where(table.c.run_id == run_id).order_by(table.c.op_id)).all())
    return found


def test_c89_a_writer_with_a_stale_view_writes_nothing(engine, token):
    """Of two turns that thought the same, the second is refused before anything is written; seq has no gap."""
    run = engine.start(asks_for_one_of_each, token)
    with engine.store.read() as tx:
        view = read(tx, run.id, engine.now())
    assert view is not None
    stale = decide(engine, view, workflows[run.name])
    assert stale is not None
    drive(engine, run.id)
    before = tables(engine, run.id)

    with pytest.raises(Overtaken):
        commit(engine, stale)

    assert tables(engine, run.id) == before
    engine.resume_hook(token, 1)
    settle(engine, run)
    run.wake_up()
    settle(engine, run)
    assert run.status == "completed"
    kinds(run)  # dense


def test_c89_the_fence_moves_with_each_turn(engine, token):
    """A row that was read before another turn wrote cannot be moved on."""
    run = engine.start(listens, token)
    with engine.store.read() as tx:
        stale = runs.find(tx, run.id)
    assert stale is not None
    drive(engine, run.id)

    with engine.store.begin() as tx:
        assert runs.advance(tx, stale, status="completed") is False

    assert run.status == "running"


def test_a_hook_created_twice_is_refused_by_the_tables(engine, token):
    """Whatever a turn believes, a token has one open row."""
    run = engine.start(listens, token)
    drive(engine, run.id)
    second = CreateHook(op_id="r#2", name="hook", digest="d", token=token, drawn=False, config=None, metadata=None)

    with pytest.raises(sa.exc.IntegrityError), engine.store.begin() as tx:
        hooks.create(tx, run.id, second, engine.store.now(), closed=False)

    assert len(run.hooks()) == 1


# Limits


@workflow
async def goes_round(token: str) -> None:
    async for _ in create_hook(token=token):
        await plain(1)


@workflow
async def wide(width: int) -> int:
    return len(await asyncio.gather(*map(plain, range(width))))


@pytest.fixture
def limited(database: str, engine: Durable) -> Any:
    """An engine on the same database, where a log may have ten events."""
    made = Durable(Celery("limited", broker="memory://"), database_url=database, max_events=10)
    yield made
    made.close()


def test_c91_a_log_that_grows_too_long_fails_its_run(limited, token):
    """With the reason and the numbers; what came in is in the log, and the hook is closed."""
    run = limited.start(goes_round, token)
    settle(limited, run)
    sent = 0
    while run.status == "running":
        limited.resume_hook(token, sent)
        sent += 1
        settle(limited, run)

    with pytest.raises(RunFailed, match="max_events allows 10") as failed:
        run.result(timeout=1)
    assert isinstance(failed.value.__cause__, LogTooLong)
    assert failed.value.error_type == "LogTooLong"
    assert kinds(run).count("hook_received") == sent
    assert len(kinds(run)) <= 12
    with pytest.raises(HookNotFound):
        limited.resume_hook(token, "late")


def test_c91_a_run_that_asks_for_too_much_at_once_starts_none_of_it(limited):
    """A fan-out beyond the limit is not written at all; one that ends within it is well."""
    too_wide, narrow = limited.start(wide, 500), limited.start(wide, 2)
    settle(limited, too_wide, narrow)

    assert narrow.result(timeout=1) == 2
    with pytest.raises(RunFailed, match="LogTooLong"):
        too_wide.result(timeout=1)
    assert kinds(too_wide) == ["run_created", "run_failed"]
