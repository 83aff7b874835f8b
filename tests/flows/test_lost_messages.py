"""A message that is lost is sent again; one that only waits its turn is not, however long it waits."""

from __future__ import annotations

import asyncio
from contextlib import closing
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from celery import Celery
from kombu import Exchange, Queue
from servers import DATABASES, migrate

from durable import Durable, sleep, start, step, workflow
from durable.broker import eta_budget
from durable.broker.dispatcher import DRIVE, WAKE
from durable.measures import MESSAGES_LOST
from durable.recovery import broker_sentinel, sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import schema
from durable.turns.drive import drive

SERVERS = ("redis", "rabbitmq")
#: Seconds that exceed every delay after which a sweep acts.
VERY_LATE = 3600


@step(name="lost.noop")
def noop() -> int:
    return 1


@workflow(name="lost.many")
async def many(number: int) -> None:
    await asyncio.gather(*(noop() for _ in range(number)))


@workflow(name="lost.one")
async def one() -> int:
    return await noop()


@workflow(name="lost.urgent", priority=5)
async def urgent() -> int:
    return await noop()


@step(name="lost.later", priority=9)
def later_than_others() -> int:
    return 1


@workflow(name="lost.urgent_nap", priority=5)
async def urgent_nap() -> None:
    await asyncio.gather(sleep("1s"), later_than_others(), noop())


@workflow(name="lost.nap")
async def nap() -> None:
    await sleep("60s")


@pytest.fixture
def site(database, broker):
    """An engine on a broker that is a server, where this process is registered as one that runs steps."""
    celery = Celery("lost", broker=broker)
    # Every step has a message.
    engine = Durable(celery, database_url=database, public_url="https://hooks.test", continuation=0)
    migrate(engine)
    keeper = Housekeeping(engine)
    keeper._beat()
    yield engine
    keeper._unregister()
    engine.close()


def later(engine, seconds):
    """Let the engine's clock be *seconds* ahead."""
    offset, measured = engine.store._clock
    engine.store._clock = (offset + int(seconds * 1_000_000), measured + VERY_LATE)


def length(engine):
    """How many messages wait in the default queue."""
    return engine.dispatch.broker.length("celery")


def take(engine, name):
    """Take the first message of a task from the queue, as a worker does; those before it are put aside."""
    source = engine.celery.amqp.queues[engine.celery.conf.task_default_queue]
    with engine.celery.connection_for_read() as connection, closing(connection.SimpleQueue(source)) as queue:
        while True:
            message = queue.get(timeout=20)
            message.ack()
            if message.headers["task"] == name:
                return message


def note(engine, message):
    """This process has taken a message, and says so with its beat."""
    info = {**message.delivery_info, "priority": message.properties.get("priority")}
    engine.progress.note(SimpleNamespace(headers=message.headers, delivery_info=info))
    Housekeeping(engine)._beat()


@pytest.mark.live
@pytest.mark.parametrize(("broker", "number"), [("redis", 10_000), ("rabbitmq", 1_000)], indirect=["broker"])
def test_ten_thousand_steps_that_wait_for_a_worker_are_sent_once(site, number):
    """A long queue is no loss: hours of sweeps send nothing again."""
    run = start(many, number)
    drive(site, run.id)
    assert length(site) == number + 1

    for _ in range(5):
        later(site, VERY_LATE)
        sweep.sweep(site)

    assert length(site) == number + 1


@pytest.mark.live
@pytest.mark.parametrize("broker", SERVERS, indirect=True)
def test_what_was_overtaken_in_its_queue_is_lost(site):
    """One that was sent long after it was taken, and it was not: it is sent again, the others still wait."""
    lost = start(one)
    take(site, DRIVE)
    later(site, 6)
    start(one)
    later(site, 6)
    start(one)

    note(site, take(site, DRIVE))
    waiting = length(site)
    later(site, 6)
    sweep.sweep(site)

    assert length(site) == waiting + 1
    while (message := take(site, DRIVE)).payload[0] != [lost.id]:
        assert message


@pytest.mark.live
@pytest.mark.parametrize("broker", SERVERS, indirect=True)
def test_what_has_a_priority_is_not_lost_because_others_overtake_it(site):
    """Only one of its own priority tells that it is lost, or the empty queue."""
    start(urgent)
    later(site, 6)
    start(one)
    later(site, 6)
    overtake(site, 0)

    sweep.sweep(site)
    assert length(site) == 3, "only the one without a priority was sent again"

    later(site, 6)
    overtake(site, 5)
    sweep.sweep(site)
    assert length(site) == 4

    site.celery.control.purge()
    later(site, 60)
    sweep.sweep(site)
    assert length(site) == 2


