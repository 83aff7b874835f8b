"""Whatever starts a run of a workflow with limits: a session, a receiver, a schedule, and Celery in the caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from driving import DATABASES
from limited import Process
from sqlalchemy import orm

from durable import Request, concurrency, debounce, receiver, schedule, sleep, step, workflow
from durable.cipher import aes_gcm
from durable.store import schema
from durable.testing import Environment

all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)


@step(name="limited_starts.echo", retry_backoff=0)
def echo(value: Any) -> Any:
    return value


@workflow(name="limited_starts.single", limits=[concurrency("limited_starts.single", 1, key="shop")])
async def single(shop: str) -> str:
    await sleep("1h")
    return shop


@workflow(name="limited_starts.latest", limits=[debounce("limited_starts.latest", "1m", key="shop")])
async def latest(shop: str, text: str) -> str:
    return str(await echo(text))


@workflow(name="limited_starts.free")
async def free(shop: str) -> str:
    return shop


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    made = Process(database)
    yield made
    made.close()


@pytest.fixture
def session(process: Process) -> Iterator[orm.Session]:
    theirs = sa.create_engine(process.engine.store.url)
    with orm.Session(theirs) as made:
        yield made
    theirs.dispose()


# The caller's transaction


@all_databases
def test_a_run_of_a_session_waits_from_the_commit_on(process, session):
    """The first begins and the second waits; one that is rolled back takes no slot."""
    gone = single.with_options(session=session).start("acme")
    session.rollback()
    first = single.with_options(session=session).start("acme")
    second = single.with_options(session=session).start("acme")
    assert process.broker._messages == []
    session.commit()
    process.turns()

    assert (gone.exists, first.status, second.status) == (False, "running", "pending")


@all_databases
def test_a_debounced_start_in_a_session_changes_the_run_if_it_commits(process, session):
    """Until then, and after a rollback, the run has the arguments of the start before."""
    run = process.engine.start(latest, "acme", "first")
    assert latest.with_options(session=session).start("acme", "lost").id == run.id
    session.rollback()
    assert arguments(process) == ["first"]
    assert latest.with_options(session=session).start("acme", "last").id == run.id
    session.commit()

    assert arguments(process) == ["last"]


def arguments(process: Process) -> list[str]:
    return [row["value"].split('"text":"')[1].split('"')[0] for row in process.rows(schema.inbox)]


def test_large_and_encrypted_arguments_are_replaced_too():
    """The last start's, which are stored by reference."""
    with Environment(cipher=aes_gcm({"one": bytes(range(32))})) as env:
        for letter in "ab":
            run = env.start(latest, "acme", letter * 300_000)
        env.finish(run)

        assert run.result(timeout=0) == "b" * 300_000


# Receivers


calls = receiver("limited_starts.calls", dedupe="/id")


@calls.start
@workflow(
    name="limited_starts.called",
    limits=[debounce("limited_starts.called", "1m", key=lambda request: request.json()["shop"])],
)
async def called(request: Request) -> str:
    return str(await echo(request.json()["id"]))


URL = "https://durable.test/.well-known/workflow/v1/receive/limited_starts.calls"


def test_requests_to_a_receiver_are_debounced():
    """Each is recorded with the one run that they have started; a copy of one changes nothing."""
    with Environment() as env:
        answers = [env.post(URL, json={"id": number, "shop": "acme"}).status_code for number in (1, 2, 2)]
        rows = env.received(calls)
        (run_id,) = {row.run_id for row in rows}
        run = env.engine.get_run(run_id)
        env.finish(run)

        assert answers == [202, 202, 202]
        assert [row.outcome for row in rows] == ["started", "started"]
        assert run.result(timeout=0) == "2"


def test_a_request_whose_key_cannot_be_found_is_kept():
    """It is unroutable, and says why."""
    with Environment() as env:
        assert env.post(URL, json={"id": 1}).status_code == 202
        (row,) = env.received(calls)

    assert (row.outcome, row.run_id) == ("unroutable", None)
    assert "KeyError" in str(row.detail)


# Schedules


def test_runs_of_a_schedule_wait(own_registry):
    """Every minute one is started, and the run of an hour keeps the slot."""
    plan = schedule("limited_starts.minutely", single, ("acme",), every="1m", overlap="allow")
    with Environment() as env:
        env.advance("1s")
        env.advance("3m")
        assert sorted(run.status for run in plan.runs()) == ["pending", "pending", "running"]
        env.advance("70m")
        assert [run.status for run in plan.runs()].count("completed") == 1


# What they cost


@all_databases
def test_a_workflow_without_limits_costs_no_statement_more(process, monkeypatch):
    """Neither its start nor its end reads or writes a table of limits."""
    sent: list[str] = []

    def note(_connection, _cursor, statement, _parameters, _context, _many):
        sent.append(statement)

    engine = process.engine
    engine.start(free, "acme")
    process.turns()
    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    engine.start(free, "acme")
    process.turns()
    sa.event.remove(engine.store.engine, "before_cursor_execute", note)

    assert sent
    assert [each for each in sent if "limit" in each.replace("LIMIT", "")] == []


def test_celery_in_the_caller_runs_a_run_with_limits(engine):
    """With ``task_always_eager`` it begins in the start, and the next one waits."""
    engine.celery.conf.task_always_eager = True

    first, second = engine.start(single, "acme"), engine.start(single, "acme")

    assert (first.status, second.status) == ("running", "pending")
