"""Receivers on every database: a Flask client sends, this process plays the worker."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from driving import all_databases, more_engines, settle
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from durable import Durable, Request, Response, Run, create_hook, define_hook, receiver, step, verify, workflow
from durable.cipher import aes_gcm
from durable.client import route_again
from durable.failpoints import armed
from durable.recovery.prune import prune
from durable.recovery.sweep import sweep
from durable.store.schema import hooks, received, requests, runs
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


silent = receiver("receivers.silent", respond_with="manual")


@silent.start
@workflow(name="receivers.keeping_silent")
async def keeping_silent(request: Request) -> str:
    return await note(request)


@workflow(name="receivers.listening")
async def listening(number: str) -> list[str]:
    seen = []
    async for request in create_hook(token=f"order:{number}"):
        seen.append(request.json()["type"])
        if seen[-1] == "shipped":
            break
    return seen


@workflow(name="receivers.listening_once")
async def listening_once(number: str) -> str:
    return await note(await create_hook(token=f"order:{number}"))


@dataclass
class Amount:
    cents: int


amounts = define_hook(Amount, name="receivers.amount")


@workflow(name="receivers.expecting")
async def expecting(number: str) -> int:
    return (await amounts.create(token=f"amount:{number}")).cents


def order_token(request: Request) -> str:
    return f"order:{request.json()['order']}"


receiver("receivers.orders", dedupe="/id").resume(order_token)
receiver("receivers.typed", dedupe="/id").resume(
    lambda request: f"amount:{request.json()['order']}", payload=lambda request: {"cents": request.json()["cents"]}
)
receiver("receivers.typed_batch", dedupe="/id", each=lambda request: request.json()["events"]).resume(
    lambda request: f"amount:{request.json()['order']}", payload=lambda request: {"cents": request.json()["cents"]}
)
receiver("receivers.late", respond_with="manual").resume(order_token, wait="1h")
receiver("receivers.lenient", dedupe="/id").resume(order_token, missing="accept")
receiver("receivers.strict", dedupe="/id").resume(order_token, missing="reject")
receiver("receivers.picky", dedupe="/id", unmatched=Response(status=404))
broken = receiver("receivers.broken", dedupe="/id")
broken.resume(lambda request: request.json()["order"], when=lambda request: request.json()["type"] == "paid")

carts = receiver("receivers.carts", dedupe="/id")
carts.resume(lambda request: f"cart:{request.json()['cart']}", missing="start")


@carts.start
@workflow(name="receivers.cart")
async def cart(first: Request) -> list[str]:
    seen = [first.json()["type"]]
    if seen[-1] != "end":
        async for request in create_hook(token=f"cart:{first.json()['cart']}"):
            seen.append(request.json()["type"])
            if seen[-1] == "end":
                break
    return seen


receiver("receivers.meta", verify=verify.meta("env:RECEIVERS_KEY", verify_token="env:RECEIVERS_TOKEN"))
signed = receiver("receivers.signed", verify=verify.hmac("env:RECEIVERS_KEY", header="X-Signature"))
batch = receiver("receivers.batch", dedupe="/id", each=lambda request: request.json()["events"])
batch_by_header = receiver("receivers.batch_by_header", dedupe="auto", each=lambda request: request.json()["events"])
batch.resume(order_token, when=lambda event: event.json()["do"] == "resume")


@signed.start
@batch_by_header.start
@batch.start(when=lambda event: event.json()["do"] == "start")
@workflow(name="receivers.event")
async def on_event(event: Request) -> str:
    return await note(event)


@pytest.fixture
def client(engine: Durable) -> Iterator[FlaskClient]:
    """A sender: posts to the blueprint of an application.  What it has sent is forgotten, as what others have sent."""
    forget(engine)
    yield client_of(engine)
    forget(engine)


def client_of(engine: Durable) -> FlaskClient:
    app = flask.Flask("receivers")
    app.register_blueprint(create_blueprint(engine))
    return app.test_client()


def forget(engine: Durable) -> None:
    with engine.store.begin() as tx:
        for table in (received, requests):
            tx.execute(sa.delete(table))
        tx.execute(sa.update(hooks).values(active_token_hash=None))


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


# Manual answers


@contextmanager
def held(engine: Durable, post: Callable[[], TestResponse]) -> Iterator[Any]:
    """Send, and go on once the request is recorded: the future of its answer."""
    with ThreadPoolExecutor(1) as thread:
        sent = thread.submit(post)
        pause = threading.Event()
        while not rows(engine):
            assert not sent.done(), sent.result().data
            pause.wait(0.005)
        yield sent


@all_databases()
def test_a_step_of_the_run_answers_the_held_connection(engine: Durable, client: FlaskClient) -> None:
    """The sender gets what the step says; a copy, and a poll, get the same once the run is over."""
    with held(engine, lambda: send(client, "receivers.desk", {"id": "m1"})) as first:
        settle(engine, *started(engine))
    (row,) = rows(engine)
    copy = send(client, "receivers.desk", {"id": "m1"})
    poll = client.get(f"{PATH}receivers.desk/requests/{row.request_id}")

    for answer in (first.result(), copy, poll):
        assert (answer.status_code, answer.json) == (201, {"seen": "m1"})
    assert poll.headers["Durable-Recorded"] == "true"


@all_databases()
def test_a_run_that_ends_without_an_answer_is_told_as_for_webhooks(engine: Durable, client: FlaskClient) -> None:
    """The run has had the request, so that the answer is 500 and not 410."""
    with held(engine, lambda: send(client, "receivers.silent", {"id": "s"})) as sent:
        settle(engine, *started(engine))

    assert sent.result().status_code == 500
    assert sent.result().json["code"] == "webhook-response-not-sent"


@all_databases()
def test_a_sender_that_does_not_wait_polls(engine: Durable, client: FlaskClient) -> None:
    """``Prefer: respond-async``: 202 with the URL to poll, which names the receiver."""
    answer = send(client, "receivers.desk", {"id": "p1"}, headers={"Prefer": "respond-async"})
    (row,) = rows(engine)

    assert answer.status_code == 202
    assert answer.headers["Location"] == f"https://hooks.test{PATH}receivers.desk/requests/{row.request_id}"
    assert client.get(answer.headers["Location"]).status_code == 202
    settle(engine, *started(engine))
    assert client.get(answer.headers["Location"]).json == {"seen": "p1"}
    assert client.get(answer.headers["Location"].replace("desk", "shop")).status_code == 404


# Resume


@all_databases()
def test_an_open_hook_receives_the_request(engine: Durable, client: FlaskClient) -> None:
    """In the order of arrival, and the workflow gets the request itself."""
    run = engine.start(listening, "7")
    settle(engine, run)
    for number, kind in enumerate(["paid", "packed", "shipped"]):
        assert send(client, "receivers.orders", {"id": number, "type": kind, "order": "7"}).status_code == 202
    settle(engine, run)

    assert run.result(timeout=0) == ["paid", "packed", "shipped"]
    assert [(row.outcome, row.run_id, row.token) for row in rows(engine)] == [("resumed", run.id, "order:7")] * 3


@all_databases()
def test_a_typed_hook_receives_what_payload_returns(engine: Durable, client: FlaskClient) -> None:
    """It is validated by the hook's type; what does not fit is kept as unroutable."""
    run = engine.start(expecting, "7")
    settle(engine, run)
    wrong = send(client, "receivers.typed", {"id": 1, "cents": "much", "order": "7"})
    right = send(client, "receivers.typed", {"id": 2, "cents": 250, "order": "7"})
    settle(engine, run)

    assert (wrong.status_code, wrong.json["status"], right.status_code) == (202, "unroutable", 202)
    assert run.result(timeout=0) == 250
    assert [row.outcome for row in rows(engine)] == ["unroutable", "resumed"]


