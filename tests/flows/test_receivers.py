"""Receivers on every database: a Flask client sends, this process plays the worker."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from driving import all_databases, settle
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from durable import Durable, Request, Response, Run, receiver, step, workflow
from durable.store.schema import received, runs
from durable.web import create_blueprint

PATH = "/.well-known/workflow/v1/receive/"

shop = receiver("receivers.shop", dedupe="/id")
desk = receiver("receivers.desk", dedupe="/id", respond_with="manual")


@step(name="receivers.note")
def note(request: Request) -> str:
    return str(request.json()["id"])


@shop.start(when=lambda request: request.json()["type"] == "paid")
@workflow(name="receivers.paid")
async def paid(request: Request) -> str:
    return await note(request)


@step(name="receivers.reply")
def reply(request: Request) -> str:
    request.respond_with(Response.json({"seen": request.json()["id"]}, 201))
    return str(request.json()["id"])


@desk.start
@workflow(name="receivers.answering")
async def answering(request: Request) -> str:
    return await reply(request)


@pytest.fixture
def client(engine: Durable) -> Iterator[FlaskClient]:
    """A sender: posts to the blueprint of an application.  What it has sent is forgotten afterwards."""
    app = flask.Flask("receivers")
    app.register_blueprint(create_blueprint(engine))
    yield app.test_client()
    with engine.store.begin() as tx:
        tx.execute(sa.delete(received))


def send(client: FlaskClient, name: str, body: Any, **options: Any) -> TestResponse:
    return client.post(PATH + name, json=body, **options)


def rows(engine: Durable) -> list[Any]:
    """What became of all requests, in the order in which they came."""
    with engine.store.read() as tx:
        return list(tx.execute(sa.select(received).order_by(received.c.received_at, received.c.request_id)).all())


def started(engine: Durable) -> list[Run[Any]]:
    """The runs that requests have reached, each once."""
    return [engine.get_run(run_id) for run_id in dict.fromkeys(row.run_id for row in rows(engine) if row.run_id)]


@all_databases()
def test_a_request_starts_a_run_with_itself_as_the_argument(engine: Durable, client: FlaskClient) -> None:
    """The row, the run and the answer are there together."""
    answer = send(client, "receivers.shop", {"id": "evt_1", "type": "paid"})

    assert (answer.status_code, answer.data) == (202, b"")
    (row,) = rows(engine)
    (run,) = started(engine)
    assert (row.receiver, row.outcome, row.rule) == ("receivers.shop", "started", "start receivers.paid")
    settle(engine, run)
    assert run.result(timeout=0) == "evt_1"


@all_databases()
def test_a_copy_finds_the_same_run_also_after_it_has_ended(engine: Durable, client: FlaskClient) -> None:
    """It gets the same answer, and starts nothing."""
    event = {"id": "evt_1", "type": "paid"}
    first = send(client, "receivers.shop", event)
    (run,) = started(engine)
    early = send(client, "receivers.shop", event)
    settle(engine, run)
    late = send(client, "receivers.shop", event)

    assert [each.status_code for each in (first, early, late)] == [202, 202, 202]
    assert early.headers["Idempotent-Replayed"] == late.headers["Idempotent-Replayed"] == "true"
    assert len(rows(engine)) == 1


@all_databases()
def test_copies_that_come_at_once_start_one_run(engine: Durable, client: FlaskClient) -> None:
    """There is no moment between the check and the start."""
    with ThreadPoolExecutor(8) as threads:
        app = client.application
        sent = [
            threads.submit(send, app.test_client(), "receivers.shop", {"id": "evt_1", "type": "paid"}) for _ in range(8)
        ]

    assert {each.result().status_code for each in sent} == {202}
    (run,) = started(engine)
    with engine.store.read() as tx:
        assert (
            tx.execute(sa.select(sa.func.count()).where(runs.c.name == "receivers.paid", runs.c.id == run.id)).scalar()
            == 1
        )
