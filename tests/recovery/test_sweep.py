"""What a lost message or a dead process left is found and sent again."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from eventually import eventually
from servers import DATABASES

from durable import RunFailed, events, sleep, start, step, workflow
from durable.attempts import outcome, timeout
from durable.attempts.attempt import attempt as run_attempt
from durable.attempts.claim import Address
from durable.broker import HEADER, QUEUE, eta_budget
from durable.broker.dispatcher import DRIVE, WAKE
from durable.broker.progress import SENT
from durable.engine.process import identify
from durable.recovery import housekeeping, sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import claimed_attempts, claims, schema, workers
from durable.store.workers import Worker
from durable.turns import wake
from durable.turns.drive import drive


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


@workflow(name="sweep.nap")
async def nap() -> None:
    await sleep("10s")


def sent(engine, run):
    """The names of the run's messages in the broker; all that are there are taken out."""
    names = []
    with engine.celery.connection_for_read() as connection:
        queue = connection.SimpleQueue("celery")
        while len(queue):
            message = queue.get(block=False)
            if run.id in f"{message.headers} {message.payload}":
                names.append(message.headers["task"])
            message.ack()
        queue.close()
    return names


def unsend(engine, table):
    """Let no message of a work list have been sent: the next sweep sends them."""
    with engine.store.begin() as tx:
        tx.execute(sa.update(table).values(sent_at=None, next_send_at=engine.now() - 1))


def later(engine, seconds):
    """Let the engine's clock be *seconds* ahead."""
    offset, measured = engine.store._clock or (engine.now(), 0)
    engine.store._clock = (offset + int(seconds * 1_000_000), measured)


@pytest.fixture
def keeper(engine):
    """This process's housekeeping, which nobody has started; it is signed off at the end."""
    housekeeping = Housekeeping(engine)
    yield housekeeping
    housekeeping._unregister()


@pytest.fixture
def register(keeper):
    """Registers this process as one that runs steps."""
    return keeper._beat


@pytest.fixture
def worker(keeper):
    """This process is registered from the beginning."""
    keeper._beat()
    return keeper


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_lost_drive_is_sent_again_with_growing_delays(engine, worker):
    """A run whose first message is lost is driven by the sweep: after 5 s, then 5, 10 … later."""
    run = start(one_step)
    sent(engine, run)

    sweep.sweep(engine)
    assert sent(engine, run) == []

    later(engine, 6)
    sweep.sweep(engine)
    sweep.sweep(engine)
    assert sent(engine, run) == [DRIVE]

    later(engine, 6)
    sweep.sweep(engine)
    assert sent(engine, run) == [DRIVE]

    later(engine, 6)
    sweep.sweep(engine)
    assert sent(engine, run) == []


def test_a_lost_step_is_sent_again(engine, worker):
    """A step whose message is lost is sent by the sweep."""
    run = start(one_step)
    drive(engine, run.id)
    sent(engine, run)

    later(engine, 6)
    sweep.sweep(engine)

    assert "sweep.noop" in sent(engine, run)


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_c05_a_step_that_no_live_process_knows_is_not_sent_until_one_does(engine, register):
    """Celery throws messages of unknown tasks away: the step waits, and goes out at the first sweep that may."""
    run = start(one_step)
    drive(engine, run.id)
    sent(engine, run)

    later(engine, 600)
    for _ in range(8):
        sweep.sweep(engine)
    assert "sweep.noop" not in sent(engine, run)
    assert run.status == "running"

    register()
    sweep.sweep(engine)
    assert "sweep.noop" in sent(engine, run)


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_c06_a_run_whose_workflow_no_live_process_knows_is_not_driven_until_one_does(engine, register):
    """No turn is sent to workers that could only put it aside; the first sweep sends it that may."""
    run = start(one_step)
    sent(engine, run)

    later(engine, 600)
    for _ in range(8):
        sweep.sweep(engine)
    assert sent(engine, run) == []

    register()
    sweep.sweep(engine)
    assert DRIVE in sent(engine, run)


def test_a_run_that_nobody_knows_can_be_cancelled(engine):
    """Ending a run that has not begun needs none of its code, so its turn is sent all the same."""
    run = start(one_step)
    run.cancel()
    sent(engine, run)

    later(engine, 6)
    sweep.sweep(engine)

    assert sent(engine, run) == [DRIVE]


