"""The routes on which browsers read: who may, what is sent, and that a lost connection loses nothing."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import flask
import pytest
import uvicorn
from celery import Celery
from servers import migrate
from werkzeug.serving import WSGIRequestHandler, make_server

from durable import ConfigurationError, Durable, Run, Stream, Value, create_hook, emit, publish, resume_hook, workflow
from durable.client import read_tokens
from durable.display import mask
from durable.testing import Environment
from durable.turns.drive import drive
from durable.web import create_asgi_app, create_blueprint, hub
from durable.web.wsgi_request import ROOT

KEY = "a signing key of the tests"
rows = Stream("rows", int)
url = Value("url", str)


@workflow(name="reading.flow")
async def flow(token: str) -> None:
    publish(url, "https://example.com/1")
    emit(rows, 0)
    emit("a/b c", "odd")
    async for number in create_hook(token=token):
        if number is None:
            break
        emit(rows, number)


class Site:
    """A real server with the routes, and an engine whose runs are driven in this process."""

    def __init__(self, folder: Path, kind: str = "wsgi", **settings: Any) -> None:
        database = f"sqlite:///{folder / 'read.db'}"
        celery = Celery("reading", broker="memory://", set_as_current=False)
        self.engine = Durable(celery, database_url=database, signing_key=KEY, **settings)
        migrate(self.engine)
        #: What ``read=`` answers, and what it was asked.
        self.may_read: Any = None
        self.asked: list[tuple[str, str, str]] = []
        self.app = flask.Flask("reading")

        def may_read(request: flask.Request, run_id: str, kind: str, name: str) -> Any:
            self.asked.append((run_id, kind, name))
            return self.may_read

        self.app.register_blueprint(create_blueprint(self.engine, read=may_read))
        self.server: Any = AsgiServer(create_asgi_app(self.engine, read=may_read)) if kind == "asgi" else None
        if self.server is None:
            self.server = make_server("127.0.0.1", 0, self.app, threaded=True, request_handler=Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def run(self, token: str) -> Run[Any]:
        run = self.engine.start(flow, token)
        drive(self.engine, run.id)
        return run

    def send(self, run: Run[Any], token: str, *numbers: int | None) -> None:
        for number in numbers:
            resume_hook(token, number)
            drive(self.engine, run.id)

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        named = {name.replace("_", "-"): headers[name] for name in headers}
        connection.request("GET", ROOT + path, headers={"Connection": "close"} | named)
        return connection.getresponse()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.engine.close()


class AsgiServer:
    """uvicorn in a thread, used as Werkzeug's server is."""

    def __init__(self, app: Any) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        self._ended = threading.Event()

    def serve_forever(self) -> None:
        self._server.run([self._listener])
        self._ended.set()

    def shutdown(self) -> None:
        self._server.should_exit = True
        assert self._ended.wait(10)

    def server_close(self) -> None:
        self._listener.close()


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"


@pytest.fixture(params=["wsgi", "asgi"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path, request.param)) as made:
        yield made


def event_of(response: http.client.HTTPResponse) -> dict[str, str]:
    """The next event with an id; skips comments and ``retry``."""
    fields: dict[str, str] = {}
    while True:
        line = response.readline()
        assert line, "the connection has ended"
        text = line.decode().rstrip("\n")
        if not text and "id" in fields:
            return fields
        if text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value
        elif not text:
            fields = {}


def grant_for(run_id: str, expires_at: int = 2**60) -> read_tokens.Grant:
    return read_tokens.Grant(run_id, frozenset(["rows"]), frozenset(["rows"]), expires_at)


def test_items_come_as_events_and_the_end_is_an_event(site):
    run = site.run("read-1")
    response = site.get(f"streams/{run.id}/rows?token={run.read_token(streams=[rows])}")
    assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
    assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-store", "no")
    first = event_of(response)
    sent = json.loads(first["data"])
    assert sent.pop("at").startswith("20")
    assert sent == {"number": 0, "item": 0, "step": None, "attempt": None, "discards": False}
    site.send(run, "read-1", 1)
    assert (first["id"], event_of(response)["id"]) == ("0", "1")
    site.send(run, "read-1", None)
    assert event_of(response) == {"id": "1", "event": "end", "data": "{}"}
    assert response.read() == b""


