"""
Each sender against gunicorn gthread with PostgreSQL and Redis, and all workers stopped.

Accepted, tampered, expired, rotated, replayed, hostile, and its handshake; what was accepted is worked on when there
is a worker again.  Amazon SNS is moto, which posts to us by itself.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import pytest
import requests as http
import senders
import sqlalchemy as sa
from accepted_flows import takes_signed
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from moto import mock_aws
from processes import Answer, Deployment, deployed, fetch
from senders import SENDERS, TOPIC, Sender, sign_twilio, sns_message
from servers import new_broker, new_database

from durable import Run, verify
from durable.store.schema import requests
from durable.turns.drive import drive

pytestmark = [pytest.mark.live, pytest.mark.untimed]

PLAIN = {"TOKEN": "my verify token", "STATE0": "first secret", "STATE1": "second secret"}
#: Senders whose deliveries have no id that tells copies.
WITHOUT_KEY = {"meta", "zoom", "x", "hmac"}
#: Where others have theirs, as far as ``senders`` does not send one.
EVENTS = {"slack": b'{"event_id": "Ev1", "type": "event_callback"}'}
IDS = {"twilio": {"I-Twilio-Idempotency-Token": "t1"}}


def _variables() -> dict[str, str]:
    """The secrets of all senders, before and after a change."""
    named = {f"S{n}_{i}": sender.secrets[i] for n, sender in enumerate(SENDERS.values()) for i in (0, 1)}
    return PLAIN | {name: secret.decode() for name, secret in named.items()}


@contextmanager
def _amazon() -> Iterator[str]:
    """A server that gives the certificates of ``senders``, and whatever moto has."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = unquote(self.path[1:])
            found = senders.CERTIFICATE if url == senders.CERTIFICATE_URL else http.get(url, timeout=10).content
            self.send_response(200)
            self.end_headers()
            self.wfile.write(found)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """No worker."""
    folder: Path = tmp_path_factory.mktemp("senders")
    with (
        new_database("postgresql", folder) as database_url,
        new_broker("redis", folder) as broker_url,
        _amazon() as amazon,
    ):
        described = Deployment(
            folder,
            database_url,
            broker_url,
            "accepted_app",
            "accepted_app:create_app()",
            settings=_variables() | {"AMAZON": amazon},
        )
        with deployed(described) as made:
            made.start_web()
            yield made


@dataclass
class Playing:
    """A run that waits for a sender, and the sender."""

    site: Deployment
    run: Run[Any]
    url: str

    def send(self, body: bytes, headers: dict[str, str], query: str = "", method: str = "POST") -> Answer:
        return fetch(method, self.url + query, body, headers)

    def recorded(self) -> list[bytes]:
        with self.site.engine.store.read() as tx:
            query = sa.select(requests.c.body).where(requests.c.run_id == self.run.id).order_by(requests.c.received_at)
            return [bytes(row.body) for row in tx.execute(query)]


def play(site: Deployment, wanted: verify.Verification) -> Playing:
    """Its run listens: this process plays the worker for the first turn."""
    run: Run[Any] = site.engine.start(takes_signed, wanted.as_json())
    drive(site.engine, run.id)
    (hook,) = run.hooks()
    return Playing(site, run, str(hook["url"]))


def wanted_by(name: str) -> verify.Verification:
    """The sender's verification with both of its secrets."""
    number = list(SENDERS).index(name)
    more = {purpose: ("env:TOKEN",) for purpose in SENDERS[name].more}
    return replace(SENDERS[name].verification, references={"secret": (f"env:S{number}_0", f"env:S{number}_1"), **more})


def signed(sender: Sender, playing: Playing, *, secret: int = 0, late_by: int = 0) -> dict[str, str]:
    sign = sender.sign
    if sign is sign_twilio:
        sign = partial(sign_twilio, url=playing.url + sender.query)
    return sign(sender.secrets[secret], int(time.time()) - late_by, sender.body)


