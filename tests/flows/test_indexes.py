"""However many runs have finished, and however long the lists are: runs and sweeps find what they want by indexes."""

from __future__ import annotations

import json

import flask
import pytest
import sqlalchemy as sa
from driving import settle
from servers import DATABASES, new_database

from durable import (
    Request,
    close_stream,
    concurrency,
    continue_as_new,
    create_hook,
    create_schedule,
    create_webhook,
    debounce,
    duration,
    emit,
    rate,
    receiver,
    start,
    start_many,
    step,
    workflow,
)
from durable.client import receive
from durable.client import run_limits as admission
from durable.recovery import broker_sentinel, sweep
from durable.recovery.housekeeping import Housekeeping
from durable.recovery.prune import Place, prune, prune_batch
from durable.schedules import describe
from durable.schedules.fire import fire_due
from durable.store import LimitKey, schedules
from durable.store.schema import run_limits
from durable.web import create_blueprint
from durable.web.stream_source import StreamSource

ROWS = 20_000
FAR = 2**60

#: Numbers from 1 to ROWS, in each database's words.
NUMBERS = {
    "sqlite": f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) SELECT i FROM n",
    "postgresql": f"SELECT i FROM generate_series(1, {ROWS}) AS n(i)",
    "mariadb": f"SELECT seq AS i FROM seq_1_to_{ROWS}",
}
IDS = {"sqlite": "'f' || i", "postgresql": "'f' || i", "mariadb": "CONCAT('f', i)"}

FILL = (
    "INSERT INTO durable_runs (id, name, status, turn, seq, last_at, digest, created_at, completed_at)"
    " SELECT {id}, 'indexes.one', 'completed', 3, 4, i, 'd', i, i FROM ({numbers}) AS m",
    "INSERT INTO durable_events (run_id, seq, at, kind, op_id, phase, data)"
    " SELECT {id}, 1, i, 'run_created', 'r', 'created', '{{}}' FROM ({numbers}) AS m",
    "INSERT INTO durable_hooks (run_id, op_id, name, token, token_hash, created_at, closed_at)"
    " SELECT {id}, 'r#1', 'h', {id}, {id}, i, i FROM ({numbers}) AS m",
    "INSERT INTO durable_requests (id, run_id, op_id, received_at, head, body, answered_at)"
    " SELECT {id}, {id}, 'r#1', i, '{{}}', '', i FROM ({numbers}) AS m",
    "INSERT INTO durable_received (request_id, receiver, received_at, dedupe_key, outcome, run_id)"
    " SELECT {id}, 'indexes.receiver', i, {id}, 'started', {id} FROM ({numbers}) AS m",
    "INSERT INTO durable_inbox (run_id, at, kind, op_id, data, next_send_at, sends)"
    f" SELECT {{id}}, i, 'hook_received', 'r#1', '{{{{}}}}', {FAR} + i, 0 FROM ({{numbers}}) AS m",
    "INSERT INTO durable_waits (run_id, op_id, due_at, next_send_at, sends)"
    f" SELECT {{id}}, 'r#1', {FAR} + i, {FAR} + i, 0 FROM ({{numbers}}) AS m",
    "INSERT INTO durable_steps (run_id, op_id, name, attempt, status, not_before, cancelled, next_send_at, sends)"
    f" SELECT {{id}}, 'r#1', 's', 1, 'pending', 0, {{no}}, {FAR} + i, 0 FROM ({{numbers}}) AS m",
    "INSERT INTO durable_schedules (name, version, workflow, arguments, timing, tz, overlap, catch_up, jitter,"
    " created_at, planned_at, fire_at, is_held, skipped)"
    " SELECT {id}, 1, 'w', '', '{{\"every\": 60000000}}', 'UTC', 'skip', 'last', 0, i,"
    f" {FAR} + i, {FAR} + i, {{no}}, 0 FROM ({{numbers}}) AS m",
    "INSERT INTO durable_schedule_runs (schedule, run_id, planned_at) SELECT {id}, {id}, i FROM ({numbers}) AS m",
    "INSERT INTO durable_step_limits (run_id, op_id, name, {key}, state, ready_at)"
    " SELECT {id}, 'r#1', 'l', {id}, 'waiting', i FROM ({numbers}) AS m",
    "INSERT INTO durable_limit_keys (name, {key}, recovers_at, next_check_at)"
    f" SELECT {{id}}, 'k', 0, {FAR} + i FROM ({{numbers}}) AS m",
    "INSERT INTO durable_run_limits (run_id, name, {key}, state, ready_at, level, on_conflict)"
    " SELECT {id}, 'l', {id}, 'waiting', i, 9, 'queue' FROM ({numbers}) AS m",
    "INSERT INTO durable_run_limit_keys (name, {key}, recovers_at, next_check_at)"
    f" SELECT {{id}}, 'k', 0, {FAR} + i FROM ({{numbers}}) AS m",
    "INSERT INTO durable_streams (run_id, name, next_number, created_at) SELECT {id}, 's', 1, i FROM ({numbers}) AS m",
    "INSERT INTO durable_stream_items (run_id, name, number, at, discards, item)"
    " SELECT {id}, 's', 0, i, {no}, '1' FROM ({numbers}) AS m",
)
TABLES = ("runs", "events", "hooks", "requests", "received", "inbox", "waits", "steps", "schedules", "schedule_runs")
TABLES += ("step_limits", "limit_keys", "run_limits", "run_limit_keys", "streams", "stream_items")
#: The column by which the rows that were filled in are found, where it is not the run.
FILLED = {"runs": "id", "schedules": "name", "limit_keys": "name", "run_limit_keys": "name"}


