"""A process that has the replay of a run which sleeps ends the sleep in the turn that follows, in one transaction."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, kinds, settle

from durable import create_hook, registry, resume_hook, sleep, step, workflow
from durable.attempts.attempt import StepBody, run_claimed
from durable.engine.known_waits import KnownWait
from durable.store import turns
from durable.store.runs import invalidate_turn
from durable.store.schema import inbox, steps, waits
from durable.turns import finish, wake
from durable.turns.conclude import conclude_wait
from durable.turns.continuation import Continuation
from durable.turns.drive import drive
from durable.turns.end_waits import conclude_waits

pytestmark = all_databases()

SECS = 0.05


@step(name="concluded_waits.adds")
def adds(n: int) -> int:
    return n + 1


@workflow(name="concluded_waits.naps")
async def naps() -> int:
    await sleep(SECS)
    return await adds(1)


@workflow(name="concluded_waits.naps_only")
async def naps_only() -> str:
    await sleep(SECS)
    return "awake"


@workflow(name="concluded_waits.spreads")
async def spreads() -> list[int]:
    """The turn after the sleep creates two steps and a hook, so its commit is not a plain one."""
    await sleep(SECS)
    create_hook(token="concluded_waits")
    return list(await asyncio.gather(adds(1), adds(2)))


@workflow(name="concluded_waits.works")
async def works() -> Any:
    """A step runs beside the sleep."""
    return list(await asyncio.gather(adds(1), sleep(SECS)))


@workflow(name="concluded_waits.listens")
async def listens() -> str:
    hook = create_hook(token="concluded_waits.hook")
    await sleep(SECS)
    return f"{await hook}"


@workflow(name="concluded_waits.in_time")
async def in_time() -> int:
    return await asyncio.wait_for(adds(1), 3600)


@pytest.fixture
def manner() -> dict[str, Any]:
    """In place on every database."""
    return {"continuation": "60s"}


def asleep(engine, run, op_id="r#1") -> KnownWait:
    """Take a run's first turn; return the wait that this process then knows, once it is due by the database's clock."""
    drive(engine, run.id, continuation=Continuation(engine, "celery"))
    known = engine.known_waits.take(run.id, op_id)
    assert engine.wait_if_near(known.due_at)
    with engine.store.read() as tx:
        while tx.execute(sa.select(engine.store.sql_now)).scalar_one() < known.due_at:
            engine.wait_if_near(known.due_at)
    return known


def executed(engine) -> list[str]:
    """The first words of the statements that the engine executes from now on, without BEGIN."""
    words: list[str] = []

    def note(_connection: object, _cursor: object, text: str, *_: object) -> None:
        if not text.startswith(("BEGIN", "PRAGMA")):
            words.append(text.split(maxsplit=1)[0])

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    return words


def rows(engine, table, run) -> int:
    with engine.store.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(table).where(table.c.run_id == run.id)).scalar_one()


def test_the_end_of_a_known_sleep_and_the_claim_of_the_next_step_are_one_transaction(engine):
    """Nothing is read, and nothing goes through the inbox."""
    run = naps.start()
    known = asleep(engine, run)
    continuation = Continuation(engine, "celery")
    written = executed(engine)

    assert conclude_wait(engine, continuation, known)

    expected = ["WITH"] if engine.store.dialect == "postgresql" else ["UPDATE", "DELETE", "INSERT", "INSERT"]
    assert written == expected
    assert (continuation.has_turned, continuation.begin().op_id) == (True, "r#2")
    assert rows(engine, waits, run) == 0


def test_a_turn_that_asks_for_a_sleep_or_ends_with_one_is_one_statement_on_postgresql(engine):
    """Of a timeout that is given up as well: the workflow returns before it is due."""
    if engine.store.dialect != "postgresql":
        pytest.skip("elsewhere a turn is several statements in one transaction")
    run, settled = naps_only.start(), in_time.start()
    settle(engine, settled)  # the share of messages that may wait in a worker is counted from time to time
    written = executed(engine)

    known = asleep(engine, run)
    assert [each for each in written if each != "SELECT"] == ["WITH"]
    assert conclude_wait(engine, Continuation(engine, "celery"), known)
    assert [each for each in written if each != "SELECT"] == ["WITH", "WITH"]

    other = in_time.start()
    del written[:]
    settle(engine, other)
    assert [each for each in written if each != "SELECT"] == ["WITH", "WITH"]
    assert rows(engine, waits, other) == 0


def test_a_message_of_a_wait_that_this_process_has_ended_costs_no_statement(engine):
    """Only the first one: a database that has lost the end in a failover has the wait again."""
    run = naps_only.start()
    known = asleep(engine, run)
    assert conclude_wait(engine, Continuation(engine, "celery"), known)
    written = executed(engine)

    assert not wake.fire(engine, run.id, "r#1", Continuation(engine, "celery"))
    assert written == []
    assert not wake.fire(engine, run.id, "r#1", Continuation(engine, "celery"))
    assert written


def test_a_run_that_ends_with_its_sleep_is_completed(engine):
    """Its message, which comes later, changes nothing."""
    run = naps_only.start()
    known = asleep(engine, run)

    assert conclude_wait(engine, Continuation(engine, "celery"), known)

    assert run.result(timeout=0) == "awake"
    assert not wake.fire(engine, run.id, "r#1", Continuation(engine, "celery"))
    assert kinds(run) == ["run_created", "run_started", "wait_created", "wait_completed", "run_completed"]


def test_a_turn_that_creates_more_than_one_step_is_taken_as_well(engine):
    """The run's log is that of a sleep which its message has ended."""
    run = spreads.start()
    known = asleep(engine, run)
    continuation = Continuation(engine, "celery")

    assert conclude_wait(engine, continuation, known)
    continuation.begin()

    assert kinds(run)[2:] == ["wait_created", "wait_completed", "hook_created", "step_created", "step_created"]
    assert (rows(engine, steps, run), rows(engine, waits, run)) == (2, 0)


