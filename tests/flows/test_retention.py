"""Retention: runs that ended long ago go with all that is theirs; what anybody still needs stays."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, settle, settle_family
from flask.testing import FlaskClient

from durable import (
    Durable,
    Request,
    Response,
    Run,
    create_hook,
    create_webhook,
    registry,
    set_attributes,
    sleep,
    step,
    workflow,
)
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.errors import RunNotFound
from durable.recovery.housekeeping import Housekeeping
from durable.recovery.prune import EVENTS, RUNS, Pruned, prune, prune_batch
from durable.store.schema import metadata, runs
from durable.turns.drive import drive
from durable.web import create_blueprint


@step
def reply(request: Request) -> str:
    request.respond_with(Response(b"done", 201))
    return request.text()


@workflow
async def one_request() -> str:
    set_attributes(kind="one")
    async for request in create_webhook(respond_with="manual", timeout=0, dedupe="X-Id"):
        return await reply(request)
    return ""


@workflow
async def quick(value: int = 0) -> int:
    return value


@workflow
async def asleep() -> None:
    await sleep("1h")


@workflow
async def listening(token: str) -> str:
    return str(await create_hook(token=token))


@workflow
async def child(token: str) -> str:
    return str(await create_hook(token=token))


@workflow
async def careless(token: str) -> None:
    # Called and not awaited: the child goes on when this run is over.
    child(token)
    await create_hook(token="careless")


@step
def pass_on(request: Request, token: str) -> str:
    return str(reader.start(request, token).id)


@workflow
async def passing_on(token: str) -> str:
    async for request in create_webhook():
        return await pass_on(request, token)
    return ""


@workflow
async def reader(request: Request, token: str) -> str:
    await create_hook(token=token)
    return request.text()


started = threading.Event()
let_go = threading.Event()


@step
def long() -> int:
    started.set()
    assert let_go.wait(20)
    return 1


@workflow
async def hasty() -> int:
    long()
    await create_hook(token="hasty")
    return 0


@pytest.fixture
def client(engine: Durable) -> FlaskClient:
    app = flask.Flask("retention")
    app.register_blueprint(create_blueprint(engine))
    return app.test_client()


@pytest.fixture(autouse=True)
def _empty(engine: Durable) -> None:
    """Tests on one server share a database: what others left would be pruned with ours."""
    with engine.store.begin() as tx:
        for table in metadata.sorted_tables:
            tx.execute(sa.delete(table))


def path_of(run: Run[Any]) -> str:
    return str(run.hooks()[0]["url"]).removeprefix("https://hooks.test")


def prune_all(engine: Durable) -> int:
    """Prune whatever has ended by now."""
    batch = prune_batch(engine, engine.now() + 1_000_000)
    assert batch.next is None
    return batch.runs


def rows_of(engine: Durable, run_id: str) -> dict[str, int]:
    """By table, how many rows a run has."""
    found = {}
    with engine.store.read() as tx:
        for table in metadata.sorted_tables:
            column = table.c.id if table is runs else table.c.get("run_id")
            if column is not None:
                query = sa.select(sa.func.count()).select_from(table).where(column == run_id)
                found[table.name] = int(tx.execute(query).scalar_one())
    return {name: count for name, count in found.items() if count}


@all_databases()
def test_an_ended_run_goes_with_all_that_is_its_own(engine, client):
    """No row of it is left in any table; another run, which waits for the same, keeps each of its own."""
    run, other = engine.start(one_request), engine.start(one_request)
    settle(engine, run, other)
    client.post(path_of(run), data=b"a", headers={"X-Id": "1"})
    client.post(path_of(other), data=b"a", headers={"X-Id": "1"})
    settle(engine, run)
    before = rows_of(engine, other.id)
    assert {"durable_requests", "durable_hooks", "durable_events", "durable_attributes"} < set(rows_of(engine, run.id))

    assert prune_all(engine) == 1

    assert (rows_of(engine, run.id), run.exists) == ({}, False)
    assert rows_of(engine, other.id) == before
    settle(engine, other)
    assert other.result(0) == "a"


@all_databases()
def test_a_sender_finds_nothing_any_more(engine, client):
    """Before, a repeated request gets its answer again and another one 410; afterwards both, and the poll, are 404."""
    run = engine.start(one_request)
    settle(engine, run)
    path = path_of(run)
    poll = client.post(path, data=b"a", headers={"X-Id": "1"}).headers["Location"].removeprefix("https://hooks.test")
    settle(engine, run)

    def statuses() -> list[int]:
        again = client.post(path, data=b"a", headers={"X-Id": "1"})
        return [again.status_code, client.post(path, data=b"b").status_code, client.get(poll).status_code]

    assert statuses() == [201, 410, 201]
    prune_all(engine)
    assert statuses() == [404, 404, 404]


@all_databases()
def test_what_has_not_ended_never_goes(engine):
    """Pending, running and blocked runs stay, however old they are."""
    pending, running, blocked = (engine.start(asleep) for _ in range(3))
    settle(engine, running)
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).where(runs.c.id == blocked.id).values(status="blocked"))

    assert prune_batch(engine, 2**62) == Pruned(0, None)

    assert [run.status for run in (pending, running, blocked)] == ["pending", "running", "blocked"]


@all_databases()
def test_a_run_whose_step_still_runs_stays(engine):
    """Its outcome is recorded after the run's end; then the run goes."""
    started.clear()
    let_go.clear()
    run = engine.start(hasty)
    drive(engine, run.id)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            attempt, engine, registry.steps["test_retention.long"], Address(run.id, "r#1", 1), None
        )
        assert started.wait(10)
        engine.resume_hook("hasty", None)
        drive(engine, run.id)
        assert (run.status, prune_all(engine)) == ("completed", 0)
        let_go.set()
        running.result(10)
    drive(engine, run.id)

    assert prune_all(engine) == 1


