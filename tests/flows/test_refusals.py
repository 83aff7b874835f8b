"""What is refused, and what only waits: each with a clear error, and nothing half-written."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, kinds, settle

from durable import (
    Durable,
    HookNotFound,
    RunFailed,
    RunNotFound,
    SchemaOutOfDate,
    SerializationError,
    create_webhook,
    events,
    registry,
    sleep,
    start,
    step,
    workflow,
)
from durable.client import operate
from durable.store import run_log
from durable.store.outbox import SendTimes
from durable.store.schema import runs
from durable.turns.drive import drive


@step
def echo(value: Any) -> Any:
    return value


@workflow
async def echoes(value: Any) -> Any:
    return await echo(value)


@workflow
async def listens() -> Any:
    return await create_webhook()


@pytest.fixture
def other(database: str) -> Iterator[Any]:
    """Makes engines on the same database with other settings; they are closed afterwards."""
    made: list[Durable] = []

    def make(broker: str = "memory://", **settings: Any) -> Durable:
        celery = Celery(f"test-{secrets.token_hex(4)}", broker=broker)
        made.append(Durable(celery, database_url=database, **settings))
        return made[-1]

    yield make
    for engine in made:
        engine.celery.close()
        engine.close()


@all_databases()
def test_a_broker_that_is_down_delays_a_start_and_loses_nothing(engine, other):
    """The run is committed, and a later turn completes it."""
    offline = other("redis://127.0.0.1:1/0")

    run = offline.start(echoes, "kept")

    assert run.status == "pending"
    same = engine.get_run(run.id)
    settle(engine, same)
    assert same.result() == "kept"


@all_databases()
def test_a_workflow_that_this_worker_does_not_know_is_left_alone(engine, monkeypatch):
    """Nothing changes; a worker that knows it goes on."""
    run = engine.start(echoes, 1)
    known = dict(registry.workflows)
    monkeypatch.delitem(registry.workflows, echoes.name)
    drive(engine, run.id)
    assert run.status == "pending"

    monkeypatch.setitem(registry.workflows, echoes.name, known[echoes.name])
    settle(engine, run)
    assert run.result() == 1


def test_c29_an_argument_that_cannot_cross_starts_nothing(engine):
    """The error names the path to it, and no row is written."""
    with pytest.raises(SerializationError, match=r"value\.items\[1\]|value\['items'\]\[1\]"):
        engine.start(echoes, {"items": [1, object()]})

    with engine.store.read() as tx:
        assert tx.execute(sa.select(runs)).all() == []


def test_arguments_that_do_not_fit_start_nothing(engine):
    """As a call of the function would say."""
    with pytest.raises(TypeError, match="value"):
        engine.start(echoes)
    with pytest.raises(TypeError, match="@workflow"):
        engine.start(echo, 1)
    with pytest.raises(TypeError, match="colour"):
        echoes.with_options(colour="red")


def test_a_webhook_without_a_public_url_names_the_setting(engine, other):
    """The run is blocked where it asks for the webhook, says what to set, and goes on once it is set."""
    unset = other()
    run = unset.start(listens)
    settle(unset, run)

    assert run.status == "blocked"
    with pytest.raises(TimeoutError, match=r"ConfigurationError: .*public_url"):
        run.result(timeout=0)
    operate.retry(engine, run.id)
    settle(engine, run)
    assert run.status == "running"


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_server_database_is_never_migrated_silently(database):
    """An engine on an old schema refuses, naming the command, and leaves the database as it was."""
    admin = sa.create_engine(sa.make_url(database).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    schema = f"empty_{secrets.token_hex(4)}"
    with admin.begin() as tx:
        tx.exec_driver_sql(f"CREATE SCHEMA {schema}")
    engine = Durable(Celery("empty", broker="memory://"), database_url=f"{database}?options=-csearch_path%3D{schema}")
    try:
        with pytest.raises(SchemaOutOfDate, match="durable migrate"):
            engine.start(echoes, 1)
        assert sa.inspect(admin).get_table_names(schema=schema) == []
    finally:
        engine.close()
        with admin.begin() as tx:
            tx.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")


def test_c69_an_unknown_run_is_told_when_it_is_looked_at(engine):
    """Asking for it does no I/O and never raises; its properties do."""
    run = engine.get_run("no-such-run")
    assert run.exists is False
    for look in (lambda: run.status, run.result, run.cancel, run.events, run.hooks):
        with pytest.raises(RunNotFound, match="no-such-run"):
            look()


def test_c50_an_unknown_token_is_told(engine):
    """Whatever it looks like."""
    for token in ("nobody", "a\0b", "x" * 5000, "\U0001f600"):
        with pytest.raises(HookNotFound):
            engine.resume_hook(token, 1)


@workflow
async def misbehaves(how: str) -> Any:
    if how == "start":
        return start(echoes, 1)
    if how == "sleep":
        return await sleep("-1s")
    return await echo(object())


@pytest.mark.parametrize(("how", "error"), [("sleep", "ValueError"), ("value", "SerializationError")])
def test_a_value_that_a_call_refuses_fails_the_run(engine, how, error):
    """The error comes up where the workflow did it, and the run ends."""
    run = engine.start(misbehaves, how)
    settle(engine, run)

    with pytest.raises(RunFailed, match=error):
        run.result()
    assert kinds(run)[-1] == "run_failed"


def test_a_call_that_a_workflow_may_not_make_blocks_the_run(engine):
    """It is a mistake in the code."""
    run = engine.start(misbehaves, "start")
    settle(engine, run)

    assert run.status == "blocked"
    with pytest.raises(TimeoutError, match="NonDeterministicCall"):
        run.result(timeout=0)


class NoError(BaseException):
    """Something that is thrown and is no Exception."""


@workflow
async def goes_wrong(how: str) -> Any:
    if how == "other":
        raise NoError("thrown")
    if how == "result":
        return object()
    raise LookupError("mine")


@pytest.mark.parametrize(
    ("how", "error"), [("error", "LookupError"), ("other", "NoError"), ("result", "SerializationError")]
)
def test_c106_what_the_author_threw_fails_the_run(engine, how, error):
    """Errors and other things thrown alike: status failed, and the class by name."""
    run = engine.start(goes_wrong, how)
    settle(engine, run)

    assert run.status == "failed"
    with pytest.raises(RunFailed) as failed:
        run.result()
    assert failed.value.error_type == error


def test_c106_a_log_that_does_not_match_blocks_and_never_fails(engine):
    """Status blocked: nobody's error, and nothing of the run is lost."""
    run = engine.start(echoes, 1)
    before = kinds(run)
    with engine.store.begin() as tx:
        run_log.post(tx, run.id, events.WaitCompleted(at=1, op_id="r#9"), SendTimes(0, None))
    drive(engine, run.id)

    assert run.status == "blocked"
    assert kinds(run) == before
    with pytest.raises(TimeoutError):
        run.result(timeout="10ms")


def test_c106_a_database_that_fails_is_no_failure_of_the_run(engine):
    """The turn is given up with the database's error; the run stays as it was, and goes on later."""
    run = engine.start(echoes, 1)

    def fail(_connection: Any) -> None:
        raise sa.exc.OperationalError("COMMIT", {}, ConnectionError("gone"))

    sa.event.listen(engine.store.engine, "commit", fail)
    with pytest.raises(sa.exc.OperationalError):
        drive(engine, run.id)
    sa.event.remove(engine.store.engine, "commit", fail)

    assert run.status == "pending"
    settle(engine, run)
    assert run.result(timeout=1) == 1


def test_outside_a_run_it_is_said_which_function_is_meant():
    """As asyncio says it."""
    with pytest.raises(RuntimeError, match="create_webhook"):
        create_webhook()
    with pytest.raises(TypeError, match="start"):
        echoes(1)
    assert echo(3) == 3