def test_a_wait_that_its_message_has_ended_is_not_ended_twice(engine):
    """Neither by a plain turn nor by another one."""
    for started in (naps.start(), spreads.start()):
        known = asleep(engine, started)
        assert wake.fire(engine, started.id, "r#1")

        assert not conclude_wait(engine, Continuation(engine, "celery"), known)

        assert rows(engine, inbox, started) == 1
        settle(engine, started)
        assert kinds(started).count("wait_completed") == 1


def test_the_clock_of_the_database_decides_whether_a_wait_is_over(engine):
    """A process whose clock is ahead writes nothing, and the sleep goes on to its end."""
    run = naps.start()
    drive(engine, run.id)
    known = engine.known_waits.take(run.id, "r#1")
    with engine.store.begin() as tx:
        tx.execute(sa.update(waits).where(waits.c.run_id == run.id).values(due_at=known.due_at + 60_000_000))
    assert engine.wait_if_near(known.due_at)

    assert not conclude_wait(engine, Continuation(engine, "celery"), known)

    assert (rows(engine, waits, run), rows(engine, inbox, run)) == (1, 0)
    assert kinds(run) == ["run_created", "run_started", "wait_created"]


def test_a_run_with_news_of_its_own_is_left_to_the_message(engine):
    """A payload came in meanwhile: a turn that has not read it writes nothing."""
    run = listens.start()
    known = asleep(engine, run, "r#2")
    resume_hook("concluded_waits.hook", "news")

    assert not conclude_wait(engine, Continuation(engine, "celery"), known)

    settle(engine, run)
    assert run.result(timeout=0) == "news"


def test_a_sleep_beside_a_step_is_left_to_the_message(engine):
    """The turns of two outcomes would overtake each other; the replay stays as it is."""
    run = works.start()
    drive(engine, run.id)
    known = engine.known_waits.take(run.id, "r#2")
    assert engine.wait_if_near(known.due_at)

    assert not conclude_wait(engine, Continuation(engine, "celery"), known)

    assert engine.replays.out(run.id) == 2
    settle(engine, run)
    assert run.result(timeout=0) == [2, None]


def test_a_timeout_that_is_given_up_is_not_known_any_more(engine):
    """Though it is due an hour later; also where the run ends with the same turn."""
    run = in_time.start()
    settle(engine, run)

    assert run.result(timeout=0) == 2
    assert len(engine.known_waits) == 0


def test_a_run_with_a_priority_is_left_to_its_messages(engine):
    """The broker decides what comes first."""
    run = naps.with_options(priority=5).start()
    drive(engine, run.id)

    assert engine.known_waits.take(run.id, "r#1") is None


