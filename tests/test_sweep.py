"""What a lost message or a dead process left is found and sent again."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from durable import alarms, drive, events, schema, sleep, start, step, steps, sweep, workflow
from durable.dispatch import DRIVE, WAKE
from durable.housekeeping import Housekeeping
from durable.processes import identify
from durable.steps import Address
from durable.store import steps as step_rows
from durable.store import workers
from durable.store.workers import Worker


@step(name="sweep.noop")
def noop() -> int:
    return 1


@workflow(name="sweep.one_step")
async def one_step() -> int:
    return await noop()


@workflow(name="sweep.long_sleep")
async def long_sleep() -> str:
    await sleep("30d")
    return "awake"


def sent(engine):
    """The names of the messages in the broker, which are taken out."""
    names = []
    with engine.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            names.append(message.headers["task"])
            message.ack()
        queue.close()
    return names


def later(engine, seconds):
    """Let the engine's clock be *seconds* ahead."""
    offset, measured = engine.store._clock or (engine.now(), 0)
    engine.store._clock = (offset + seconds * 1_000_000, measured)


@pytest.fixture
def worker(engine):
    """This process, registered as one that runs steps."""
    housekeeping = Housekeeping(engine)
    housekeeping._beat()
    return housekeeping


def test_a_lost_drive_is_sent_again_with_growing_delays(engine):
    """A run whose first message is lost is driven by the sweep: after 5 s, then 5, 10 … later."""
    start(one_step)
    sent(engine)

    sweep.sweep(engine)
    assert sent(engine) == []

    later(engine, 6)
    sweep.sweep(engine)
    sweep.sweep(engine)
    assert sent(engine) == [DRIVE]

    later(engine, 6)
    sweep.sweep(engine)
    assert sent(engine) == [DRIVE]

    later(engine, 6)
    sweep.sweep(engine)
    assert sent(engine) == []


def test_a_lost_step_is_sent_again(engine, worker):
    """A step whose message is lost is sent by the sweep."""
    drive.drive(engine, start(one_step).id)
    sent(engine)

    later(engine, 6)
    sweep.sweep(engine)

    assert "sweep.noop" in sent(engine)


def test_a_step_that_no_live_process_knows_is_not_sent(engine):
    """Celery throws messages of unknown tasks away: the row waits for a worker that knows the name."""
    run = start(one_step)
    drive.drive(engine, run.id)
    sent(engine)

    later(engine, 6)
    sweep.sweep(engine)

    assert "sweep.noop" not in sent(engine)
    with engine.store.read() as tx:
        assert step_rows.not_before(tx, run.id, "r#1", 1) == 0


def test_a_long_sleep_is_a_row_until_it_is_due_soon(engine, worker):
    """A sleep of 30 days is published only when it is due within the horizon."""
    run = start(long_sleep)
    drive.drive(engine, run.id)
    assert WAKE not in sent(engine)

    later(engine, 30 * 86400 - 100)
    sweep.sweep(engine)
    assert WAKE in sent(engine)


def test_a_wait_never_ends_before_its_time(engine):
    """A message that rings early changes nothing, whoever sent it."""
    run = start(long_sleep)
    drive.drive(engine, run.id)

    assert not alarms.ring(engine, run.id, "r#1")
    assert "wait_completed" not in [e.kind for e in run.events()]


def dead_process():
    """The identity of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(identify(), pid=child.pid, pid_started=1)


def claim_as(engine, run, identity, *, beat_at=None):
    """Let a process with this identity claim the run's first step."""
    row = Worker(
        id="other",
        host=identity.host,
        boot_id=identity.boot_id,
        pid=identity.pid,
        pid_started=identity.pid_started,
        started_at=0,
        beat_at=0,
        names=json.dumps([]),
    )
    with engine.store.begin() as tx:
        workers.beat(tx, row, beat_at or engine.store.sql_now)
        held = step_rows.claim(
            tx, run.id, "r#1", 1, by="theirs", worker_id="other", message_id=None, now=engine.store.sql_now
        )
    assert held is not None
    return held