@all_databases()
def test_a_validator_of_a_hook_refuses_what_a_receiver_routes_to_it(engine: Durable, client: FlaskClient) -> None:
    """It is kept as unroutable, like a payload that does not fit, and the run does not get it."""
    run = engine.start(expecting, "8")
    settle(engine, run)

    @amounts.validator
    def positive(amount: Amount) -> None:
        if amount.cents <= 0:
            raise ValueError("cents must be more than 0")

    try:
        refused = send(client, "receivers.typed", {"id": 11, "cents": 0, "order": "8"})
        taken = send(client, "receivers.typed", {"id": 12, "cents": 5, "order": "8"})
    finally:
        amounts.validators.clear()
    settle(engine, run)
    assert (refused.json["status"], taken.status_code, run.result(timeout=0)) == ("unroutable", 202, 5)


@all_databases()
def test_a_request_is_kept_whatever_a_validator_raises(engine: Durable, client: FlaskClient) -> None:
    """A mistake in a validator leaves its request unroutable, with the error; the rest of a batch arrives."""
    runs = [engine.start(expecting, number) for number in ("9", "10")]
    settle(engine, *runs)

    @amounts.validator
    def known(amount: Amount) -> None:
        {5: "five"}[amount.cents]

    try:
        alone = send(client, "receivers.typed", {"id": 21, "cents": 3, "order": "9"})
        events = [{"id": 22, "cents": 4, "order": "9"}, {"id": 23, "cents": 5, "order": "10"}]
        together = send(client, "receivers.typed_batch", {"events": events})
    finally:
        amounts.validators.clear()
    settle(engine, *runs)

    assert (alone.status_code, alone.json["status"], together.status_code) == (202, "unroutable", 202)
    assert sorted((str(row.outcome), row.detail) for row in rows(engine)) == [
        ("resumed", None),
        ("unroutable", "the validation of the payload raised KeyError: 3"),
        ("unroutable", "the validation of the payload raised KeyError: 4"),
    ]
    assert [run.status for run in runs] == ["running", "completed"]


