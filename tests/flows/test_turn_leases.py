"""One drive takes in what several processes record for a run, and nothing that they leave to it is lost."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, more_engines, settle

from durable import Durable, Run, failpoints, registry, step, workflow
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.broker.dispatcher import DRIVE
from durable.engine.later import Later
from durable.engine.process import identify
from durable.recovery import sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import schema, turn_leases, workers
from durable.store import turns as turns_store
from durable.turns.drive import drive
from durable.turns.turn_lease import MANY, TTL, TurnLease

pytestmark = all_databases()

WIDTH = MANY + 4


@step(name="leases.noop")
def noop(number: int) -> int:
    return number


@workflow(name="leases.wide")
async def wide(width: int) -> int:
    return sum(await asyncio.gather(*map(noop, range(width))))


@workflow(name="leases.narrow")
async def narrow() -> int:
    return await noop(1) + await noop(2)


@workflow(name="leases.bounded")
async def bounded(width: int) -> int:
    slots = asyncio.Semaphore(MANY + 2)

    async def one(number: int) -> int:
        async with slots:
            return await noop(number)

    return sum(await asyncio.gather(*map(one, range(width))))


@pytest.fixture
def other(engine: Durable, database: str) -> Iterator[Durable]:
    """Another process."""
    with more_engines(database) as make:
        yield make()


def run_step(engine: Durable, run: Run[Any], number: int) -> None:
    """Run the step, and record its outcome: 1 is the first that the workflow has called."""
    attempt(engine, registry.steps[noop.name], Address(run.id, f"r#{number}", 1), None)


def work_one(engine: Durable, run: Run[Any]) -> bool:
    """Run one step that waits, and record its outcome."""
    query = sa.select(schema.steps.c.op_id).where(schema.steps.c.run_id == run.id).limit(1)
    with engine.store.read() as tx:
        op_id = tx.execute(query).scalar_one()
    return attempt(engine, registry.steps[noop.name], Address(run.id, op_id, 1), None) is not None


def turns(engine: Durable, run: Run[Any]) -> int:
    """How many turns of the run are committed."""
    with engine.store.read() as tx:
        return tx.execute(sa.select(schema.runs.c.turn).where(schema.runs.c.id == run.id)).scalar_one()


def ended(run: Run[Any]) -> list[str]:
    """The steps whose outcome is in the log."""
    return [event.op_id for event in run.events() if event.kind == "step_completed"]


def leases(engine: Durable, run: Run[Any]) -> list[Any]:
    """The lease of the run, if it has one."""
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(schema.turn_leases).where(schema.turn_leases.c.run_id == run.id)))


def taken(engine: Durable, run: Run[Any], ttl: int = TTL, worker_id: str = "another") -> str:
    """Take the lease for another drive."""
    assert turn_leases.take(engine.store, run.id, "its holder", worker_id=worker_id, ttl=ttl)
    return "its holder"


def kept_replay(engine: Durable, run: Run[Any]) -> Any:
    """The replay that the process keeps of the run; None when the next turn begins with the first event."""
    with engine.replays.checked_out(run.id) as checkout:
        checkout.give_back()
        return checkout.replay


def woken(engine: Durable, run: Run[Any]) -> int:
    """How many turns of the run are in the broker; its messages are taken out."""
    found = 0
    with engine.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            found += message.headers["task"] == DRIVE and run.id in f"{message.headers} {message.payload}"
            message.ack()
        queue.close()
    return found


def test_an_outcome_is_left_to_the_drive_that_has_the_lease(engine):
    """A drive without it takes no turn; once the lease is released, the next one takes the outcome in."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    holder = taken(engine, run)
    run_step(engine, run, 1)
    before = turns(engine, run)
    drive(engine, run.id)
    assert turns(engine, run) == before

    turn_leases.release(engine.store, run.id, holder)
    settle(engine, run)
    assert run.result() == sum(range(WIDTH))
    assert leases(engine, run) == []


def deliver_again(engine: Durable, run: Run[Any]) -> None:
    """Let this process get the run's drive from the broker, which has delivered it before."""
    task = engine.celery.tasks[DRIVE]
    task.push_request(delivery_info={"redelivered": True})
    try:
        task.run(run.id)
    finally:
        task.pop_request()