def test_a_long_sleep_is_a_row_until_it_is_due_soon(engine, worker):
    """A sleep of 30 days is published only when it is due within the horizon."""
    run = start(long_sleep)
    drive(engine, run.id)
    assert WAKE not in sent(engine, run)

    later(engine, 30 * 86400 - 100)
    sweep.sweep(engine)
    assert WAKE in sent(engine, run)


def test_a_wait_never_ends_before_its_time(engine):
    """A message that arrives early changes nothing, whichever process sent it."""
    run = start(long_sleep)
    drive(engine, run.id)

    assert not wake.fire(engine, run.id, "r#1")
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
        held = claims.claim(
            tx, run.id, "r#1", 1, by="theirs", worker_id="other", message_id=None, now=engine.store.sql_now
        )
    assert held is not None
    return held


def test_a_process_gone_from_this_host_loses_its_attempts_at_once(engine, worker):
    """Its step is pending again as the next attempt, and the lost one is in the log."""
    run = start(one_step)
    drive(engine, run.id)
    held = claim_as(engine, run, dead_process())

    sweep.reap_dead_workers(engine, beating_since=engine.now())

    run_attempt(engine, noop, Address(run.id, "r#1", 2), None)
    assert outcome.record(engine, held, events.StepCompleted(at=1, op_id="r#1", attempt=1, result="9")) is None
    drive(engine, run.id)
    assert run.result(timeout=1) == 1
    assert "step_retrying" in [e.kind for e in run.events()]


def test_c100_a_process_that_boots_leaves_alone_what_another_one_runs(engine, keeper):
    """A living worker's attempt is neither given up, nor sent again, nor claimed by a second copy of its message."""
    run = start(one_step)
    drive(engine, run.id)
    held = claim_as(engine, run, identify())
    sent(engine, run)

    keeper.tick()
    later(engine, 6)
    sweep.sweep(engine)
    run_attempt(engine, noop, Address(run.id, "r#1", 1), None)

    assert sent(engine, run) == []
    assert outcome.record(engine, held, events.StepCompleted(at=1, op_id="r#1", attempt=1, result="9")) is None
    drive(engine, run.id)
    assert run.result(timeout=1) == 9


def test_a_redelivered_message_gives_a_vanished_attempt_up(engine, worker):
    """The message that a killed child leaves comes back at once, and need not wait for any beat."""
    run = start(one_step)
    drive(engine, run.id)
    claim_as(engine, run, dead_process())

    run_attempt(engine, noop, Address(run.id, "r#1", 1), None)

    with engine.store.read() as tx:
        assert claims.not_before(tx, run.id, "r#1", 2) is not None


def test_a_silent_process_is_dead_only_while_our_own_beats_succeed(engine, worker):
    """A database outage silences everybody, and kills nobody."""
    run = start(one_step)
    drive(engine, run.id)
    claim_as(engine, run, replace(identify(), host="elsewhere"), beat_at=1)

    sweep.reap_dead_workers(engine, beating_since=engine.now())
    with engine.store.read() as tx:
        assert claimed_attempts.find(tx, run.id, "r#1") is not None

    sweep.reap_dead_workers(engine, beating_since=engine.now() - engine.settings.dead_after - 1)
    with engine.store.read() as tx:
        assert claimed_attempts.find(tx, run.id, "r#1") is None


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_silent_process_keeps_what_has_called_heartbeat_lately(engine, worker, is_gone):
    """It may be its housekeeping that hangs.  One that is known to be gone keeps nothing."""
    run = start(one_step)
    drive(engine, run.id)
    held = claim_as(engine, run, dead_process() if is_gone else replace(identify(), host="elsewhere"), beat_at=1)
    with engine.store.begin() as tx:
        assert claims.heartbeat(tx, held, '"half"', engine.store.sql_now, None)

    long_ago = engine.now() - engine.settings.dead_after - 1
    sweep.reap_dead_workers(engine, beating_since=long_ago)
    with engine.store.read() as tx:
        assert (claimed_attempts.find(tx, run.id, "r#1") is None) == is_gone
        assert [w.id for w in workers.alive(tx) if w.id == "other"] == ([] if is_gone else ["other"])
    if is_gone:
        return

    with engine.store.begin() as tx:
        assert claims.heartbeat(tx, held, '"half"', long_ago, None)
    sweep.reap_dead_workers(engine, beating_since=long_ago)
    with engine.store.read() as tx:
        assert claimed_attempts.find(tx, run.id, "r#1") is None
        assert [w.id for w in workers.alive(tx) if w.id == "other"] == []