@all_databases()
def test_a_parent_stays_as_long_as_a_child_of_it(engine):
    """The child's end is news for its parent; afterwards both go at once."""
    parent = engine.start(careless, "of-child")
    settle_family(engine, parent)
    engine.resume_hook("careless", None)
    settle(engine, parent)
    assert (parent.status, prune_all(engine)) == ("completed", 0)

    called = engine.resume_hook("of-child", None)
    settle(engine, called, parent)

    assert (called.status, prune_all(engine)) == ("completed", 2)


@all_databases()
def test_a_child_goes_before_a_parent_that_goes_on(engine):
    """A run that calls others for years does not keep them; it goes on from its own log."""
    parent = engine.start(careless, "of-child")
    settle_family(engine, parent)
    called = engine.resume_hook("of-child", "payload")
    settle(engine, called, parent)

    assert (prune_all(engine), called.exists) == (1, False)

    engine.resume_hook("careless", None)
    settle(engine, parent)
    assert parent.status == "completed"


@all_databases()
def test_a_request_stays_as_long_as_a_run_that_it_was_given_to(engine, client):
    """A run that was started with another run's request can read it until it ends."""
    giver = engine.start(passing_on, "reader")
    settle(engine, giver)
    client.post(path_of(giver), data=b"precious")
    settle(engine, giver)
    taker = engine.get_run(giver.result(0))
    settle(engine, taker)
    assert (giver.status, prune_all(engine)) == ("completed", 0)

    engine.resume_hook("reader", None)
    settle(engine, taker)

    assert taker.result(0) == "precious"
    assert prune_all(engine) == 2
    assert rows_of(engine, taker.id) == {}


@all_databases()
def test_an_idempotency_key_is_free_again(engine):
    """Until its run is gone the key returns that run; then it starts a new one, with other arguments too."""
    first = quick.with_options(idempotency_key="order-1").start(1)
    settle(engine, first)
    assert quick.with_options(idempotency_key="order-1").start(1).id == first.id

    prune_all(engine)

    assert quick.with_options(idempotency_key="order-1").start(2).id != first.id