@all_databases()
def test_a_request_waits_for_its_hook(engine: Durable, client: FlaskClient) -> None:
    """The turn that opens the hook gives it what has waited, in the order of arrival."""
    for number, kind in enumerate(["paid", "shipped"]):
        send(client, "receivers.orders", {"id": number, "type": kind, "order": "8"})
    assert [row.outcome for row in rows(engine)] == ["waiting", "waiting"]
    assert not started(engine)

    run = engine.start(listening, "8")
    settle(engine, run)

    assert run.result(timeout=0) == ["paid", "shipped"]
    assert {row.outcome for row in rows(engine)} == {"resumed"}


@all_databases()
def test_the_sweep_finds_a_hook_that_the_turn_did_not_tell_of(engine: Durable, client: FlaskClient) -> None:
    """The process that opened the hook was killed, or does not know the receiver."""
    run = engine.start(listening, "9")
    settle(engine, run)
    with engine.store.begin() as tx:
        # As a request does that looked for the hook a moment before it was opened.
        tx.execute(sa.update(hooks).where(hooks.c.run_id == run.id).values(active_token_hash=None))
    send(client, "receivers.orders", {"id": 1, "type": "shipped", "order": "9"})
    with engine.store.begin() as tx:
        tx.execute(sa.update(hooks).where(hooks.c.run_id == run.id).values(active_token_hash=hooks.c.token_hash))
    assert [row.outcome for row in rows(engine)] == ["waiting"]

    sweep(engine)
    settle(engine, run)

    assert run.result(timeout=0) == ["shipped"]


