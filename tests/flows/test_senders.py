"""Webhooks with ``verify``, over HTTP: refusals and handshakes need no worker and record nothing."""

from __future__ import annotations

import logging
from typing import Any

import flask
import pytest
import senders
import sqlalchemy as sa
from driving import settle
from flask.testing import FlaskClient
from senders import SENDERS, TOPIC
from werkzeug.test import TestResponse

from durable import Durable, Request, Run, create_webhook, step, verify, workflow
from durable.store.schema import events, hooks, inbox, requests
from durable.turns.drive import drive
from durable.verify import Unavailable
from durable.web import create_blueprint, limits, webhook_view

BASE = "https://hooks.test"
SECRETS = {
    "FIRST": "first secret",
    "SECOND": "second secret",
    "WHSEC": SENDERS["svix"].secrets[0].decode(),
    "DISCORD": SENDERS["discord"].secrets[0].decode(),
    "TOKEN": "my verify token",
}

WEBHOOKS: dict[str, dict[str, Any]] = {
    "stripe": {"verify": verify.stripe(["env:SECOND", "env:FIRST"])},
    "github": {"verify": verify.github("env:FIRST")},
    "slack": {"verify": verify.slack("env:FIRST")},
    "twilio": {"verify": verify.twilio("env:FIRST")},
    "discord": {"verify": verify.discord("env:DISCORD")},
    "svix": {"verify": verify.svix("env:WHSEC")},
    "meta": {"verify": verify.meta("env:FIRST", verify_token="env:TOKEN"), "dedupe": "/id"},
    "graph": {"verify": verify.graph("env:FIRST"), "dedupe": "/value/0/id"},
    "cloudevents": {"verify": verify.cloudevents("env:TOKEN", origins=["events.test"])},
    "x": {"verify": verify.x("env:FIRST")},
    "zoom": {"verify": verify.zoom("env:FIRST")},
    "sns": {"verify": verify.sns(TOPIC, confirm=True)},
    "missing": {"verify": verify.github("env:NOT_THERE")},
}


@step
def keep(request: Request) -> bytes:
    return request.data


@workflow
async def listening(sender: str) -> bytes:
    return await keep(await create_webhook(**WEBHOOKS[sender]))


