"""A message of an unknown name goes to a worker that knows the name, and waits if there is none."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from servers import DATABASES

from durable import Durable, Run, registry, start, step, workflow
from durable.broker.dispatcher import DRIVE, HEADER
from durable.measures import MESSAGES_FORWARDED
from durable.recovery import sweep
from durable.store import schema, workers
from durable.store.workers import Worker
from durable.turns import forward_attempt
from durable.turns.drive import drive


@step(name="forwarding.noop", queue="forwarding.own")
def noop() -> int:
    return 1


@workflow(name="forwarding.one_step")
async def one_step() -> int:
    return await noop()


@pytest.fixture
def old_code(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes this process forget the workflow and the step: the code of before the deploy."""

    def forget() -> None:
        monkeypatch.delitem(registry.workflows, one_step.name)
        monkeypatch.delitem(registry.steps, noop.name)

    return forget


@pytest.fixture
def beat(engine: Durable) -> Iterator[Callable[[list[str] | None], None]]:
    """Beats as a worker with the new code that takes from these queues; the worker is gone afterwards."""
    worker_id = secrets.token_hex(8)

    def send(queues: list[str] | None) -> None:
        row = Worker(
            id=worker_id,
            host="elsewhere",
            boot_id="b",
            pid=1,
            pid_started=1,
            started_at=0,
            beat_at=0,
            names=json.dumps([noop.name, one_step.name]),
            queues=None if queues is None else json.dumps(queues),
        )
        with engine.store.begin() as tx:
            workers.beat(tx, row, engine.store.sql_now)

    yield send
    with engine.store.begin() as tx:
        workers.remove(tx, worker_id)


def taken(engine: Durable, run: Run[Any], queue: str = "celery") -> list[tuple[str, dict[str, Any]]]:
    """The run's messages in a queue, each by its task and our header; all that are there are taken out."""
    found = []
    with engine.celery.connection_for_read() as connection:
        simple = connection.SimpleQueue(queue)
        while len(simple):
            message = simple.get(block=False)
            if run.id in f"{message.headers} {message.payload}":
                found.append((message.headers["task"], message.headers[HEADER]))
            message.ack()
        simple.close()
    return found


def forwarded(engine: Durable) -> int:
    return sum(count for (name, *_), count in engine.measures.take().items() if name == MESSAGES_FORWARDED.name)


def send_times(engine: Durable, table: sa.Table) -> list[Any]:
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(table.c.sent_at)).scalars())


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_turn_goes_on_to_a_worker_of_its_queue(engine, old_code, beat):
    """At once, with the number of hops, and without a write."""
    run = start(one_step)
    taken(engine, run)
    old_code()
    beat(["celery"])
    before = send_times(engine, schema.inbox)

    drive(engine, run.id, hops=2)

    ((task, header),) = taken(engine, run)
    assert (task, header["hops"]) == (DRIVE, 3)
    assert (forwarded(engine), send_times(engine, schema.inbox)) == (1, before)


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_step_goes_on_in_its_own_queue_that_only_the_new_code_names(engine, old_code, beat):
    """The row has the queue; a second delivery, after the attempt was claimed or cancelled, sends nothing."""
    run = start(one_step)
    drive(engine, run.id)
    ((_, sent),) = taken(engine, run, "forwarding.own")
    old_code()
    beat(["forwarding.own"])

    forward_attempt(engine, run.id, sent["op"], sent["attempt"], 0)
    ((task, header),) = taken(engine, run, "forwarding.own")
    assert (task, header["op"], header["hops"], header["queue"]) == (noop.name, sent["op"], 1, "forwarding.own")

    forward_attempt(engine, run.id, sent["op"], sent["attempt"] + 1, 0)
    assert taken(engine, run, "forwarding.own") == []


def test_what_waits_before_a_hop_is_not_taken_for_lost(engine, old_code, beat):
    """Its row says when it is sent, and the end of the process sends it at once."""
    run = start(one_step)
    taken(engine, run)
    old_code()
    beat(None)
    now = engine.now()

    drive(engine, run.id, hops=21)
    assert taken(engine, run) == []
    ((sent_at,)) = send_times(engine, schema.inbox)
    assert now + 400_000 < sent_at < now + 5_000_000

    engine.later.close()
    assert [header["hops"] for _, header in taken(engine, run)] == [22]


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_name_that_no_worker_knows_waits_for_the_first_beat_of_one(engine, old_code, beat):
    """Not for the delay of a lost message."""
    run = start(one_step)
    taken(engine, run)
    old_code()
    drive(engine, run.id)
    for _ in range(3):
        sweep.sweep(engine)
    assert (taken(engine, run), forwarded(engine)) == ([], 0)

    beat(["celery"])
    sweep.sweep(engine)
    assert [task for task, _ in taken(engine, run)] == [DRIVE]


def test_a_name_that_only_another_queues_workers_know_is_left_to_the_sweep(engine, old_code, beat):
    """Two programs that share a queue by mistake do not send each other's messages round."""
    run = start(one_step)
    taken(engine, run)
    old_code()
    beat(["another"])
    before = send_times(engine, schema.inbox)

    drive(engine, run.id)

    assert (taken(engine, run), forwarded(engine)) == ([], 0)
    assert send_times(engine, schema.inbox) == before
