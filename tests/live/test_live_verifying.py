"""Senders and gunicorn, with no worker at all: what is refused, what is answered, and what is recorded for later."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from senders import SENDERS
from servers import new_broker, new_database
from webservers import Server, body_of, header_of, post, serve, status_of

from durable import Durable, create_webhook, verify, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web.wsgi_request import PATH

pytestmark = pytest.mark.live

APP = """
import os
import flask
from celery import Celery
from durable import Durable
from durable.web import create_blueprint

celery = Celery("verifying", broker=os.environ["BROKER"])
app = flask.Flask(__name__)
app.register_blueprint(create_blueprint(Durable(celery, database_url=os.environ["DATABASE"])))
"""

WEBHOOKS = {
    "stripe": verify.stripe("env:TEXT"),
    "slack": verify.slack("env:TEXT"),
    "discord": verify.discord("env:HEX"),
    "meta": verify.meta("env:TEXT", verify_token="env:TEXT"),
}


@workflow
async def listening(sender: str) -> None:
    async for _ in create_webhook(verify=WEBHOOKS[sender]):
        pass


def signed(path: str, name: str, body: bytes) -> bytes:
    sender = SENDERS[name]
    headers = sender.sign(sender.secrets[0], int(time.time()), body)
    return post(path, body, *(f"{name}: {value}" for name, value in headers.items()))


def ask(server: Server, request: bytes) -> tuple[int, bytes]:
    answer = server.send(request)
    return status_of(answer), body_of(answer)


def test_no_worker_is_needed_to_refuse_to_shake_hands_and_to_record(tmp_path: Path) -> None:
    """PostgreSQL, Redis, gthread: 401, handshakes, 50 copies at once, 422; the logs hold no token and no signature."""
    (tmp_path / "verifying_app.py").write_text(APP)
    with new_database("postgresql", tmp_path) as database, new_broker("redis", tmp_path) as broker:
        engine = Durable(Celery("verifying", broker=broker), database_url=database, public_url="http://hooks.test")
        engine.migrate()
        paths = {}
        for name in WEBHOOKS:
            run = engine.start(listening, name)
            drive(engine, run.id)
            paths[name] = PATH + run.hooks()[0]["token"]
        secrets = {"TEXT": SENDERS["stripe"].secrets[0].decode(), "HEX": SENDERS["discord"].secrets[0].decode()}
        env = {"BROKER": broker, "DATABASE": database, **secrets}
        shown = "%(r)s %(s)s %({stripe-signature}i)s"
        with serve("gthread", "verifying_app:app", tmp_path, "--access-logformat", shown, env=env) as server:
            _refusals_and_handshakes(server, paths)
            assert _recorded(engine) == 0
            event = signed(paths["stripe"], "stripe", b'{"id": "evt_1"}')
            with ThreadPoolExecutor(50) as threads:
                answers = list(threads.map(server.send, [event] * 50))
            assert {(status_of(answer), body_of(answer)) for answer in answers} == {(202, b"")}
            assert [header_of(answer, "Idempotent-Replayed") for answer in answers].count("true") == 49
            assert ask(server, signed(paths["stripe"], "stripe", b'{"id": "evt_1", "b": 1}'))[0] == 422
            assert _recorded(engine) == 1
        said = server.log.read_text()
        engine.close()
    assert "POST /.well-known/workflow/v1/webhook/..." in said
    assert not [value for value in [*paths.values(), *secrets.values(), "v1="] if value in said]


def _refusals_and_handshakes(server: Server, paths: dict[str, str]) -> None:
    for name, path in paths.items():
        began = time.monotonic()
        assert (
            ask(server, post(path, b'{"type": 1}', "Stripe-Signature: t=1,v1=\xe9", "X-Hub-Signature-256: x"))[0] == 401
        )
        assert time.monotonic() - began < 1, name
    challenge = b'{"type": "url_verification", "challenge": "c1"}'
    assert ask(server, signed(paths["slack"], "slack", challenge)) == (200, b"c1")
    status, body = ask(server, signed(paths["discord"], "discord", b'{"type": 1}'))
    assert (status, json.loads(body)) == (200, {"type": 1})
    query = "?hub.mode=subscribe&hub.verify_token=first%20secret&hub.challenge=11"
    get = f"GET {paths['meta']}{query} HTTP/1.1\r\nHost: hooks.test\r\nConnection: close\r\n\r\n"
    assert ask(server, get.encode()) == (200, b"11")


def _recorded(engine: Durable) -> int:
    with engine.store.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(requests)).scalar_one())