def test_a_process_gone_from_this_host_loses_its_attempts_at_once(engine, worker):
    """Its step is pending again as the next attempt, and the lost one is in the log."""
    run = start(one_step)
    drive.drive(engine, run.id)
    held = claim_as(engine, run, dead_process())

    sweep.bury(engine, beating_since=engine.now())

    steps.attempt(engine, noop, Address(run.id, "r#1", 2), None)
    assert steps._record(engine, held, events.StepCompleted(at=1, op_id="r#1", attempt=1, result="9")) is None
    drive.drive(engine, run.id)
    assert run.result(timeout=1) == 1
    assert "step_retrying" in [e.kind for e in run.events()]


def test_a_redelivered_message_gives_a_vanished_attempt_up(engine, worker):
    """The message that a killed child leaves comes back at once, and need not wait for any beat."""
    run = start(one_step)
    drive.drive(engine, run.id)
    claim_as(engine, run, dead_process())

    steps.attempt(engine, noop, Address(run.id, "r#1", 1), None)

    with engine.store.read() as tx:
        assert step_rows.not_before(tx, run.id, "r#1", 2) is not None


def test_a_silent_process_is_dead_only_while_our_own_beats_succeed(engine, worker):
    """A database outage silences everybody, and kills nobody."""
    run = start(one_step)
    drive.drive(engine, run.id)
    claim_as(engine, run, replace(identify(), host="elsewhere"), beat_at=1)

    sweep.bury(engine, beating_since=engine.now())
    with engine.store.read() as tx:
        assert step_rows.held(tx, run.id, "r#1") is not None

    sweep.bury(engine, beating_since=engine.now() - engine.settings.dead_after - 1)
    with engine.store.read() as tx:
        assert step_rows.held(tx, run.id, "r#1") is None


def test_attempts_that_kill_their_process_end(engine, worker):
    """A step that always takes its process with it fails with the reason when its attempts are spent."""
    run = start(one_step)
    drive.drive(engine, run.id)
    for attempt in (1, 2, 3, 4):
        with engine.store.begin() as tx:
            assert step_rows.claim(
                tx,
                run.id,
                "r#1",
                attempt,
                by=f"c{attempt}",
                worker_id="gone",
                message_id=None,
                now=engine.now(),
            )
        later(engine, 11)
        sweep.bury(engine, beating_since=engine.now())
    drive.drive(engine, run.id)

    with pytest.raises(Exception, match="WorkerLost"):
        run.result(timeout=1)


def test_only_one_process_sweeps(engine):
    """The lease is one process's until it expires, and free at once when it is given back."""
    with engine.store.begin() as tx:
        now = engine.store.now()
        assert workers.take_lease(tx, "sweep", "a", now, 1_000_000)
        assert not workers.take_lease(tx, "sweep", "b", now, 1_000_000)
        assert workers.take_lease(tx, "sweep", "a", now, 1_000_000)
        assert workers.take_lease(tx, "sweep", "b", now + 2_000_000, 1_000_000)
        workers.drop_lease(tx, "sweep", "b")
        assert workers.take_lease(tx, "sweep", "a", now, 1_000_000)


def test_a_turn_with_nothing_new_writes_nothing(engine):
    """A second drive finds an empty inbox and leaves the run's row as it is."""
    run = start(one_step)
    drive.drive(engine, run.id)
    before = run._row("test")

    drive.drive(engine, run.id)

    assert before == run._row("test")


def test_a_row_that_is_overdue_is_found_by_an_index(engine):
    """The sweep's queries stay cheap however many runs have finished."""
    with engine.store.begin() as tx:
        for table in (schema.steps, schema.waits, schema.inbox):
            query = f"SELECT * FROM {table.name} WHERE next_send_at <= 5 ORDER BY next_send_at"
            plan = str(tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all())
            assert f"{table.name}_by_send" in plan