def test_a_browser_that_comes_back_gets_what_it_lacks_once(site):
    """By ``Last-Event-ID``, which counts more than the URL; at the end it is told not to come again."""
    run = site.run("read-2")
    site.send(run, "read-2", 1, 2)
    path = f"streams/{run.id}/rows?start=1&token={run.read_token(streams=['rows'])}"
    with closing(site.get(path)) as response:
        assert [event_of(response)["id"] for _ in range(2)] == ["1", "2"]
    site.send(run, "read-2", 3, None)
    response = site.get(path, Last_Event_ID="1")
    assert [event_of(response)["id"] for _ in range(3)] == ["2", "3", "3"]
    over = site.get(path, Last_Event_ID="3")
    assert (over.status, over.read()) == (204, b"")


def test_a_stream_without_items_ends_and_stays_ended(site):
    run = site.run("read-3")
    site.send(run, "read-3", None)
    path = f"streams/{run.id}/none?token={run.read_token(streams=['none'])}"
    assert event_of(site.get(path)) == {"id": "-1", "event": "end", "data": "{}"}
    assert site.get(path, Last_Event_ID="-1").status == 204


def test_any_name_may_be_read(site):
    run = site.run("read-4")
    response = site.get(f"streams/{run.id}/a%2Fb%20c?token={run.read_token(streams=['a/b c'])}")
    assert json.loads(event_of(response)["data"])["item"] == "odd"


def test_a_value_is_read_with_its_own_permission(site):
    run = site.run("read-5")
    token = run.read_token(values=[url, "later"])
    response = site.get(f"values/{run.id}/url?token={token}")
    assert response.status == 200
    found = json.loads(response.read())
    assert (found["name"], found["value"]) == ("url", "https://example.com/1")
    assert site.get(f"values/{run.id}/later?token={token}").status == 404
    assert site.get(f"streams/{run.id}/url?token={token}").status == 403


def test_only_a_token_of_ours_for_this_and_now_permits(site):
    run, other = site.run("read-6"), site.run("read-7")
    good = run.read_token(streams=["rows"])
    path = f"streams/{run.id}/rows"
    old = read_tokens.sign([KEY], grant_for(run.id, site.engine.now() - 1_000_000))
    forged = read_tokens.sign(["another key of 16 characters"], grant_for(run.id))
    payload, signature = good.split(".")
    for token in (old, forged, payload, f"{payload}.", f"{payload}A.{signature}", "x", "%C3%A9.x", "." * 5000):
        assert site.get(f"{path}?token={token}").status == 401, token
    refused = site.get(path)
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert site.get(f"streams/{other.id}/rows?token={good}").status == 403
    assert site.get(f"streams/{run.id}/others?token={good}").status == 403
    assert event_of(site.get(path, Authorization=f"Bearer {good}"))["id"] == "0"


def test_a_key_that_was_replaced_stays_valid_while_it_is_listed():
    keys = ["the new key of 16 characters", "the old key of 16 characters"]
    old = read_tokens.sign(keys[1:], grant_for("run-1", 2_000_000))
    assert read_tokens.verify(keys, old, 1_000_000) == grant_for("run-1", 2_000_000)
    assert read_tokens.verify(keys[:1], old, 1_000_000) is None
    assert read_tokens.verify(keys, old, 2_000_000) is None
    assert read_tokens.verify(None, old, 1_000_000) is None


@pytest.mark.parametrize("given", ["short", ",", "long enough, as it seems,short"])
def test_a_signing_key_that_can_be_guessed_is_refused(given):
    """And the error does not repeat it."""
    with pytest.raises(ConfigurationError, match="at least 16 characters") as refused:
        Durable(Celery("keys", set_as_current=False), signing_key=given)
    assert "short" not in str(refused.value)


def test_a_token_needs_the_setting_and_lists_of_names():
    with Environment() as env:
        run = env.engine.start(flow, "read-nothing")
        with pytest.raises(ConfigurationError, match="signing_key"):
            run.read_token(streams=["rows"])
        with pytest.raises(TypeError, match="lists of names"):
            run.read_token(streams="rows")