@all_databases()
def test_a_manual_request_that_waits_too_long_is_answered_404(engine: Durable, client: FlaskClient) -> None:
    """It is kept: once there is a hook, ``retry`` gives it the request."""
    answer = send(client, "receivers.late", {"id": 1, "order": "L"}, headers={"Prefer": "respond-async"})
    with engine.store.begin() as tx:
        tx.execute(sa.update(received).values(waits_until=engine.now()))
    sweep(engine)

    assert [row.outcome for row in rows(engine)] == ["missed"]
    assert client.get(answer.headers["Location"]).status_code == 404
    run = engine.start(listening_once, "L")
    settle(engine, run)
    (row,) = rows(engine)
    (reception,) = route_again.route_again(engine, row.request_id) or ()
    assert reception.run_id == run.id
    settle(engine, run)
    assert run.result(timeout=0) == "1"
    assert client.get(answer.headers["Location"]).status_code == 404


@all_databases()
def test_missing_accept_and_reject(engine: Durable, client: FlaskClient) -> None:
    """Both are recorded.  A copy of what was refused is routed anew, a copy of what was accepted is not."""
    body = {"id": 1, "order": "A"}
    accepted, rejected = (send(client, f"receivers.{name}", body) for name in ("lenient", "strict"))
    assert (accepted.status_code, rejected.status_code) == (202, 404)
    assert [row.outcome for row in rows(engine)] == ["accepted", "rejected"]

    run = engine.start(listening_once, "A")
    settle(engine, run)
    again, now_taken = (send(client, f"receivers.{name}", body) for name in ("lenient", "strict"))
    settle(engine, run)

    assert (again.status_code, now_taken.status_code) == (202, 202)
    assert "Idempotent-Replayed" in again.headers
    assert run.result(timeout=0) == "1"


@all_databases()
def test_missing_start_starts_one_run_for_a_token(engine: Durable, client: FlaskClient) -> None:
    """Whatever comes before its hook is open waits for it; after its end the next event starts another run."""
    with ThreadPoolExecutor(4) as threads:
        kinds = ["a", "b", "c", "d"]
        clients = [client.application.test_client() for _ in kinds]
        futures = [
            threads.submit(send, each, "receivers.carts", {"id": kind, "type": kind, "cart": "1"})
            for each, kind in zip(clients, kinds, strict=True)
        ]
        assert {each.result().status_code for each in futures} == {202}
    assert sorted(row.outcome for row in rows(engine)) == ["started", "waiting", "waiting", "waiting"]
    (run,) = started(engine)
    settle(engine, run)
    send(client, "receivers.carts", {"id": "e", "type": "end", "cart": "1"})
    settle(engine, run)
    assert sorted(run.result(timeout=0)) == ["a", "b", "c", "d", "end"]

    send(client, "receivers.carts", {"id": "f", "type": "end", "cart": "1"})
    assert len(started(engine)) == 2


# What reaches no run


@all_databases()
def test_what_matches_no_rule_is_recorded_as_ignored(engine: Durable, client: FlaskClient) -> None:
    """202 by default, else what ``unmatched`` says."""
    by_default = send(client, "receivers.shop", {"id": "i1", "type": "refund"})
    not_found = send(client, "receivers.picky", {"id": "i2"})
    copy = send(client, "receivers.picky", {"id": "i2"})

    assert [each.status_code for each in (by_default, not_found, copy)] == [202, 404, 404]
    assert [row.outcome for row in rows(engine)] == ["ignored", "ignored"]


@all_databases()
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"id": "u", "type": "paid"}, "token raised KeyError: 'order'"),
        ({"id": "u", "type": "paid", "order": 5}, "token returned int 5, which is no text"),
        ({"id": "u", "type": "paid", "order": ""}, "token returned str ''"),
        ({"id": "u"}, "when raised KeyError: 'type'"),
    ],
)
def test_a_rule_that_fails_keeps_the_request(
    engine: Durable, client: FlaskClient, caplog: pytest.LogCaptureFixture, body: Any, reason: str
) -> None:
    """The answer is no 500, and the log says where the reason is; it does not repeat what the sender wrote."""
    answer = send(client, "receivers.broken", body)

    (row,) = rows(engine)
    assert (answer.status_code, answer.json["status"], row.outcome) == (202, "unroutable", "unroutable")
    assert row.detail.startswith(reason)
    assert any("cannot be routed" in each.getMessage() for each in caplog.records)


