"""The audit of the control routes: what has an entry, and what a caller gets when an entry cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from flask.testing import FlaskClient
from servers import migrate

from durable import Durable, create_hook, define_hook, workflow
from durable.recovery import housekeeping
from durable.store import audit, schema
from durable.web import create_blueprint
from durable.web.wsgi_request import ROOT

asked = define_hook(int, name="control_audit.asked", reply=int)


@workflow(name="control_audit.listening")
async def listening(token: str) -> list[Any]:
    """Takes in two payloads."""
    hook = create_hook(token=token)
    return [await hook, await hook]


@workflow(name="control_audit.silent")
async def silent(token: str) -> None:
    """Ends at the first question, without a reply."""
    await asked.create(token=token)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Durable]:
    celery = Celery("control-audit", broker="memory://")
    celery.conf.task_always_eager = True
    made = Durable(celery, database_url=f"sqlite:///{tmp_path}/durable.db", public_url="https://h.test")
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()


@pytest.fixture
def client(engine: Durable) -> FlaskClient:
    app = flask.Flask("control-audit")
    app.register_blueprint(create_blueprint(engine, authorize=lambda action, run_id: "ada"))
    return app.test_client()


def entries(engine: Durable, run_id: str) -> list[tuple[str, str | None, str | None]]:
    """The entries of a run, oldest first: action, caller, outcome."""
    with engine.store.read() as tx:
        return [(each.action, each.actor, each.outcome) for each in audit.of_run(tx, run_id, 20)][::-1]


def fail(*_: object, **__: object) -> Any:
    raise sa.exc.OperationalError("INSERT", {}, Exception("disk full"))


def start(client: FlaskClient, name: str, token: str) -> str:
    answer = client.post(f"{ROOT}runs", json={"workflow": f"control_audit.{name}", "args": [token]})
    assert answer.status_code == 201, answer.text
    return str(answer.json["id"])


def test_what_names_its_run_afterwards_has_an_entry_with_the_run(engine, client):
    """A start, a payload and a question: action, caller and outcome are on the page of the run."""
    run_id = start(client, "listening", "t")
    assert client.post(f"{ROOT}hooks/resume", json={"token": "t", "payload": 1}).status_code == 202
    other = start(client, "silent", "s")
    refused = client.post(f"{ROOT}hooks/ask", json={"token": "s", "payload": 1})

    assert entries(engine, run_id) == [("start", "ada", "done"), ("resume", "ada", "done")]
    # The payload of the question has reached the run, though there is no reply.
    assert refused.status_code == 409
    assert entries(engine, other) == [("start", "ada", "done"), ("resume", "ada", "done")]


def test_a_start_whose_entry_cannot_be_written_is_answered_as_a_start(engine, client, monkeypatch, caplog):
    """An error answer would make its caller start a second run; the missing entry is logged as an error."""
    monkeypatch.setattr(audit, "begin", fail)
    run_id = start(client, "listening", "t")

    assert engine.get_run(run_id).status == "running"
    assert entries(engine, run_id) == []
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "start" in record.getMessage()
    assert run_id in record.getMessage()
    assert "ada" in record.getMessage()


@pytest.mark.parametrize("route", ["resume", "ask"])
def test_a_payload_whose_entry_cannot_be_written_is_delivered_once(engine, client, monkeypatch, caplog, route):
    """The caller gets the answer of a payload that is committed, so it does not send the payload again."""
    run_id = start(client, "listening" if route == "resume" else "silent", "t")
    engine.celery.conf.task_always_eager = False
    monkeypatch.setattr(audit, "begin", fail)
    timeout = {} if route == "resume" else {"timeout": 0}
    answer = client.post(f"{ROOT}hooks/{route}", json={"token": "t", "payload": 1, **timeout})

    assert answer.status_code == 202
    with engine.store.read() as tx:
        inbox = schema.inbox.c.run_id == run_id
        assert tx.execute(sa.select(sa.func.count()).select_from(schema.inbox).where(inbox)).scalar_one() == 1
    assert run_id in caplog.text


def test_an_action_whose_outcome_cannot_be_written_is_answered_as_done(engine, client, monkeypatch, caplog):
    """A run is cancelled, and the entry that was committed before stays without an outcome."""
    run_id = start(client, "listening", "t")
    monkeypatch.setattr(audit, "finish", fail)
    cancelled = client.post(f"{ROOT}runs/{run_id}/cancel", json={})
    again = client.post(f"{ROOT}runs/{run_id}/cancel", json={})

    assert (cancelled.status_code, again.status_code) == (202, 409)
    assert entries(engine, run_id)[1:] == [("cancel", "ada", None)] * 2
    assert caplog.text.count("OperationalError") == 2


def test_nothing_is_done_without_the_entry_that_comes_before(engine, client, monkeypatch):
    """A run is not cancelled when its entry cannot be committed."""
    run_id = start(client, "listening", "t")
    monkeypatch.setattr(audit, "begin", fail)

    assert client.post(f"{ROOT}runs/{run_id}/cancel", json={}).status_code >= 500
    assert engine.get_run(run_id).status == "running"
