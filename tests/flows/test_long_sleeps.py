"""Sleeps of any length: a row first, a message only when it is nearly over."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, settle, work

from durable import Durable, Run, sleep, step, workflow
from durable.broker import eta_budget
from durable.broker.dispatcher import WAKE
from durable.recovery import sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store.schema import broker_sentinel, inbox, leases, steps, waits, workers
from durable.turns import wake
from durable.turns.drive import drive

pytestmark = all_databases()

DAY = 86400


@workflow(name="long_sleeps.sleeps")
async def sleeps(secs: float) -> str:
    await sleep(secs)
    return "awake"


@workflow(name="long_sleeps.many")
async def many(number: int) -> None:
    await asyncio.gather(*(sleep(60 + i) for i in range(number)))


@step(name="long_sleeps.failing", max_retries=2, retry_backoff=60, retry_jitter=False)
def failing() -> None:
    raise OSError("not now")


@workflow(name="long_sleeps.tries")
async def tries(number: int) -> None:
    await asyncio.gather(*(failing() for _ in range(number)))


@pytest.fixture
def quiet(engine: Durable) -> None:
    """Nothing that other tests have left in the database or the broker waits, and no process beats."""
    with engine.store.begin() as tx:
        for table in (steps, waits, inbox, workers, leases, broker_sentinel):
            tx.execute(sa.delete(table))
    etas(engine)


@pytest.fixture
def worker(engine: Durable, quiet: None) -> Any:
    """This process is registered as one that runs steps; it is signed off at the end."""
    keeper = Housekeeping(engine)
    keeper._beat()
    yield keeper
    keeper._unregister()


def etas(engine: Durable) -> int:
    """How many messages in the broker wait until they are due; all are taken out."""
    count = 0
    with engine.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            count += message.headers["eta"] is not None
            message.ack()
        queue.close()
    return count


def later(engine: Durable, secs: float) -> None:
    """Let the engine's clock be so much ahead of the database's."""
    offset, measured = engine.store._clock or (engine.now(), 0)
    engine.store._clock = (offset + int(secs * 1_000_000), measured)


def eta_messages(engine: Durable, run: Run[Any]) -> int:
    """Empty the queue; returns the number of this run's ETA messages."""
    count = 0
    with engine.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            count += message.headers["task"] == WAKE and run.id in str(message.payload)
            message.ack()
        queue.close()
    return count


def pending(engine: Durable, run: Run[Any]) -> int:
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(waits).where(waits.c.run_id == run.id)
        return tx.execute(query).scalar_one()


def test_c101_ten_years_are_a_row_and_no_message_until_they_are_nearly_over(engine):
    """The sweep sends nothing for years; within the horizon it publishes exactly one ETA message."""
    run = sleeps.start(3650 * DAY)
    drive(engine, run.id)
    for _ in range(10):
        sweep.sweep(engine)
        assert (eta_messages(engine, run), pending(engine, run)) == (0, 1)
        later(engine, 364.9 * DAY)

    later(engine, 1 * DAY - 60)
    sweep.sweep(engine)
    sweep.sweep(engine)
    assert eta_messages(engine, run) == 1


def test_an_alarm_that_rings_early_wakes_nobody(engine):
    """The row and the database's clock decide: whatever rings, ten years are ten years."""
    run = sleeps.start(3650 * DAY)
    drive(engine, run.id)

    later(engine, 4000 * DAY)  # a process that is wrong about the time
    assert not wake.fire(engine, run.id, "r#1")
    drive(engine, run.id)

    assert run.status == "running"
    assert pending(engine, run) == 1


@pytest.mark.parametrize("secs", [0.001, 0.05, 0.2])
def test_short_sleeps_are_exact_to_the_moment(engine, secs):
    """None ends before its time, and nothing is left of it."""
    run = sleeps.start(secs)
    settle(engine, run)

    assert run.result() == "awake"
    created, over = [event for event in run.events() if event.kind.startswith("wait_")]
    assert over.at >= created.due_at
    assert pending(engine, run) == 0


def test_one_turn_with_many_sleeps_publishes_no_more_eta_messages_than_the_limit(engine, quiet, monkeypatch):
    """Of 50 sleeps within the horizon, 20 get a message; the sweep sends the others when they are due."""
    monkeypatch.setattr(eta_budget, "MOST_ETAS", 20)
    run = many.start(50)
    drive(engine, run.id)
    assert eta_messages(engine, run) == 20

    sweep.sweep(engine)
    assert eta_messages(engine, run) == 0
    with engine.store.read() as tx:
        left = sa.select(sa.func.count()).where(waits.c.run_id == run.id, waits.c.sent_at.is_(None))
        assert tx.execute(left.where(waits.c.next_send_at == waits.c.due_at)).scalar_one() == 30


def test_sleeps_retries_and_delayed_starts_have_one_limit(engine, worker, monkeypatch):
    """Whatever waits in workers until it is due counts, and what finds no room is sent when it is due."""
    monkeypatch.setattr(eta_budget, "MOST_ETAS", 12)
    failed, slept = tries.start(5), many.start(5)
    for run in (failed, slept):
        drive(engine, run.id)
    assert etas(engine) == 5, "the sleeps"
    work(engine, failed)
    for _ in range(5):
        sleeps.with_options(countdown=30).start(1)
    assert etas(engine) == 12 - 5, "the retries, and two of the starts"

    engine.dispatch.eta_budget = eta_budget.EtaBudget(engine.settings.eta_horizon)  # another process
    sleeps.with_options(countdown=30).start(1)
    drive(engine, many.start(5).id)
    assert etas(engine) == 0

    later(engine, 31)
    worker.tick()
    assert etas(engine) == 0
    with engine.store.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(inbox).where(inbox.c.sends > 0)).scalar_one() >= 4


def test_processes_share_what_room_there_is(engine, worker, monkeypatch):
    """With two of them each takes half until it looks again; nobody takes more than all of it."""
    monkeypatch.setattr(eta_budget, "MOST_ETAS", 20)
    other = Housekeeping(engine)
    engine.process_id = "another"
    other._beat()

    run = many.start(50)
    drive(engine, run.id)
    assert eta_messages(engine, run) == 10

    later(engine, 3)
    again = many.start(50)
    drive(engine, again.id)
    assert eta_messages(engine, again) == 5
    other._unregister()


def test_the_store_is_asked_for_room_now_and_then_only(engine, quiet, monkeypatch):
    """Twenty turns that sleep ask once within two seconds, and what does not wait for a time never does."""
    now, asked = engine.store.now(), list[str]()
    monkeypatch.setattr(engine.store, "now", lambda: now)
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda c, cur, text, *_: asked.append(text))
    runs = [sleeps.start(60) for _ in range(20)]
    assert not any(map(_counts, asked))

    for run in runs:
        drive(engine, run.id)
    assert sum(map(_counts, asked)) == 3, "one for each work list"


def _counts(statement: str) -> bool:
    return re.match(r"SELECT count\(\*\).*sent_at", statement, re.DOTALL) is not None
