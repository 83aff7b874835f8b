"""Requests that are sent twice are one payload with one answer, on every database; also Prefer and max_pending."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from driving import all_databases, settle
from eventually import eventually
from flask.testing import FlaskClient

from durable import Durable, Request, Response, Run, create_webhook, step, verify, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web import create_blueprint
from durable.web import hub as holding

BASE = "https://hooks.test"

MODES: dict[str, dict[str, Any]] = {
    "manual": {"respond_with": "manual", "dedupe": "X-Id"},
    "default": {"dedupe": "auto"},
    "static": {"respond_with": Response(b"paid", 201), "dedupe": "/id"},
    "stripe": {"dedupe": verify.stripe},
    "brief": {"respond_with": "manual", "timeout": "50ms", "on_timeout": Response(b"later", 200), "dedupe": "X-Id"},
    "plain": {"respond_with": "manual"},
}

worked: list[bytes] = []


@step
def work(request: Request) -> str:
    worked.append(request.data)
    if request.data != b"silence":
        request.respond_with(Response(b"did " + request.data, 202, {"X-Own": "1"}))
    return request.text()


@workflow
async def working(mode: str) -> list[str]:
    done = []
    async for request in create_webhook(**MODES[mode]):
        done.append(await work(request))
        if request.data.startswith(b"last"):
            break
    return done


@pytest.fixture
def client(engine: Durable) -> FlaskClient:
    worked.clear()
    app = flask.Flask("duplicates")
    app.register_blueprint(create_blueprint(engine))
    return app.test_client()


def begin(engine: Durable, mode: str) -> tuple[Run[Any], str]:
    """A run that listens, and the path of its webhook."""
    run = engine.start(working, mode)
    drive(engine, run.id)
    return run, run.hooks()[0]["url"].removeprefix(BASE)


def received(run: Run[Any]) -> int:
    return [event.kind for event in run.events()].count("hook_received")


def rows(engine: Durable, run: Run[Any]) -> int:
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(requests).where(requests.c.run_id == run.id)
        return int(tx.execute(query).scalar_one())


def waiters() -> int:
    return sum(map(len, holding._hubs))


@all_databases()
def test_a_copy_of_a_held_request_is_attached(engine, client):
    """All connections get the same answer, none as a replay, since all have waited for it; the step runs once."""
    run, path = begin(engine, "manual")
    before = waiters()
    with ThreadPoolExecutor(3) as threads:
        sent = [threads.submit(client.post, path, data=b"a", headers={"X-Id": "1"}) for _ in range(3)]
        eventually(
            lambda: 3 in [len(hub._waiters.of(each)) for hub in holding._hubs for each in hub._waiters.request_ids()]
        )
        settle(engine, run)
        answers = [future.result() for future in sent]

    assert [(a.status_code, a.data, a.headers["X-Own"]) for a in answers] == [(202, b"did a", "1")] * 3
    assert not any("Idempotent-Replayed" in answer.headers for answer in answers)
    assert (received(run), worked) == (1, [b"a"])
    assert waiters() == before


@all_databases()
def test_a_copy_gets_the_recorded_answer_also_after_the_run(engine, client):
    """The copy gets the first answer with Idempotent-Replayed, and is not a second payload."""
    run, path = begin(engine, "manual")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.post, path, data=b"last", headers={"X-Id": "1"})
        eventually(lambda: rows(engine, run) == 1)
        settle(engine, run)
        first.result()
    assert run.status == "completed"

    again = client.post(path, data=b"last", headers={"X-Id": "1"})
    other = client.post(path, data=b"other", headers={"X-Id": "1"})
    unknown = client.post(path, data=b"last", headers={"X-Id": "2"})
    keyless = client.post(path, data=b"last")

    assert (again.status_code, again.data, again.headers["X-Own"]) == (202, b"did last", "1")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.result().headers
    assert (other.status_code, unknown.status_code, keyless.status_code) == (422, 410, 410)
    assert (rows(engine, run), worked) == (1, [b"last"])


@pytest.mark.parametrize("preference", [{}, {"Prefer": "respond-async"}, {"Prefer": "wait=1"}])
def test_a_copy_of_an_answered_request_gets_the_answer_while_the_webhook_is_open(engine, client, preference):
    """It gets the first answer at once with Idempotent-Replayed, whether it would wait for an answer or not."""
    run, path = begin(engine, "manual")
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(client.post, path, data=b"a", headers={"X-Id": "1"})
        eventually(lambda: rows(engine, run) == 1)
        settle(engine, run)
        first.result()
    assert run.hooks(), "the webhook is open"

    again = client.post(path, data=b"a", headers={"X-Id": "1", **preference})

    assert (again.status_code, again.data, again.headers["X-Own"]) == (202, b"did a", "1")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.result().headers
    assert (received(run), worked) == (1, [b"a"])


@all_databases()
@pytest.mark.parametrize(
    ("mode", "body", "headers", "answer"),
    [
        ("default", b"x", {"webhook-id": "m1"}, (202, b"")),
        ("static", b'{"id": 5}', {}, (201, b"paid")),
    ],
)
def test_what_is_answered_at_once_is_answered_again(engine, client, mode, body, headers, answer):
    """A copy gets the same answer; another body gets 422; without a key each request is a payload."""
    run, path = begin(engine, mode)
    first, again = (client.post(path, data=body, headers=headers) for _ in range(2))
    other = client.post(path, data=body + b" ", headers=headers)
    for _ in range(2):
        client.post(path, data=b"no key")
    drive(engine, run.id)

    assert (first.status_code, first.data) == (again.status_code, again.data) == answer
    assert again.headers["Idempotent-Replayed"] == "true"
    assert other.status_code == 422
    assert other.json["type"] == "urn:durable:problem:dedupe-key-reused"
    assert received(run) == 3


@all_databases()
def test_c67_fifty_copies_at_once_are_one_event(engine, client):
    """All get the same answer, and one is recorded."""
    run, path = begin(engine, "default")
    start = threading.Barrier(50)

    def post(_: int) -> tuple[int, bytes]:
        start.wait(20)
        answer = client.application.test_client().post(path, data=b"x", headers={"Idempotency-Key": "k"})
        return answer.status_code, answer.data

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(post, range(50)))
    settle(engine, run)

    assert answers == [(202, b"")] * 50
    assert (rows(engine, run), received(run), worked) == (1, 1, [b"x"])


def test_keys_of_two_webhooks_are_apart(engine, client):
    """The same key at another webhook is a new payload."""
    paths = [begin(engine, "default") for _ in range(2)]
    for _, path in paths:
        assert "Idempotent-Replayed" not in client.post(path, data=b"x", headers={"webhook-id": "m1"}).headers
    assert [rows(engine, run) for run, _ in paths] == [1, 1]


def test_stripe_counts_in_what_it_sends_again(engine, client):
    """``pending_webhooks`` may differ in a retry; anything else may not."""
    run, path = begin(engine, "stripe")
    sent = [b'{"id": "evt_1", "pending_webhooks": 2}', b'{"id": "evt_1", "pending_webhooks": 1}', b'{"id": "evt_1"}']
    statuses = [client.post(path, data=body).status_code for body in (*sent, b'{"id": "evt_1", "a": 1}')]

    assert statuses == [202, 202, 202, 422]
    assert rows(engine, run) == 1


def test_a_copy_after_the_time_is_over_gets_the_late_answer(engine, client):
    """A copy gets on_timeout at first, and the answer as soon as there is one; only the answer is a replay."""
    run, path = begin(engine, "brief")
    first = client.post(path, data=b"a", headers={"X-Id": "1"})
    second = client.post(path, data=b"a", headers={"X-Id": "1"})
    settle(engine, run)
    third = client.post(path, data=b"a", headers={"X-Id": "1"})

    assert [first.data, second.data, third.data] == [b"later", b"later", b"did a"]
    assert ["Idempotent-Replayed" in each.headers for each in (first, second, third)] == [False, False, True]
    assert worked == [b"a"]


# Prefer, and limits


def test_a_sender_that_does_not_want_to_wait_does_not(engine, client):
    """``respond-async`` gets 202 with Location at once; the answer can be polled later."""
    run, path = begin(engine, "plain")
    answer = client.post(path, data=b"a", headers={"Prefer": "respond-async"})
    settle(engine, run)
    later = client.get(answer.headers["Location"].removeprefix(BASE))

    assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
    assert (later.status_code, later.data) == (202, b"did a")
    assert later.headers["Durable-Recorded"] == "true"


def test_a_sender_may_wait_for_less_long(engine, client):
    """``wait=0`` and ``wait=1`` shorten the webhook's own timeout; a longer wait does not extend it."""
    _, path = begin(engine, "plain")
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(client.post, path, data=b"a", headers={"Prefer": "wait=1"})
        assert sent.result(timeout=10).status_code == 202
    assert client.post(path, data=b"b", headers={"Prefer": "wait=0"}).status_code == 202
    _, path = begin(engine, "brief")
    assert client.post(path, data=b"c", headers={"Prefer": "wait=600"}).data == b"later"
    asked = client.post(path, data=b"d", headers={"Prefer": "respond-async"})
    assert asked.json["status"] == "pending"


@pytest.mark.parametrize(("mode", "mine"), [("plain", {"Prefer": "respond-async"}), ("default", {})])
@all_databases()
def test_a_webhook_takes_so_many_and_no_more(engine, client, monkeypatch, mode, mine):
    """Over ``max_pending`` a request gets 429 and is not recorded; a copy is answered; a turn makes room."""
    object.__setattr__(engine.settings, "max_pending", 3)
    run, path = begin(engine, mode)
    for number in range(3):
        assert client.post(path, data=b"x", headers={"webhook-id": str(number), **mine}).status_code == 202
    refused = client.post(path, data=b"x", headers={"webhook-id": "4", **mine})

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert rows(engine, run) == 3
    if mode == "default":
        assert client.post(path, data=b"x", headers={"webhook-id": "0"}).status_code == 202
    settle(engine, run)
    assert client.post(path, data=b"x", headers={"webhook-id": "5", **mine}).status_code == 202