@pytest.mark.parametrize("place", ["gone", "alive", "elsewhere"])
def test_a_message_delivered_again_drops_the_lease_of_a_process_that_is_gone(engine, place):
    """Of this host only: the run goes on at once, and the sweep has nothing to find."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    run_step(engine, run, 1)
    before = turns(engine, run)
    holder = replace(identify(), pid_started=1) if place == "gone" else identify()
    host = {"host": "elsewhere", "pid_started": 1} if place == "elsewhere" else {}
    row = asdict(holder) | host | {"id": "another", "started_at": 0, "beat_at": 0, "names": "[]"}
    with engine.store.begin() as tx:
        workers.beat(tx, workers.Worker(**row), engine.store.sql_now)
    taken(engine, run)

    deliver_again(engine, run)

    assert turns(engine, run) == before + (place == "gone")
    assert any(lease.holder == "its holder" for lease in leases(engine, run)) == (place != "gone")


def test_what_comes_while_a_turn_is_decided_is_taken_in_by_its_drive(engine, other):
    """Another process records an outcome and leaves it: no turn is overtaken, and none is missing."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    run_step(engine, run, 1)
    before = turns(engine, run)

    def meanwhile(point: str) -> None:
        if point == "turn.read" and turns(engine, run) == before:
            run_step(other, run, 2)
            drive(other, run.id)
            assert turns(engine, run) == before

    with failpoints.watched(meanwhile):
        drive(engine, run.id)

    assert ended(run) == ["r#1", "r#2"]
    assert (engine.measures.take().get(("durable_turns_overtaken", "", "")), leases(engine, run)) == (None, [])


@pytest.mark.parametrize("manner", [{"continuation": "60s"}])
def test_a_turn_that_was_committed_before_the_lease_is_read_first(engine, other, monkeypatch):
    """Between the read and the lease another process takes a turn: ours is not for nothing, and keeps its replay."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    run_step(engine, run, 1)
    before, take = turns(engine, run), turn_leases.take

    def later(store, run_id, holder, **options):
        if store is engine.store and turns(engine, run) == before:
            drive(other, run.id)
            run_step(other, run, 2)
        return take(store, run_id, holder, **options)

    monkeypatch.setattr(turn_leases, "take", later)
    kept = kept_replay(engine, run)
    drive(engine, run.id)

    assert (ended(run), turns(engine, run)) == (["r#1", "r#2"], before + 2)
    assert engine.measures.take().get(("durable_turns_overtaken", "", "")) is None
    assert kept is not None
    assert kept_replay(engine, run) is kept


def test_a_lease_that_waits_for_the_turn_before_reads_what_that_turn_has_written(engine):
    """On PostgreSQL it is one statement, which sees what was committed when it began."""
    if engine.store.dialect != "postgresql":
        pytest.skip("elsewhere the lease comes before the read")
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    holder, before = taken(engine, run), turns(engine, run)
    found = []

    def read() -> None:
        with turns_store.read_under_lease(engine.store, run.id, "ours", worker_id="us", ttl=TTL) as read:
            found.append(read)

    waits = sa.text(
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        " AND clock_timestamp() - query_start > interval '1 ms'"
    )
    reader = threading.Thread(target=read)
    with engine.store.begin() as tx:
        turn_leases.RELEASE.changed(tx, {"run": run.id, "holder": holder})
        tx.execute(sa.update(schema.runs).where(schema.runs.c.id == run.id).values(turn=before + 1))
        reader.start()
        with engine.store.read() as other:
            while other.execute(waits).first() is None:
                assert reader.is_alive()
    reader.join()

    ((_, read_run, _),) = found
    assert read_run.turn == before + 1


def test_what_comes_just_before_the_release_is_sent_a_turn(engine, other):
    """The holder has read an empty inbox, and has the lease still: it reads the inbox again afterwards."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    run_step(engine, run, 1)
    woken(engine, run)
    release = turn_leases.release

    def late(store, run_id, holder):
        run_step(other, run, 2)
        drive(other, run.id)  # leaves the outcome to us
        release(store, run_id, holder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turn_leases, "release", late)
        drive(engine, run.id)

    assert woken(engine, run) == 1
    settle(engine, run)
    assert run.result() == sum(range(WIDTH))


def test_a_lease_that_has_expired_is_taken_over(engine):
    """Its holder is gone, or takes longer than it has said."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    taken(engine, run, ttl=-1_000_000)
    settle(engine, run)

    assert run.result() == sum(range(WIDTH))


def test_a_long_drive_renews_its_lease(engine, monkeypatch):
    """Half of its time is over: it is asked for again, under the same id."""
    run = engine.start(wide, WIDTH)
    lease = TurnLease(engine, run.id)
    assert lease.take()
    holder, (row,) = lease.holder, leases(engine, run)
    now = engine.now()
    monkeypatch.setattr(engine, "now", lambda: now + TTL)

    assert lease.take()
    (renewed,) = leases(engine, run)
    assert renewed.holder == row.holder == holder
    assert renewed.expires_at > row.expires_at
    assert not TurnLease(engine, run.id).take()
    lease.release(wakes=False)
    assert leases(engine, run) == []


@pytest.mark.parametrize("how", ["expired", "its process is dead"])
def test_the_sweep_sends_a_turn_for_what_was_left_to_a_dead_holder(engine, how):
    """The outcome stands in the inbox, and its own drive has gone away."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    keeper = Housekeeping(engine)
    keeper._beat()
    taken(engine, run, ttl=-1_000_000 if how == "expired" else TTL, worker_id=engine.process_id)
    run_step(engine, run, 1)
    woken(engine, run)
    if how == "expired":
        sweep.sweep(engine)
    else:
        with engine.store.read() as tx:
            (worker,) = [each for each in sweep.workers.alive(tx) if each.id == engine.process_id]
        sweep._reap(engine, worker, spared_since=None)

    assert (woken(engine, run), leases(engine, run)) == (1, [])
    keeper._unregister()
    settle(engine, run)
    assert run.result() == sum(range(WIDTH))