def test_c102_attempts_that_kill_their_process_end(engine, worker):
    """A step that always takes its process with it fails with the reason when its attempts are spent."""
    run = start(one_step)
    drive(engine, run.id)
    for number in (1, 2, 3, 4):
        with engine.store.begin() as tx:
            assert claims.claim(
                tx,
                run.id,
                "r#1",
                number,
                by=f"c{number}",
                worker_id="gone",
                message_id=None,
                now=engine.now(),
            )
        later(engine, 11)
        sweep.reap_dead_workers(engine, beating_since=engine.now())
    drive(engine, run.id)

    with pytest.raises(Exception, match="WorkerLost"):
        run.result(timeout=1)


def test_only_one_process_sweeps(engine):
    """The lease is one process's until it expires, and free at once when it is given back."""
    now = engine.store.now()
    assert workers.take_lease(engine.store, "sweep", "a", now, 1_000_000)
    assert not workers.take_lease(engine.store, "sweep", "b", now, 1_000_000)
    assert workers.take_lease(engine.store, "sweep", "a", now, 1_000_000)
    assert workers.take_lease(engine.store, "sweep", "b", now + 2_000_000, 1_000_000)
    with engine.store.begin() as tx:
        workers.drop_lease(tx, "sweep", "b")
    assert workers.take_lease(engine.store, "sweep", "a", now, 1_000_000)


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_process_beats_when_it_is_time_or_has_something_to_tell(engine, keeper, own_registry):
    """Rounds come more often than heartbeats: in between, only a new step or a message that was taken is told."""

    def beat_at():
        with engine.store.read() as tx:
            (at,) = [each.beat_at for each in workers.alive(tx) if each.id == engine.process_id]
        return at

    keeper.tick()
    first = beat_at()
    keeper.tick()
    assert beat_at() == first

    step(name="sweep.new")(lambda: None)
    keeper.tick()
    second = beat_at()
    assert second > first

    header = {HEADER: {SENT: engine.now(), QUEUE: "celery"}}
    engine.progress.note(SimpleNamespace(headers=header, delivery_info={}))
    keeper.tick()
    third = beat_at()
    assert third > second

    later(engine, 2)
    keeper.tick()
    assert beat_at() > third


def test_c97_a_turn_with_nothing_new_writes_nothing(engine):
    """A second drive finds an empty inbox and leaves the run's row as it is."""
    run = start(one_step)
    drive(engine, run.id)
    before = run._row("test")

    drive(engine, run.id)

    assert before == run._row("test")


def test_a_row_that_is_overdue_is_found_by_an_index(engine):
    """The sweep's queries stay cheap however many runs have finished."""
    with engine.store.begin() as tx:
        for table in (schema.steps, schema.waits, schema.inbox):
            query = f"SELECT * FROM {table.name} WHERE next_send_at <= 5 ORDER BY next_send_at"
            plan = str(tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all())
            assert f"{table.name}_by_send" in plan