@pytest.mark.parametrize(("answer", "status"), [(True, 200), (False, 403), (None, 401), ("yes", 403), (1, 403)])
def test_the_application_may_decide_who_reads(site, answer, status):
    """Only True permits; and only a request without a token is asked about."""
    run = site.run("read-8")
    site.may_read = answer
    assert site.get(f"streams/{run.id}/rows").status == status
    assert site.asked == [(run.id, "stream", "rows")]
    assert site.get(f"streams/{run.id}/rows?token=x").status == 401
    assert len(site.asked) == 1


def test_what_is_asked_wrongly_is_refused(site):
    run = site.run("read-9")
    token = run.read_token(streams=["rows"])
    assert site.get(f"streams/{run.id}/rows?token={token}&start=-1").status == 422
    assert site.get("streams/").status == 404
    assert site.get("streams/only-a-run").status == 404
    ghost = read_tokens.sign([KEY], grant_for("no-such-run"))
    assert site.get(f"streams/no-such-run/rows?token={ghost}").status == 404
    assert site.get(f"values/no-such-run/rows?token={ghost}").status == 404
    answer = site.app.test_client().post(f"{ROOT}streams/{run.id}/rows?token={token}")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")


def test_a_process_that_holds_no_more_sends_what_there_is(tmp_path):
    """The connection ends without the event ``end``, so the browser comes back for the rest."""
    with closing(Site(tmp_path, max_held=0)) as site:
        run = site.run("read-10")
        site.send(run, "read-10", 1)
        path = f"streams/{run.id}/rows?token={run.read_token(streams=['rows'])}"
        sent = site.get(path).read().decode()
        assert sent.startswith("retry: 2000\n\nid: 0\ndata: ")
        assert ("id: 1" in sent, "event: end" in sent) == (True, False)
        assert site.get(path, Last_Event_ID="1").read() == b"retry: 2000\n\n"
        site.send(run, "read-10", None)
        assert "event: end" in site.get(path).read().decode()


def test_a_connection_that_ends_makes_room(site):
    run = site.run("read-11")
    response = site.get(f"streams/{run.id}/rows?token={run.read_token(streams=['rows'])}")
    assert event_of(response)["id"] == "0"
    (mine,) = [each for each in hub._hubs if each.holder == site.engine.process_id]
    assert len(mine) == 1
    response.close()
    pause = threading.Event()
    for _ in range(500):
        if len(mine) == 0:
            return
        pause.wait(0.01)
    raise AssertionError("the follower stays")


def test_the_testing_kit_serves_what_a_stream_has():
    """What the runs can do now is done first; then the connection ends."""
    with Environment(signing_key=KEY) as env:
        run = env.engine.start(flow, "read-env")
        path = f"{ROOT}streams/{run.id}/rows?token={run.read_token(streams=['rows'])}"
        text = env.post(path, method="GET").text
        assert ('"item":0' in text, "event: end" in text) == (True, False)
        env.resume("read-env", None)
        assert "event: end" in env.post(path, method="GET").text


def test_a_token_is_masked_in_access_logs():
    line = f'"GET {ROOT}streams/01a2/rows?start=1&token=eyJyIjoi.c2ln HTTP/1.1" 200'
    assert mask(line) == f'"GET {ROOT}streams/01a2/rows?start=1&token=... HTTP/1.1" 200'


def test_a_token_that_no_route_would_take_is_not_signed():
    """It would be too long for a header.  Names in any script take no more room than their letters need."""
    many = frozenset(f"a-stream-of-numbers-with-a-long-name-{number}" for number in range(80))
    with pytest.raises(ValueError, match=r"80 streams and 1 values has [0-9]+ characters, and 4096 are allowed"):
        read_tokens.sign([KEY], read_tokens.Grant("run-1", many, frozenset(["rows"]), 2**60))

    long = read_tokens.Grant("run-1", frozenset(["ä" * 255, "ö" * 255]), frozenset(), 2**60 // 1_000_000 * 1_000_000)
    assert read_tokens.verify([KEY], read_tokens.sign([KEY], long), 0) == long