@pytest.mark.parametrize("name", SENDERS)
def test_c67_a_sender_with_all_workers_stopped(site: Deployment, name: str) -> None:
    """Tampered, unsigned, expired, ahead and hostile: 401 and nothing recorded; its own by either secret: recorded."""
    sender, playing = SENDERS[name], play(site, wanted_by(name))
    sender = replace(sender, body=EVENTS.get(name, sender.body))
    good = signed(sender, playing) | IDS.get(name, {})
    send = partial(playing.send, query=sender.query)
    type_ = {k: v for k, v in good.items() if k == "Content-Type"}

    refused = [send(sender.body + b"!", good), send(sender.body, type_)]
    if sender.dated:
        refused += [send(sender.body, signed(sender, playing, late_by=late)) for late in (310, -310)]
    told = ("content-type", "x-github-delivery", "x-shopify-webhook-id", "i-twilio-idempotency-token")
    proofs = [header for header in good if header.lower() not in told]
    for header in proofs:
        for hostile in ("", ",", "=", "t=,v1=", "v1,", "sha256=", "\xe9", "9" * 300, "x" * 8000):
            refused.append(send(sender.body, {**good, header: hostile}))
    refused += [send(body, good) for body in (b"", b"\xff\xfe", b"[" * 100_000)]
    assert {(answer.status, answer.data) for answer in refused} == {(401, refused[0].data)}
    assert playing.recorded() == []

    assert send(sender.body, good).status == 202
    again = send(sender.body, good)
    rotated = send(sender.body, signed(sender, playing, secret=1) | IDS.get(name, {}))
    assert (again.status, rotated.status) == (202, 202)
    assert (again.headers["Idempotent-Replayed"] == "true") == (name not in WITHOUT_KEY)
    assert playing.recorded() == [sender.body] * (3 if name in WITHOUT_KEY else 1)


@pytest.mark.parametrize("name", ["stripe", "github", "slack", "shopify", "twilio", "discord", "svix"])
def test_a_verifier_without_its_secret_accepts_nobody(site: Deployment, name: str) -> None:
    """503 with Retry-After for the sender's own: the trouble is ours."""
    wanted = replace(SENDERS[name].verification, references={"secret": ("env:NOT_THERE",)})
    playing = play(site, wanted)

    answer = playing.send(SENDERS[name].body, signed(SENDERS[name], playing), SENDERS[name].query)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
    assert playing.recorded() == []


def test_handshakes_with_all_workers_stopped(site: Deployment) -> None:
    """Each sender's own, signed where it signs them; none becomes a request."""
    playing = {name: play(site, wanted_by(name)) for name in ("slack", "discord", "zoom", "meta", "x")}

    def shake(name: str, body: bytes) -> Answer:
        sender = replace(SENDERS[name], body=body)
        assert playing[name].send(body, {}).status == 401
        return playing[name].send(body, signed(sender, playing[name]))

    def get(name: str, query: str) -> Answer:
        return playing[name].send(b"", {}, query, "GET")

    assert shake("slack", b'{"type": "url_verification", "challenge": "c1"}').data == b"c1"
    assert get("slack", "?ssl_check=1").status == 200
    assert shake("discord", b'{"type": 1}').json() == {"type": 1}
    assert shake("discord", b'{"type": 0}').status == 204
    plain = b'{"event": "endpoint.url_validation", "payload": {"plainToken": "p"}}'
    assert shake("zoom", plain).json()["plainToken"] == "p"
    asked = get("meta", "?hub.mode=subscribe&hub.verify_token=my%20verify%20token&hub.challenge=11")
    assert (asked.status, asked.data) == (200, b"11")
    assert get("meta", "?hub.mode=subscribe&hub.verify_token=no&hub.challenge=11").status == 403
    assert get("x", "?crc_token=t").json()["response_token"].startswith("sha256=")
    assert [each.recorded() for each in playing.values()] == [[]] * 5


def test_microsoft_graph(site: Deployment) -> None:
    """The validation as text and escaped; notifications by their state, either of two; another one's is refused."""
    playing = play(site, verify.graph(["env:STATE0", "env:STATE1"]))
    asked = playing.send(b"", {}, "?validationToken=a%20b%3Cc")
    assert (asked.data, asked.headers["Content-Type"]) == (b"a b&lt;c", "text/plain; charset=utf-8")
    bad: list[Any] = [{"value": []}, {"value": [{"clientState": "no"}]}, [], {"value": 7}]
    assert {playing.send(json.dumps(body).encode(), {}).status for body in bad} == {401}
    assert playing.recorded() == []

    for state in ("STATE0", "STATE1"):
        body = json.dumps({"value": [{"clientState": PLAIN[state]}]}).encode()
        assert playing.send(body, {}).status == 202
    assert len(playing.recorded()) == 2