class Caller:
    """A run that waits for a sender, and a client that acts as the sender; no worker runs."""

    def __init__(self, engine: Durable, sender: str, client: FlaskClient) -> None:
        self.engine, self.client = engine, client
        self.run: Run[Any] = engine.start(listening, sender)
        drive(engine, self.run.id)
        self.url: str = self.run.hooks()[0]["url"]

    def send(self, method: str = "POST", query: str = "", body: bytes = b"", **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(self.url.removeprefix(BASE) + query, method=method, data=body, headers=named)

    def signed(self, name: str, body: bytes, *, late_by: int = 0, **signer: Any) -> TestResponse:
        sender = SENDERS[name]
        at = self.engine.now() // 1_000_000 - late_by
        return self.send(body=body, query=signer.pop("query", ""), **sender.sign(sender.secrets[0], at, body, **signer))

    def recorded(self) -> int:
        with self.engine.store.read() as tx:
            return int(tx.execute(sa.select(sa.func.count()).select_from(requests)).scalar_one())


@pytest.fixture
def call(engine: Durable, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    app = flask.Flask("senders")
    app.register_blueprint(create_blueprint(engine))
    return lambda sender: Caller(engine, sender, app.test_client())


@pytest.mark.parametrize("name", ["stripe", "github", "slack", "discord", "svix", "meta", "x", "zoom"])
def test_c67_a_signed_request_is_recorded_and_any_other_is_not(call, name):
    """A signed request gets 202; a tampered, an unsigned and an old one get the same 401."""
    caller = call(name)
    body = b'{"id": "evt_1", "type": "order"}'
    sender = SENDERS[name]
    headers = sender.sign(sender.secrets[0], caller.engine.now() // 1_000_000, body)

    refused = [caller.send(body=body + b" ", **headers), caller.send(body=body)]
    if sender.dated:
        refused += [caller.signed(name, body, late_by=310), caller.signed(name, body, late_by=-310)]
    assert {(answer.status_code, answer.data) for answer in refused} == {(401, refused[0].data)}
    assert refused[0].content_type == "application/problem+json"
    assert caller.recorded() == 0

    assert caller.send(body=body, **headers).status_code == 202
    settle(caller.engine, caller.run)
    assert caller.run.result(timeout=1) == body


def test_a_delivery_played_again_is_recorded_once(call):
    """GitHub signs no timestamp, so the delivery's id protects against a replay."""
    caller = call("github")
    first, again = (caller.signed("github", b"{}") for _ in range(2))

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert caller.recorded() == 1


def test_a_key_is_used_up_only_by_its_sender(call):
    """An unsigned request does not use up a delivery's id."""
    caller = call("github")
    assert caller.send(body=b"forged", X_GitHub_Delivery="guid-1").status_code == 401
    assert caller.signed("github", b"{}").status_code == 202


def test_twilio_signs_the_url_that_the_world_sees(call):
    """The public URL is checked behind a proxy, with the query as sent, and a form with repeated fields."""
    caller = call("twilio")
    form = b"Body=caf%C3%A9&a=2&a=1"
    bad = caller.signed("twilio", form, query="?x=%20y", url=caller.url + "?x=+y")
    good = caller.signed("twilio", form, query="?x=%20y", url=caller.url + "?x=%20y")

    assert (bad.status_code, good.status_code) == (401, 202)


def test_twilio_records_only_what_its_signature_covers(call):
    """The signature of the bare URL with any body, and a signed form with a byte more: 401, and nothing is recorded."""
    caller = call("twilio")
    bare = SENDERS["twilio"].sign(SENDERS["twilio"].secrets[0], 0, b"", url=caller.url)["X-Twilio-Signature"]
    form, file = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nforged\r\n--b--\r\n'
    refused = [
        caller.send(body=b'{"forged": 1}', X_Twilio_Signature=bare, Content_Type="application/json"),
        caller.send(body=b"forged", X_Twilio_Signature=bare),
        caller.send(body=b"forged=\xff", X_Twilio_Signature=bare, Content_Type=form),
        caller.send(body=part, X_Twilio_Signature=bare, Content_Type=file),
        caller.send(body=part[:-6], X_Twilio_Signature=bare, Content_Type=file),
    ]
    assert [answer.status_code for answer in refused] == [401] * 5
    assert caller.recorded() == 0

    assert caller.signed("twilio", b"To=%2B1&Body=caf%C3%A9", url=caller.url).status_code == 202
    assert caller.recorded() == 1


def test_twilio_signs_the_trailing_slash_that_it_was_given(call):
    """A signature of the URL with the slash is valid only for that URL."""
    caller = call("twilio")
    bad = caller.signed("twilio", b"a=1", query="/?x=1", url=caller.url + "?x=1")
    good = caller.signed("twilio", b"a=1", query="/?x=1", url=caller.url + "/?x=1")

    assert (bad.status_code, good.status_code) == (401, 202)


def test_handshakes_need_no_worker_and_leave_nothing(call):
    """Each sender's handshake, signed if the sender signs it, is answered and not recorded."""
    slack, discord, zoom = call("slack"), call("discord"), call("zoom")
    challenge = b'{"type": "url_verification", "challenge": "c1"}'
    assert slack.signed("slack", challenge).data == b"c1"
    assert slack.send(body=challenge).status_code == 401
    assert slack.send("GET", "?ssl_check=1").status_code == 200
    assert discord.signed("discord", b'{"type": 1}').json == {"type": 1}
    assert discord.send(body=b'{"type": 1}').status_code == 401
    validation = b'{"event": "endpoint.url_validation", "payload": {"plainToken": "p"}}'
    assert zoom.signed("zoom", validation).json["plainToken"] == "p"

    meta = call("meta")
    asked = meta.send("GET", "?hub.mode=subscribe&hub.verify_token=my+verify+token&hub.challenge=11")
    assert (asked.status_code, asked.data) == (200, b"11")
    assert meta.send("GET", "?hub.mode=subscribe&hub.verify_token=no&hub.challenge=11").status_code == 403
    assert meta.send("GET").status_code == 405

    graph = call("graph").send("POST", "?validationToken=a%20b%3Cc", b"")
    assert (graph.data, graph.content_type) == (b"a b&lt;c", "text/plain; charset=utf-8")
    options = call("cloudevents").send("OPTIONS", WebHook_Request_Origin="events.test")
    assert (options.status_code, options.headers["WebHook-Allowed-Origin"]) == (200, "events.test")
    assert call("x").send("GET", "?crc_token=t").json["response_token"].startswith("sha256=")
    assert call("github").send("GET", "?hub.mode=subscribe").status_code == 405
    assert slack.recorded() == 0


def test_sns_is_confirmed_by_the_web_process(call, monkeypatch):
    """The confirmation is verified, then its URL is fetched once; a text/plain message is recorded."""
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return senders.CERTIFICATE

    monkeypatch.setattr(webhook_view, "Fetcher", lambda: fetch)
    caller = call("sns")
    caller.client.application.register_blueprint(create_blueprint(caller.engine, url_prefix="/b"), name="second")
    now = caller.engine.now() // 1_000_000
    path = "/b" + caller.url.removeprefix(BASE)
    url = f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
    kind = {"Type": "SubscriptionConfirmation", "Token": "abc"}

    forged = caller.client.post(path, data=senders.sns_message(now, SubscribeURL="http://127.0.0.1/", **kind))
    assert forged.status_code == 401
    assert fetched == [senders.CERTIFICATE_URL]
    answer = caller.client.post(path, data=senders.sns_message(now, SubscribeURL=url, **kind))
    assert answer.status_code == 200
    assert fetched[-1] == url
    assert caller.recorded() == 0
    message = caller.client.post(path, data=senders.sns_message(now), content_type="text/plain; charset=UTF-8")
    assert (message.status_code, caller.recorded()) == (202, 1)


def test_what_cannot_be_fetched_is_not_the_senders_fault(call, monkeypatch, caplog):
    """The answer is 503, so the sender sends it again; the log says why."""

    def fetch(url: str) -> bytes:
        raise Unavailable("sns.eu-west-1.amazonaws.com does not answer: TimeoutError")

    monkeypatch.setattr(webhook_view, "Fetcher", lambda: fetch)
    caller = call("sns")
    caller.client.application.register_blueprint(create_blueprint(caller.engine, url_prefix="/b"), name="second")
    body = senders.sns_message(caller.engine.now() // 1_000_000)
    answer = caller.client.post("/b" + caller.url.removeprefix(BASE), data=body)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "does not answer: TimeoutError" in caplog.text


def test_a_secret_that_is_missing_accepts_nobody(call, caplog):
    """The answer is 503 with Retry-After, nothing is recorded, and the log says what to do."""
    caller = call("missing")
    answer = caller.signed("github", b"{}")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "NOT_THERE" not in answer.text
    assert "The web process has no environment variable NOT_THERE.  Set it" in caplog.text
    assert caller.recorded() == 0


def test_no_secret_and_no_signature_is_written_anywhere(call, caplog):
    """They are in no log, in no table of webhooks or inboxes, and in no answer."""
    caplog.set_level(logging.DEBUG)
    caller = call("stripe")
    caller.engine.start(listening, "meta")
    answers = [caller.signed("stripe", b'{"id": "1"}'), caller.send(body=b"x", Stripe_Signature="t=1,v1=feed")]
    drive(caller.engine, caller.run.id)

    with caller.engine.store.read() as tx:
        tables = {table.name: str(tx.execute(sa.select(table)).all()) for table in (hooks, inbox, events)}
        heads = str(tx.execute(sa.select(requests.c.head)).all())
    said = caplog.text + "".join(answer.text for answer in answers)
    for secret in SECRETS.values():
        assert secret not in said + heads + str(tables)
    assert "feed" not in said
    assert "env:SECOND" in tables["durable_hooks"]
    assert "Refused" not in said
    assert "the timestamp is too far from now" in caplog.text


def test_a_closed_webhook_tells_strangers_that_it_is_gone(call):
    """Anything but a copy of a recorded request gets 410, also without a signature."""
    caller = call("github")
    assert caller.signed("github", b"{}").status_code == 202
    settle(caller.engine, caller.run)
    assert caller.run.status == "completed"

    assert caller.send(body=b"x").status_code == 410
    assert caller.send("PUT", body=b"x").status_code == 410
    assert caller.signed("github", b"{}").headers["Idempotent-Replayed"] == "true"


def test_a_handshake_with_a_closed_webhook_gets_no_recorded_answer(call):
    """A handshake may be unsigned, so it gets 410 even with the key of a recorded request."""
    caller = call("graph")
    body = b'{"value": [{"clientState": "first secret", "id": "n1"}]}'
    assert caller.send(body=body).status_code == 202
    settle(caller.engine, caller.run)

    assert caller.send(body=body).headers["Idempotent-Replayed"] == "true"
    for forged in (b'{"value": [{"id": "n1"}]}', body):
        assert caller.send("POST", "?validationToken=x", forged).status_code == 410


@pytest.mark.parametrize("headers", [{f"X-{i}": "a" for i in range(101)}, {"X-Large": "a" * 65536}])
def test_a_request_may_have_so_many_headers(call, headers):
    """More or larger headers get 431, and nothing is recorded."""
    caller = call("github")

    answer = caller.send(body=b"", **headers)
    assert (answer.status_code, answer.json["code"]) == (431, "headers-too-large")
    assert caller.recorded() == 0


def test_guessing_tokens_is_answered_429(call):
    """After 20 in a minute; a webhook that exists still answers."""
    caller = call("github")
    path = "/.well-known/workflow/v1/webhook/"
    answers = [caller.client.post(path + f"{'x' * 30}{i}") for i in range(22)]

    assert [answer.status_code for answer in answers] == [404] * 20 + [429] * 2
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert caller.signed("github", b"{}").status_code == 202


def test_failed_lookups_are_counted_in_bounded_memory(monkeypatch):
    """Counted by address, IPv6 by /64, for a minute; the number of addresses is limited."""
    now = [0.0]
    failed = limits.FailedLookups(lambda: now[0])
    for number in range(limits.FAILURES):
        assert failed.count(f"2001:db8::{number:x}") is None
    assert failed.count("2001:db8::ffff") == 60
    assert failed.count("192.0.2.1") is None
    now[0] = 60
    assert failed.count("2001:db8::1") is None

    monkeypatch.setattr(limits, "ADDRESSES", 100)
    for number in range(1000):
        failed.count(f"10.0.{number // 256}.{number % 256}")
    assert len(failed) == 100