def overtake(engine, priority, queue="celery"):
    """This process has just taken a message of this priority that was sent now, and says so with its beat."""
    engine.progress._latest[queue, priority] = engine.now()
    Housekeeping(engine)._beat()


@pytest.mark.live
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_the_priorities_of_steps_and_eta_messages_count_too(site):
    """A step has its own priority, and the end of a sleep has its run's."""
    run = start(urgent_nap)
    drive(site, run.id)
    site.celery.control.purge()
    start(one)
    later(site, 12)

    sent = []
    for priority in (0, 5, 9):
        overtake(site, priority)
        sweep.sweep(site)
        sent.append(sorted(names(site, run)))
        later(site, 1)

    assert sent == [["lost.noop"], ["durable.wake"], ["lost.later"]]


def names(engine, run):
    """The tasks of this run's messages in the queue, which keeps one that nobody takes."""
    found = []
    with engine.celery.connection_for_read() as connection, closing(connection.SimpleQueue("celery")) as queue:
        while length(engine):
            message = queue.get(block=False)
            message.ack()
            found += [message.headers["task"]] if run.id in f"{message.headers} {message.payload}" else []
        queue.put("one that nobody takes")
    return found


@pytest.mark.live
@pytest.mark.parametrize("broker", SERVERS, indirect=True)
def test_a_queue_is_told_by_its_name_and_not_by_its_routing_key(site):
    """Where both differ, what was overtaken is found all the same."""
    site.celery.conf.task_default_queue = "lost"
    site.celery.conf.task_queues = [Queue("lost", Exchange("elsewhere"), "by.another.name")]
    lost = start(one)
    take(site, DRIVE)
    later(site, 6)
    start(one)
    later(site, 6)
    start(one)

    note(site, take(site, DRIVE))
    later(site, 6)
    sweep.sweep(site)

    while (message := take(site, DRIVE)).payload[0] != [lost.id]:
        assert message


@pytest.mark.live
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_queue_that_cannot_be_looked_at_is_not_taken_for_an_empty_one(site, monkeypatch):
    """Where the broker does not say how long it is, what waits in it is lost only after a very long time."""
    monkeypatch.setattr(site.dispatch.broker, "length", lambda queue: None)
    sent = [start(one), start(one)]

    later(site, 60)
    sweep.sweep(site)
    assert resent(site, sent) == [0, 0]

    later(site, 600)
    sweep.sweep(site)
    assert resent(site, sent) == [1, 1]


def resent(engine, runs):
    """How often the turn of each of these runs was sent again."""
    with engine.store.read() as tx:
        return [tx.execute(sa.select(schema.inbox.c.sends).filter_by(run_id=run.id)).scalar_one() for run in runs]


@pytest.mark.live
@pytest.mark.parametrize("broker", SERVERS, indirect=True)
def test_a_broker_that_has_lost_its_memory_is_sent_everything_again(site):
    """The sentinel is gone with the rest: nothing waits until it is overdue."""
    broker_sentinel.check(site)
    runs = [start(one) for _ in range(3)]
    drive(site, runs[0].id)
    before = length(site)
    broker_sentinel.check(site)
    sweep.sweep(site)
    assert length(site) == before

    forget(site)
    broker_sentinel.check(site)
    sweep.sweep(site)
    assert length(site) == 3, "a step and two turns"

    broker_sentinel.check(site)
    sweep.sweep(site)
    assert length(site) == 3
    lost = {kind: count for (name, kind, _), count in site.measures.take().items() if name == MESSAGES_LOST.name}
    assert lost == {"step": 1, "turn": 2}


@pytest.mark.live
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_broker_that_keeps_no_sentinel_is_not_sent_everything_again_and_again(site, monkeypatch):
    """Without the sentinel's queue, durable loses the early warning of lost messages, and nothing else."""
    broker_sentinel.check(site)
    start(one)
    forget(site)
    start(one)
    monkeypatch.setattr(site.dispatch.broker, "keep", lambda queue: False)

    for _ in range(3):
        broker_sentinel.check(site)
        sweep.sweep(site)

    assert length(site) == 1