@all_databases()
def test_retry_routes_by_the_corrected_rule(engine: Durable, client: FlaskClient) -> None:
    """Once: a second retry, or one at the same time, finds nothing to do."""
    send(client, "receivers.broken", {"id": "u", "type": "paid", "order": 5})
    (row,) = rows(engine)
    rule = broken.rules[0]
    broken.rules[0] = replace(rule, token=lambda request: f"order:{request.json()['order']}")
    try:
        run = engine.start(listening, "5")
        settle(engine, run)
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(lambda _: route_again.route_again(engine, row.request_id), range(3)))
    finally:
        broken.rules[0] = rule

    assert len([each for each in found if each]) == 1
    (row,) = rows(engine)
    assert (row.outcome, row.run_id, row.detail) == ("resumed", run.id, None)
    settle(engine, run)
    assert [event.kind for event in run.events()].count("hook_received") == 1


def test_a_wrong_signature_records_nothing(
    engine: Durable, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """401 for one, the run for the other: the path is that of webhooks."""
    monkeypatch.setenv("RECEIVERS_KEY", "secret")
    body = b'{"id": "1"}'
    signature = hmac.new(b"secret", body, "sha256").hexdigest()

    refused = client.post(PATH + "receivers.signed", data=body, headers={"X-Signature": "00"})
    taken = client.post(PATH + "receivers.signed", data=body, headers={"X-Signature": signature})

    assert (refused.status_code, taken.status_code) == (401, 202)
    assert len(rows(engine)) == 1


def test_a_handshake_is_answered_and_not_recorded(
    engine: Durable, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the sender sends it when its receiver is configured."""
    monkeypatch.setenv("RECEIVERS_KEY", "secret")
    monkeypatch.setenv("RECEIVERS_TOKEN", "token")
    query = "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=token"
    answer = client.get(PATH + "receivers.meta" + query)

    assert (answer.status_code, answer.data) == (200, b"1158201444")
    assert rows(engine) == []


def test_other_refusals_are_those_of_webhooks(engine: Durable, client: FlaskClient) -> None:
    """The method, the size, another body under the same key, a receiver that is not there."""
    send(client, "receivers.shop", {"id": "k", "type": "paid"})

    assert client.get(PATH + "receivers.shop").status_code == 405
    assert client.post(PATH + "receivers.shop", data=b"x" * 2_000_000).status_code == 413
    assert send(client, "receivers.shop", {"id": "k", "type": "refund"}).status_code == 422
    assert send(client, "receivers.unknown", {}).status_code == 404
    assert client.post(PATH + "a/b/c").status_code == 404
    assert len(rows(engine)) == 1


# Batches


@all_databases()
def test_each_event_of_a_batch_is_a_request(engine: Durable, client: FlaskClient) -> None:
    """They start and resume runs, are ignored or unroutable, each by itself; copies among them are found."""
    run = engine.start(listening_once, "B")
    settle(engine, run)
    events = [
        {"id": "1", "do": "start"},
        {"id": "2", "do": "resume", "order": "B"},
        {"id": "3", "do": "nothing"},
        {"id": "4", "do": "resume"},
        {"id": "1", "do": "start"},
    ]
    first = send(client, "receivers.batch", {"events": events})
    second = send(client, "receivers.batch", {"events": [*events[:2], {"id": "5", "do": "start"}]})

    assert (first.status_code, second.status_code) == (202, 202)
    assert sorted(row.outcome for row in rows(engine)) == ["ignored", "resumed", "started", "started", "unroutable"]
    settle(engine, *started(engine))
    assert sorted(each.result(timeout=0) for each in started(engine)) == ["1", "2", "5"]


@all_databases()
def test_a_batch_is_recorded_whole_or_not_at_all(engine: Durable, client: FlaskClient) -> None:
    """A crash before the commit leaves nothing of it, and the copy that its sender sends brings all."""
    body = {"events": [{"id": str(number), "do": "start"} for number in range(20)]}
    with armed("commit.before=raise@1"):
        assert send(client, "receivers.batch", body).status_code == 500
    assert rows(engine) == []
    assert send(client, "receivers.batch", body).status_code == 202
    assert len(started(engine)) == 20


@all_databases()
def test_a_header_is_the_key_of_each_event_with_its_number(engine: Durable, client: FlaskClient) -> None:
    """The header is one for all of them."""
    body = {"events": [{"do": "start", "id": "a"}, {"do": "start", "id": "a"}]}
    for _ in range(2):
        send(client, "receivers.batch_by_header", body, headers={"Webhook-Id": "w1"})
    send(client, "receivers.batch_by_header", body, headers={"Webhook-Id": "w2"})

    assert len(started(engine)) == 4


@all_databases()
@pytest.mark.parametrize("body", [{"other": 1}, {"events": "abc"}, {"events": 5}])
def test_a_batch_that_each_cannot_split_is_kept_whole(engine: Durable, client: FlaskClient, body: Any) -> None:
    """As one unroutable request, which a corrected ``each`` splits."""
    answer = send(client, "receivers.batch", body)
    (row,) = rows(engine)
    assert (answer.status_code, row.outcome, row.rule) == (202, "unroutable", "each")

    each, batch.each = batch.each, lambda request: [{"do": "start", "id": "x"}, {"do": "start", "id": "y"}]
    try:
        route_again.route_again(engine, row.request_id)
    finally:
        batch.each = each

    assert [row.outcome for row in rows(engine)] == ["started", "started"]
    settle(engine, *started(engine))
    assert sorted(run.result(timeout=0) for run in started(engine)) == ["x", "y"]


# What stays


@all_databases()
def test_what_has_reached_a_run_goes_with_it_and_the_rest_by_age(engine: Durable, client: FlaskClient) -> None:
    """``prune`` leaves what waits."""
    send(client, "receivers.shop", {"id": "1", "type": "paid"})
    send(client, "receivers.shop", {"id": "2", "type": "refund"})
    send(client, "receivers.orders", {"id": 3, "type": "paid", "order": "none"})
    settle(engine, *started(engine))

    prune(engine, "0s")

    assert [row.outcome for row in rows(engine)] == ["waiting"]
    with engine.store.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(requests)).scalar() == 1


@all_databases()
def test_encrypted_and_large_requests_move_to_their_run(engine: Durable, client: FlaskClient, database: str) -> None:
    """What waits is encrypted under another name than what a run has."""
    with more_engines(database) as make:
        engine = make(cipher=aes_gcm({"key": bytes(range(32))}))
        client = client_of(engine)
        for number, size in enumerate([10, 400_000]):
            send(client, "receivers.orders", {"id": number, "padding": "x" * size, "order": f"E{number}"})
        encrypted = [engine.start(listening_once, f"E{number}") for number in range(2)]
        settle(engine, *encrypted)

        assert [run.result(timeout=0) for run in encrypted] == ["0", "1"]
        assert {row.outcome for row in rows(engine)} == {"resumed"}
        forget(engine)


def test_a_crash_after_the_commit_is_made_good_by_the_sweep(engine: Durable, client: FlaskClient) -> None:
    """The run is there; its message is sent later."""
    with armed("request.recorded=raise@1"):
        assert send(client, "receivers.shop", {"id": "1", "type": "paid"}).status_code == 500
    (run,) = started(engine)

    assert send(client, "receivers.shop", {"id": "1", "type": "paid"}).headers["Idempotent-Replayed"] == "true"
    settle(engine, run)
    assert run.result(timeout=0) == "1"