@all_databases()
def test_only_what_is_older_goes(engine):
    """`prune` goes by the end of runs, and takes a duration as `sleep` does."""
    old, young = engine.start(quick), engine.start(quick)
    settle(engine, old, young)
    with engine.store.begin() as tx:
        tx.execute(sa.update(runs).where(runs.c.id == old.id).values(completed_at=engine.now() - 3_601_000_000))

    assert [prune(engine, "2h"), prune(engine, timedelta(hours=1)), prune(engine, "1h")] == [0, 1, 0]
    assert (old.exists, young.exists) == (False, True)


def fill(engine: Durable, count: int, events: int = 1, ended_at: int = 1000) -> None:
    """Rows of runs that have ended, at the same moment, and say that they have so many events."""
    row = {"name": "gone", "status": "completed", "turn": 1, "seq": events, "last_at": 1, "digest": "d"}
    with engine.store.begin() as tx:
        tx.execute(
            sa.insert(runs),
            [row | {"id": f"r{i:05}", "created_at": 1, "completed_at": ended_at} for i in range(count)],
        )


@all_databases()
@pytest.mark.parametrize(
    ("count", "events", "sizes"),
    [(2 * RUNS + 1, 1, [RUNS, RUNS, 1]), (2 * RUNS, 1, [RUNS, RUNS, 0]), (3, EVENTS - 1, [1, 1, 1])],
)
def test_transactions_are_bounded(engine, count, events, sizes):
    """By runs, and by the events that they have; each run is met once, though many ended at one moment."""
    fill(engine, count, events)
    batches = [prune_batch(engine, 2**62)]
    while batches[-1].next is not None:
        batches.append(prune_batch(engine, 2**62, batches[-1].next))

    assert [batch.runs for batch in batches] == sizes


def test_those_that_stay_hold_up_nobody(engine):
    """The pages go past runs that are kept."""
    fill(engine, RUNS + 1)
    with engine.store.begin() as tx:
        tx.execute(
            sa.insert(metadata.tables["durable_references"]),
            [{"owner_run_id": f"r{i:05}", "run_id": "open"} for i in range(RUNS)],
        )
        tx.execute(sa.insert(runs), [{"id": "open", "status": "running", "name": "o", "digest": "d"} | NUMBERS])

    assert prune(engine, 0) == 1
    assert prune(engine, 0) == 0


NUMBERS = {"turn": 1, "seq": 1, "last_at": 1, "created_at": 1}


@all_databases()
def test_two_that_prune_at_once_share_the_work(engine):
    """Each run is deleted by one of them, and none of them fails."""
    fill(engine, 5 * RUNS)
    with ThreadPoolExecutor(3) as threads:
        pruned = [f.result() for f in [threads.submit(prune, engine, 0) for _ in range(3)]]

    assert sum(pruned) + prune(engine, 0) == 5 * RUNS


def test_housekeeping_prunes_when_told_for_how_long_to_keep_runs(database, engine):
    """One batch a round, from where it was; without the setting nothing is deleted."""
    fill(engine, 2 * RUNS + 1)
    Housekeeping(engine).tick()
    assert len(engine_runs(engine)) == 2 * RUNS + 1

    tidy = Durable(Celery("tidy", broker="memory://"), database_url=database, retention="30d")
    young = tidy.start(quick)
    settle(tidy, young)
    keeper = Housekeeping(tidy)
    left = []
    for _ in range(3):
        # The other's lease is over.
        with engine.store.begin() as tx:
            tx.execute(sa.delete(metadata.tables["durable_leases"]))
        keeper.tick()
        left.append(len(engine_runs(engine)))
    keeper.stop()
    tidy.close()

    assert left == [RUNS + 2, 2, 1]
    with pytest.raises(RunNotFound):
        _ = engine.get_run("r00000").status


def engine_runs(engine: Durable) -> list[str]:
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(runs.c.id)).scalars())