def test_an_attempt_past_its_deadline_is_found_by_an_index(engine):
    """The very query: it reads the attempts that have a deadline, and of those the late ones."""
    said = []
    sa.event.listen(
        engine.store.engine, "before_cursor_execute", lambda c, cur, text, params, *_: said.append((text, params))
    )
    timeout.give_up_overdue(engine)
    ((text, params),) = [each for each in said if "durable_steps" in each[0]]

    with engine.store.read() as tx:
        plan = str(tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", params).all())
    assert "durable_steps_by_deadline" in plan


def test_an_alarm_that_has_rung_is_put_away_also_where_the_sweep_is(engine, worker):
    """The process that sweeps does not go round without a pause because an alarm of long ago is still there."""
    worker.on_due(engine.now() - 1)

    worker.tick()

    assert not worker._due_times


def test_an_alarm_that_is_set_while_the_database_is_asked_is_not_lost(engine, worker, monkeypatch):
    """What it is for became due after the query, so the round has not sent it: the next round does, at once."""
    find_due = housekeeping.find_due

    def find_and_then_set(asked):
        found = find_due(asked)
        worker.on_due(engine.now() - 1)
        return found

    monkeypatch.setattr(housekeeping, "find_due", find_and_then_set)
    worker.tick()

    assert len(worker._due_times) == 1


def test_an_alarm_that_rings_in_an_outage_does_not_make_rounds_without_a_pause(engine, worker, monkeypatch):
    """It is put away: what it is for is found by a sweep, once the database is back."""

    def is_away(*_):
        raise sa.exc.OperationalError("", {}, OSError("the server is away"))

    monkeypatch.setattr(housekeeping.workers, "commit_beat", is_away)
    worker._beating_since = None  # as after a heartbeat that has failed
    worker.on_due(engine.now() - 1)

    worker.tick()

    assert not worker._due_times


def test_housekeeping_starts_while_the_database_is_away(engine, monkeypatch, caplog):
    """Its first heartbeat fails, which it logs; the process is registered once the database is back."""
    commit_beat, is_back = workers.commit_beat, threading.Event()

    def beat(*args):
        if not is_back.is_set():
            raise sa.exc.OperationalError("", {}, OSError("the server is away"))
        return commit_beat(*args)

    monkeypatch.setattr(housekeeping.workers, "commit_beat", beat)
    housekeeping.ensure(engine)
    try:
        assert "Housekeeping cannot use the database now (OSError: the server is away)" in caplog.text
        is_back.set()
        eventually(lambda: engine.process_id in registered_processes(engine))
    finally:
        housekeeping.end(engine)


def registered_processes(engine):
    with engine.store.read() as tx:
        return [each.id for each in workers.last_beats(tx)]


def test_an_alarm_elsewhere_does_not_send_the_backlog_again(engine, worker, monkeypatch):
    """A process that does not sweep sends what has just become due, and leaves the rest to the one that does."""
    # So no ETA message is published ahead, as on amqp: the message is published when the wait is due.
    monkeypatch.setattr(eta_budget, "MOST_ETAS", 0)
    old, new = start(nap), start(nap)
    drive(engine, old.id)
    later(engine, 60)
    drive(engine, new.id)
    assert WAKE not in sent(engine, new)
    later(engine, 10)

    sweep.publish_due(engine, engine.now() - engine.settings.sweep_interval)

    assert sent(engine, new) == [WAKE]


def test_of_many_due_times_the_nearest_are_kept(engine, keeper, monkeypatch):
    """Sleeps of days do not take the places of those that end soon."""
    monkeypatch.setattr(housekeeping, "_MOST_DUE_TIMES", 3)
    for due_at in (50, 60, 70, 80, 20, 10):
        keeper.on_due(due_at)

    assert keeper._due_times == [10, 20, 50]


@step(name="sweep.nowhere", queue="sweep.nowhere")
def nowhere() -> int:
    return 1


@workflow(name="sweep.step_nowhere")
async def step_nowhere() -> int:
    return await nowhere()


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_step_that_can_never_be_sent_fails(engine, worker, monkeypatch):
    """Its queue is gone from the app: the next sweep fails it with the reason, and sends its run a turn."""
    run = start(step_nowhere)
    drive(engine, run.id)
    sent(engine, run)
    monkeypatch.setattr(engine.celery.amqp.queues, "create_missing", False)
    engine.celery.amqp.queues.pop("sweep.nowhere", None)
    unsend(engine, schema.steps)

    sweep.sweep(engine)
    assert sent(engine, run) == [DRIVE]
    drive(engine, run.id)

    with pytest.raises(RunFailed, match=r"Queue 'sweep\.nowhere' missing from task_queues"):
        run.result(timeout=1)


def test_a_turn_that_cannot_be_sent_keeps_none_back(engine, worker, monkeypatch, caplog):
    """The queue of its run is gone from the app: the sweep says so, sends the other run's turn, and the run waits."""
    stuck = one_step.with_options(queue="sweep.gone").start()
    other = start(one_step)
    sent(engine, other)
    monkeypatch.setattr(engine.celery.amqp.queues, "create_missing", False)
    engine.celery.amqp.queues.pop("sweep.gone", None)
    unsend(engine, schema.inbox)

    sweep.sweep(engine)

    assert sent(engine, other) == [DRIVE]
    assert stuck.status == "pending"
    assert "Queue 'sweep.gone' missing from task_queues" in caplog.text