@step(name="indexes.noop", limits=[concurrency("indexes.limit", 3)])
def noop() -> int:
    return 1


@workflow(name="indexes.one")
async def one() -> int:
    return await noop()


@step(name="indexes.emits")
def emits() -> None:
    for number in range(5):
        emit("s", number, keep=2, on_retry="discard", until="step")


@workflow(name="indexes.emitting")
async def emitting() -> None:
    emit("turns", 1)
    await emits()
    close_stream("turns")


@workflow(
    name="indexes.limited",
    limits=[
        concurrency("indexes.runs", 1, on_conflict="cancel_running"),
        rate("indexes.rate", 1000, per="1s"),
        debounce("indexes.debounce", "1h"),
    ],
)
async def limited(again: bool) -> None:
    if again:
        continue_as_new(False)


received = receiver("indexes.receiver", dedupe="/id")
received.resume(lambda request: request.json()["token"], missing="start")


@received.start
@workflow(name="indexes.received")
async def on_request(request: Request) -> str:
    return await create_hook(token=request.json()["token"])


@workflow(name="indexes.two_generations")
async def two_generations(again: bool = True) -> int:
    payload = await create_webhook(name="indexes", dedupe="X-Id") if again else None
    if again:
        continue_as_new(False)
    return await noop() if payload is None else 0


@pytest.fixture
def database(request, tmp_path):
    """A database of its own: in one that other tests have filled, a planner may rightly read a whole table."""
    with new_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def full(engine):
    """The engine, on a database that has seen many runs and has long lists; they are emptied again."""
    dialect = "mariadb" if engine.store.dialect == "mysql" else engine.store.dialect
    with engine.store.begin() as tx:
        key = "`key`" if dialect == "mariadb" else "key"
        for statement in FILL:
            no = "false" if dialect == "postgresql" else "0"
            tx.exec_driver_sql(statement.format(id=IDS[dialect], numbers=NUMBERS[dialect], no=no, key=key))
    analyze(engine, dialect)
    yield engine
    with engine.store.begin() as tx:
        for table in TABLES:
            column = FILLED.get(table, "run_id")
            tx.execute(sa.text(f"DELETE FROM durable_{table} WHERE {column} LIKE :filled"), {"filled": "f%"})