def test_a_drive_that_leaves_the_run_to_others_releases_the_lease_first(engine, monkeypatch):
    """After so many turns another process goes on: its message comes when the lease is free."""
    monkeypatch.setattr(sys.modules[drive.__module__], "TRIES", 1)
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    run_step(engine, run, 1)
    when_woken = []
    monkeypatch.setattr(
        engine, "send_turns", lambda *runs: when_woken.extend((each, leases(engine, run)) for each in runs)
    )
    drive(engine, run.id)

    assert when_woken == [(run.id, [])]
    assert ended(run) == ["r#1"]


def test_a_turn_of_an_unknown_workflow_is_sent_on_once_the_lease_is_released(engine, monkeypatch):
    """The worker that knows it must not find the lease taken."""
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    run_step(engine, run, 1)
    when_forwarded = []
    monkeypatch.setattr(
        sys.modules[drive.__module__], "forward_turn", lambda *args: when_forwarded.append(leases(engine, run))
    )
    engine.replays.close()
    monkeypatch.delitem(registry.workflows, wide.name)
    drive(engine, run.id)

    assert when_forwarded == [[]]


def test_a_run_of_one_step_after_the_other_takes_no_lease(engine):
    """Nobody else can have news for it: its turns cost no statement more."""
    statements = []
    run = engine.start(narrow)
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    settle(engine, run)

    assert run.result() == 3
    assert statements
    assert [each for each in statements if "durable_turn_leases" in each and not each.startswith("SELECT")] == []


@pytest.mark.parametrize("manner", [{"continuation": "60s"}])
def test_while_many_steps_run_one_turn_takes_in_several_outcomes(engine, monkeypatch):
    """The first is taken in at once.  The lease is kept for a moment; then one turn is sent for those that came."""
    monkeypatch.setattr(sys.modules[TurnLease.__module__], "BATCH_DELAY_SECS", 60)
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    before = turns(engine, run)
    run_step(engine, run, 1)
    drive(engine, run.id, in_batches=True)
    assert turns(engine, run) == before + 1
    woken(engine, run)

    for number in (2, 3):
        run_step(engine, run, number)
        drive(engine, run.id, in_batches=True)
    engine.later.close()
    assert (turns(engine, run), woken(engine, run), leases(engine, run)) == (before + 1, 1, [])
    drive(engine, run.id)
    assert turns(engine, run) == before + 2


def test_an_outcome_that_lets_the_workflow_begin_more_does_not_wait(engine):
    """A bounded batch starts its next step at once."""
    run = engine.start(bounded, WIDTH + 10)
    drive(engine, run.id)
    for _ in range(3):
        before = turns(engine, run)
        assert work_one(engine, run)
        drive(engine, run.id, in_batches=True)
        assert (turns(engine, run), leases(engine, run)) == (before + 1, [])


def test_a_lease_that_cannot_be_released_is_no_error(engine, monkeypatch, caplog):
    """It expires by itself; the turn was committed."""
    caplog.set_level(logging.DEBUG, "durable.drive")
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    run_step(engine, run, 1)

    def away(*args: object) -> None:
        raise sa.exc.OperationalError("", None, Exception("the server is away"))

    monkeypatch.setattr(turn_leases, "release", away)
    drive(engine, run.id)

    assert "expires by itself" in caplog.text
    assert ended(run) == ["r#1"]


@pytest.mark.parametrize("manner", [{"continuation": "60s"}])
def test_outcomes_that_wait_for_a_batch_are_swept_when_their_process_dies(engine, monkeypatch):
    """Neither the lease nor the turn that was to come is there any more: the sweep sends one."""
    monkeypatch.setattr(sys.modules[TurnLease.__module__], "BATCH_DELAY_SECS", 3600)
    # The sweep would send another turn for outcomes that lie there for as long, on a slow machine.
    engine.settings = replace(engine.settings, resend_after=600_000_000)
    run = engine.start(wide, WIDTH)
    drive(engine, run.id)
    for number in (1, 2):
        run_step(engine, run, number)
        drive(engine, run.id, in_batches=True)
    assert ended(run) == ["r#1"]
    woken(engine, run)
    monkeypatch.setattr(engine, "later", Later())  # the process is gone, with what it was to do

    now = engine.now() + TTL + 1_000_000
    monkeypatch.setattr(engine, "now", lambda: now)
    sweep.sweep(engine)
    assert (woken(engine, run), leases(engine, run)) == (1, [])
    drive(engine, run.id)
    assert ended(run) == ["r#1", "r#2"]