def test_a_process_ends_the_sleeps_that_it_knows_one_after_the_other(engine):
    """While it is at work, until other messages come first."""
    started = [naps_only.start() for _ in range(3)]
    for each in started:
        drive(engine, each.id)
    now = [0.0]
    continuation = Continuation(engine, "celery", clock=lambda: now[0])
    with engine.store.read() as tx:
        last = max(
            tx.execute(sa.select(waits.c.due_at).where(waits.c.run_id == each.id)).scalar_one() for each in started
        )
    assert engine.wait_if_near(last)

    assert [known.run_id for known in continuation.take_due_waits()] == [each.id for each in started]
    assert [known.run_id for known in continuation.begin_waits()] == [each.id for each in started]
    naps_only.start()
    now[0] = 61.0
    assert continuation.take_due_waits() == []


def asleep_together(engine, *started) -> list[KnownWait]:
    """Take the first turns of these runs; return their waits, once all are due by the database's clock."""
    return [asleep(engine, run) for run in started]


def test_sleeps_that_end_together_are_one_transaction_and_their_steps_are_claimed(engine):
    """Each turn has its own fence: one that was overtaken writes nothing, and its wait is left to its message."""
    quick, ends, overtaken = naps.start(), naps_only.start(), naps.start()
    due = asleep_together(engine, quick, ends, overtaken)
    with engine.store.begin() as tx:
        invalidate_turn(tx, overtaken.id)
    continuation, begun = Continuation(engine, "celery"), []
    sa.event.listen(engine.store.engine, "begin", lambda _: begun.append(1))

    conclude_waits(engine, continuation, due)

    assert len(begun) == 1
    assert [held.run_id for held in continuation.ready] == [quick.id]
    assert ends.result(timeout=0) == "awake"
    assert [rows(engine, waits, run) for run in (quick, ends, overtaken)] == [0, 0, 1]
    assert kinds(overtaken)[-1] == "wait_created"
    assert wake.fire(engine, overtaken.id, "r#1")
    assert rows(engine, inbox, overtaken) == 1


def test_a_turn_with_a_hook_among_them_has_a_transaction_of_its_own(engine):
    """The others are committed together."""
    started = [naps.start(), spreads.start(), naps.start()]
    due = asleep_together(engine, *started)
    continuation = Continuation(engine, "celery")

    conclude_waits(engine, continuation, due)

    assert sorted(held.run_id for held in continuation.ready) == sorted(run.id for run in started)
    assert continuation.next is None
    while (held := continuation.take_ready()) is not None:
        run_claimed(engine, held, StepBody(registry.steps[held.name]), None)
    settle(engine, started[1])
    assert started[1].result(timeout=0) == [2, 3]


@pytest.mark.parametrize("error", [RuntimeError("the database is gone"), KeyboardInterrupt()])
def test_a_commit_that_fails_claims_nothing(engine, monkeypatch, error):
    """The waits stay, and their messages end them."""
    started = [naps.start(), naps.start()]
    due = asleep_together(engine, *started)
    continuation = Continuation(engine, "celery")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(turns, "commit_all", fail)
    with suppress(KeyboardInterrupt):
        conclude_waits(engine, continuation, due)

    assert not continuation.ready
    assert not engine.running
    assert [rows(engine, waits, run) for run in started] == [1, 1]
    settle(engine, *started)
    assert [run.result(timeout=0) for run in started] == [2, 2]


@pytest.mark.parametrize("function", [naps, spreads])
def test_a_failure_after_the_commit_leaves_each_claim_to_be_run_or_released(engine, monkeypatch, caplog, function):
    """Messages are sent after the commit, turn by turn.  An error is logged, and the waits are over."""
    started = [function.start(), naps.start()]
    due = asleep_together(engine, *started)
    continuation = Continuation(engine, "celery")

    def fail(*_: object) -> None:
        raise RuntimeError("the broker's client has a bug")

    monkeypatch.setattr(finish, "_note_waits", fail)
    conclude_waits(engine, continuation, due)

    assert {held.claim for held in continuation.ready} == engine.running
    assert len(engine.running) == 2
    assert [rows(engine, waits, run) for run in started] == [0, 0]
    assert caplog.text.count("what follows a committed turn failed") == 2