def analyze(engine, dialect):
    with engine.store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if dialect == "mariadb":
            connection.exec_driver_sql("ANALYZE TABLE " + ", ".join(f"durable_{name}" for name in TABLES)).all()
        else:
            connection.exec_driver_sql("ANALYZE")


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_every_query_of_runs_and_sweeps_uses_an_index(full):
    """The very statements, explained by the database that is to run them: none reads a whole table."""
    asked = {}

    def note(connection, cursor, statement, parameters, context, executemany):
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")) and "durable_" in statement:
            asked[statement] = parameters[0] if executemany else parameters

    # The broker of the test before is not there any more; after such a loss all lists are read as a whole, in pieces.
    while broker_sentinel.check(full):
        pass
    sa.event.listen(full.store.engine, "before_cursor_execute", note)
    keeper = Housekeeping(full)
    keeper.tick()
    continuing = start_many(two_generations, [()], keys=["indexes"])[0]
    settle(full, continuing)
    post(full, continuing)
    settle(full, continuing)
    settle(full, *continuing.generations())
    assert continuing.result(0) == 1
    debounced, again = start(limited, True), start(limited, True)
    assert debounced.id == again.id
    with full.store.begin() as tx:
        tx.execute(sa.update(run_limits).where(run_limits.c.run_id == debounced.id).values(ready_at=0))
    admission.admit(full, [LimitKey(limit.name, "") for limit in limited.limits])
    settle(full, debounced)
    settle(full, *debounced.generations())
    assert debounced.result(0) is None
    run = start(one)
    settle(full, run)
    write_and_read_streams(full)
    every_second = create_schedule("indexes", one, every="1s")
    with full.store.begin() as tx:
        schedules.change(tx, every_second.row(), fire_at=0, planned_at=full.now() // 10**6 * 10**6)
    fire_due(full)
    assert len(every_second.runs()) == 1
    describe.list_schedules(full, limit=10)
    every_second.delete()
    # One starts a run, whose hook the other waits for.
    bodies = [{"id": number, "token": f"indexes:{run.id}"} for number in range(2)]
    requests = [Request(data=json.dumps(body).encode(), id=f"indexes-{body['id']}-{run.id[-40:]}") for body in bodies]
    (first, second) = [receive.accept(full, received, request)[0] for request in requests]
    settle(full, full.get_run(first.run_id))
    assert (first.outcome, second.outcome) == ("started", "waiting")
    assert prune(full, "100000d") == 0
    # The filled runs have work left, and stay; this one goes, of all that have ended in this database.  (For a whole
    # page of so short a list PostgreSQL rather reads all of it.)
    ended_at = duration.from_datetime(run.completed_at)
    assert prune_batch(full, 10).runs == 0
    assert prune_batch(full, ended_at + 1, Place(ended_at - 1, "")).runs == 1
    sweep.reap_dead_workers(full, beating_since=full.now() - 10**9)
    keeper.tick()
    keeper._unregister()
    sa.event.remove(full.store.engine, "before_cursor_execute", note)

    assert len(asked) > 30
    whole = {statement: found for statement, args in asked.items() if (found := scans(full, statement, args))}
    assert whole == {}


def write_and_read_streams(engine):
    """As a program, and as the followers of a web process."""
    run = start(emitting)
    settle(engine, run)
    assert (list(run.stream("s")), list(run.stream("turns"))) == ([3, 4], [1])
    news = StreamSource(engine).news({(run.id, name): 0 for name in ("s", "turns")})
    assert [len(each.items) for each in news.values()] == [2, 1]


def post(engine, run):
    """A request to the run's webhook."""
    app = flask.Flask("indexes")
    app.register_blueprint(create_blueprint(engine))
    path = run.hooks()[0]["url"].removeprefix("https://hooks.test")
    assert app.test_client().post(path, data=b"", headers={"X-Id": "1"}).status_code == 202


def scans(engine, statement, parameters):
    """The tables of many rows that the database would read as a whole for this statement."""
    with engine.store.engine.connect() as connection:
        if engine.store.dialect == "sqlite":
            plan = [row.detail for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)]
            return [line for line in plan if line.startswith("SCAN durable_") and is_long(line.split()[1])]
        if engine.store.dialect == "postgresql":
            plan = connection.exec_driver_sql("EXPLAIN (FORMAT JSON) " + statement, parameters).scalar_one()
            return [node for node in nodes(plan[0]["Plan"]) if is_long(node)]
        rows = connection.exec_driver_sql("EXPLAIN " + statement, parameters).mappings().all()
        return [row["table"] for row in rows if row["type"] in ("ALL", "index") and is_long(row["table"])]


def nodes(plan):
    """The tables that a plan of PostgreSQL reads without a condition on an index."""
    found = [plan["Relation Name"]] if plan.get("Relation Name") and "Index Cond" not in json.dumps(plan) else []
    return [*found, *(name for part in plan.get("Plans", ()) for name in nodes(part))]


def is_long(table):
    return table is not None and table.removeprefix("durable_") in TABLES