@pytest.mark.live
@pytest.mark.parametrize(
    ("broker", "database"), [("redis", kind) for kind in DATABASES], indirect=["broker", "database"]
)
def test_a_long_list_of_lost_messages_is_gone_through_in_pieces(site, monkeypatch):
    """Each transaction is short; if a process dies in between, the next one goes on; each message is sent once more."""
    monkeypatch.setattr(broker_sentinel, "BATCH", 7)
    with site.store.begin() as tx:
        for table in (schema.steps, schema.waits, schema.inbox, schema.leases, schema.broker_sentinel):
            tx.execute(sa.delete(table))
    broker_sentinel.check(site)
    run = start(many, 50)
    drive(site, run.id)
    forget(site)
    monkeypatch.setattr(broker_sentinel, "CHECK_LIMIT", -1)
    assert broker_sentinel.check(site)
    assert unsent(site, run) == 0

    monkeypatch.setattr(site.store, "write", failing_after(site.store.write, 3))
    monkeypatch.setattr(broker_sentinel, "CHECK_LIMIT", 10**9)
    with pytest.raises(InterruptedError):
        broker_sentinel.check(site)
    assert unsent(site, run) == 3 * 7
    monkeypatch.undo()
    sweep.sweep(site)
    assert unsent(site, run) == 0

    assert not broker_sentinel.check(site)
    assert unsent(site, run) == 50 - 3 * 7
    sweep.sweep(site)
    broker_sentinel.check(site)
    sweep.sweep(site)
    assert length(site) == 50


def unsent(engine, run):
    """How many steps of a run count as not sent."""
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(schema.steps)
        return tx.execute(query.filter_by(run_id=run.id, sent_at=None)).scalar_one()


def failing_after(write, times):
    """``Store.write`` of a process that dies after so many."""
    left = [times]

    def write_or_die(act):
        left[0] -= 1
        if left[0] < 0:
            raise InterruptedError
        return write(act)

    return write_or_die


def forget(engine):
    """The broker loses every message."""
    with engine.store.read() as tx:
        name = tx.execute(sa.select(schema.broker_sentinel.c.name)).scalar_one()
    with engine.celery.connection_for_write() as connection, connection.channel() as channel:
        for queue in ("celery", f"durable.sentinel.{name}"):
            channel.queue_purge(queue)


@pytest.mark.live
@pytest.mark.parametrize("broker", SERVERS, indirect=True)
def test_a_database_that_has_known_no_sentinel_sends_nothing_again(site):
    """The first look ever puts it there; what waits is not known to be lost."""
    start(one)

    broker_sentinel.check(site)
    sweep.sweep(site)

    assert length(site) == 1


def eta_messages(engine, runs):
    """Empty the queue; returns the number of these runs' ETA messages."""
    found = 0
    with engine.celery.connection_for_read() as connection, closing(connection.SimpleQueue("celery")) as queue:
        while len(queue):
            message = queue.get(block=False)
            message.ack()
            found += message.headers["task"] == WAKE and message.payload[0][0] in {run.id for run in runs}
    return found


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_no_more_eta_messages_are_published_than_the_limit(engine, monkeypatch):
    """Messages over the limit are published when they are due, and not before."""
    monkeypatch.setattr(eta_budget, "MOST_ETAS", 3)
    keeper = Housekeeping(engine)
    keeper._beat()
    for _ in range(3):
        drive(engine, start(nap).id)

    runs = [start(nap) for _ in range(4)]
    for run in runs:
        drive(engine, run.id)
    sweep.sweep(engine)
    assert eta_messages(engine, runs) == 0

    later(engine, 60.5)
    sweep.sweep(engine)
    assert eta_messages(engine, runs) == 4
    keeper._unregister()


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_sleep_that_comes_near_when_workers_are_full_is_looked_at_when_it_is_due(engine, monkeypatch):
    """It is put off, or each sweep would find it again and again."""
    monkeypatch.setattr(eta_budget, "MOST_ETAS", 0)
    keeper = Housekeeping(engine)
    run = start(nap)
    drive(engine, run.id)
    mine = schema.waits.c.run_id == run.id
    with engine.store.begin() as tx:
        tx.execute(sa.update(schema.waits).where(mine).values(next_send_at=1, sent_at=None))
    keeper._beat()

    sweep.sweep(engine)

    with engine.store.read() as tx:
        row = tx.execute(sa.select(schema.waits).where(mine)).one()
    assert row.next_send_at == row.due_at
    keeper._unregister()