def test_cloudevents_by_their_own_package(site: Deployment) -> None:
    """Allowed by OPTIONS; binary and structured events as the package makes them; a copy by source and id is none."""
    playing = play(site, verify.cloudevents("env:TOKEN", origins=["events.test"]))
    allowed = playing.send(b"", {"WebHook-Request-Origin": "events.test"}, method="OPTIONS")
    assert (allowed.status, allowed.headers["WebHook-Allowed-Origin"]) == (200, "events.test")
    told = {"type": "order", "source": "/shop", "datacontenttype": "application/json", "specversion": "1.0"}
    bearer = {"Authorization": f"Bearer {PLAIN['TOKEN']}"}
    for number, form in enumerate((to_binary_event, to_structured_event)):
        event = CloudEvent({**told, "id": f"e{number}"}, {"total": number})
        message = form(event)
        assert playing.send(message.body, dict(message.headers)).status == 401
        first, again = (playing.send(message.body, {**message.headers, **bearer}) for _ in range(2))
        assert (first.status, first.headers["Idempotent-Replayed"]) == (202, None)
        assert (again.status, again.headers["Idempotent-Replayed"]) == (202, "true")
    assert len(playing.recorded()) == 2


def test_amazon_sns_by_moto(site: Deployment) -> None:
    """A published message is posted, verified and recorded; a changed, an old, another topic's and a copy are not."""
    with mock_aws():
        sns = boto3.client("sns", "eu-west-1", aws_access_key_id="a", aws_secret_access_key="b")
        topic = sns.create_topic(Name="orders")["TopicArn"]
        other = sns.create_topic(Name="others")["TopicArn"]
        playing = play(site, verify.sns(topic))
        for arn in (topic, other):
            sns.subscribe(TopicArn=arn, Protocol="http", Endpoint=playing.url)
        sns.publish(TopicArn=other, Message="not ours")
        assert playing.recorded() == []
        sns.publish(TopicArn=topic, Message="hello")
        (body,) = playing.recorded()
        assert json.loads(body)["Message"] == "hello"

        as_text = {"Content-Type": "text/plain; charset=UTF-8"}
        assert playing.send(body.replace(b"hello", b"hallo"), as_text).status == 401
        assert playing.send(body, as_text).headers["Idempotent-Replayed"] == "true"
        assert playing.recorded() == [body]


def test_amazon_sns_that_moto_does_not_play(site: Deployment) -> None:
    """A subject, SHA-1, age, a certificate elsewhere, and the confirmation, which is fetched and no request."""
    playing, now = play(site, verify.sns(TOPIC, confirm=True)), int(time.time())
    elsewhere = [f"http://{host}/a.pem" for host in ("127.0.0.1", "169.254.169.254", "sns.evil.test")]
    bad = [sns_message(now - 7300), sns_message(now, key=_stranger()), b"{}", b"[]", b"\xff"]
    bad += [sns_message(now, SigningCertURL=url) for url in elsewhere]
    assert {playing.send(body, {}).status for body in bad} == {401}
    kind = {"Type": "SubscriptionConfirmation", "Token": "abc"}
    url = f"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
    assert playing.send(sns_message(now, SubscribeURL="http://127.0.0.1/", **kind), {}).status == 401
    with mock_aws():
        assert playing.send(sns_message(now, SubscribeURL=url, **kind), {}).status == 200
    assert playing.recorded() == []
    good = [sns_message(now, version="1", MessageId="a"), sns_message(now, Subject="s", MessageId="b")]
    assert [playing.send(body, {}).status for body in good] == [202, 202]


def _stranger() -> Any:
    return senders.rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_what_was_accepted_without_workers_is_worked_on_by_one(site: Deployment) -> None:
    """One delivery of each sender; then a worker starts, and each run ends with its own."""
    playing = {name: play(site, wanted_by(name)) for name in SENDERS}
    for name, each in playing.items():
        sender = SENDERS[name]
        assert each.send(sender.body, signed(sender, each), sender.query).status == 202
    assert {each.run.status for each in playing.values()} == {"running"}

    site.start_worker()
    for name, each in playing.items():
        assert each.run.result(timeout="20s") == SENDERS[name].body
    site.stop("worker", 9)
