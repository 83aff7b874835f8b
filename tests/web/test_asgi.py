"""
The ASGI application: the blueprint's answers byte for byte, and what only ASGI has.

tests/web/test_blueprint.py and tests/web/test_control.py run on it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import socket
import threading
import time
import types
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import flask
import pytest
import werkzeug
from asgi_client import AsWsgi, client_of
from celery import Celery
from servers import migrate
from werkzeug.test import Client

from durable import Durable, Request, Response, create_webhook, step, workflow
from durable.recovery import housekeeping
from durable.web import asgi, asgi_request, create_asgi_app, create_blueprint, shutdown
from durable.web.waiters import Waiter
from durable.web.wsgi_request import PATH, RECEIVE, ROOT


@step(name="asgi.answer")
def answer(request: Request) -> None:
    if request.method != "PUT":
        request.respond_with(Response(request.data, 201, [("X-Name", "caf\xe9"), ("Set-Cookie", "a=1")]))


@workflow(name="asgi.listening")
async def listening(timeout: str) -> None:
    async for request in create_webhook(respond_with="manual", methods=("POST", "PUT", "GET"), timeout=timeout):
        await answer(request)


@workflow(name="asgi.seen")
async def seen() -> Any:
    request = await create_webhook()
    return {"url": request.url, "headers": list(request.headers), "remote_addr": request.remote_addr}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Durable]:
    celery = Celery("test_asgi", broker="memory://")
    celery.conf.task_always_eager = True
    made = Durable(celery, database_url=f"sqlite:///{tmp_path}/d.db", public_url="https://h.test", max_body=5000)
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()


def url_of(run: Any) -> str:
    (hook,) = run.hooks()
    return PATH + hook["token"]


def allowed(_request: flask.Request) -> bool:
    return True


# The same bytes.


def both(engine: Durable) -> tuple[Client, Client]:
    """A client of the blueprint, and one of the ASGI application."""
    app = flask.Flask("asgi-and-wsgi", static_folder=None)
    app.register_blueprint(create_blueprint(engine, control=allowed))
    return app.test_client(), client_of(create_asgi_app(engine, control=allowed))


REQUESTS: dict[str, dict[str, Any]] = {
    "answered": {"method": "POST", "data": bytes(range(256))},
    "static": {"method": "POST", "path": "{receiver}"},
    "head": {"method": "HEAD"},
    "options": {"method": "OPTIONS"},
    "no such method": {"method": "FROB"},
    "too large": {"method": "POST", "data": b"x" * 5001},
    "too large and slow": {"method": "POST", "data": b"x" * 3_000_000},
    "ambiguous": {"method": "POST", "environ_overrides": {"CONTENT_LENGTH": "+3"}},
    "large headers": {"method": "POST", "headers": [(f"X-{n}", "a") for n in range(120)]},
    "unknown": {"method": "POST", "path": PATH + "x" * 43},
    "unknown poll": {"method": "GET", "path": "{webhook}/requests/" + "y" * 24},
    "receiver": {"method": "POST", "path": RECEIVE + "no-such"},
    "percent": {"method": "POST", "path": PATH + "%ff%00"},
    "health": {"method": "GET", "path": ROOT + "health"},
    "health head": {"method": "HEAD", "path": ROOT + "health"},
    "health post": {"method": "POST", "path": ROOT + "health", "data": b"x" * 9000},
    "openapi": {"method": "GET", "path": ROOT + "openapi.json"},
    "runs": {"method": "GET", "path": ROOT + "runs?limit=1"},
    "bad query": {"method": "GET", "path": ROOT + "runs?limit=many"},
    "no json": {"method": "POST", "path": ROOT + "runs", "data": b"{", "content_type": "application/json"},
    "control too large": {"method": "POST", "path": ROOT + "runs", "json": {"workflow": "x" * 9000}},
    "unknown run": {"method": "GET", "path": ROOT + "runs/none"},
    "beside": {"method": "GET", "path": ROOT + "beside"},
    "elsewhere": {"method": "GET", "path": "/elsewhere"},
}


@pytest.mark.parametrize("name", REQUESTS)
def test_each_answer_is_the_blueprints_byte_for_byte(engine, name):
    """Status, all headers in their order, and body.  (Names are in lower case; bad framing ends the connection.)"""
    run = engine.start(listening, "20s")
    request = {"path": "{webhook}", **REQUESTS[name]}
    path = request.pop("path").format(webhook=url_of(run), receiver=url_of(run))
    answers = []
    for client in both(engine):
        response = client.open(path, **request)
        headers = [(key.lower(), value) for key, value in response.headers if key.lower() != "connection"]
        answers.append((response.status_code, headers, response.data))

    assert answers[0] == answers[1]


def test_a_hold_that_times_out_is_the_blueprints(engine):
    """202 and the poll's URL, which differ in the request's id alone."""
    path = url_of(engine.start(listening, "50ms"))
    answers = []
    for client in both(engine):
        response = client.put(path)
        request_id = response.json["request_id"]
        headers = [(key.lower(), value.replace(request_id, "ID")) for key, value in response.headers]
        answers.append((response.status_code, headers, response.data.replace(request_id.encode(), b"ID")))

    assert answers[0] == answers[1]
    assert answers[0][0] == 202


# What a request says.


def scope(path: str, **changes: Any) -> dict[str, Any]:
    """The scope of a POST as uvicorn makes it."""
    made = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"h.test"), (b"content-length", b"0")],
        "client": ("10.0.0.1", 5),
        "server": ("127.0.0.1", 80),
    }
    return made | changes


class Exchange:
    """A client that sends a body and stays, and what it is sent."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces) or [b""]
        self.sent: list[Any] = []
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self.pieces:
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def environ(**changes: Any) -> dict[str, Any]:
    body = asgi_request.Input(Exchange().receive, asgi_request.Room(0))
    return asgi_request.environ_of(scope("/x") | changes, body)


def test_the_workflow_sees_what_was_sent(engine):
    """The URL keeps its encoding; repeated headers are one, as behind gunicorn; the address is what the server says."""
    run = engine.start(seen)
    path = url_of(run)
    headers = [(b"host", b"h.test"), (b"x-twice", b"1"), (b"x-twice", b"2"), (b"content-length", b"0")]

    async def main() -> int:
        exchange = Exchange()
        sent = scope(path, headers=headers, query_string=b"q=%20a", raw_path=path.encode())
        await create_asgi_app(engine)(sent, exchange.receive, exchange.send)
        return exchange.status

    assert asyncio.run(main()) == 202
    result = run.result(timeout=20)
    assert result["url"] == f"https://h.test{path}?q=%20a"
    assert ("X-Twice", "1,2") in [tuple(each) for each in result["headers"]]
    assert result["remote_addr"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"path": "/a/é", "raw_path": b"/a/%C3%A9"}, ("", "/a/\xc3\xa9")),
        ({"path": "/a/\ufffd", "raw_path": b"/a/%ff"}, ("", "/a/\xff")),
        ({"path": "/sub/a", "raw_path": b"/sub/a", "root_path": "/sub"}, ("/sub", "/a")),
        ({"path": "/a", "raw_path": b"/sub/a", "root_path": "/sub"}, ("/sub", "/a")),
        ({"path": "/a", "raw_path": None, "root_path": "/sub/"}, ("/sub", "/a")),
        ({"path": "/subject", "raw_path": b"/subject", "root_path": "/sub"}, ("/sub", "/subject")),
        ({"path": "/changed", "raw_path": b"/as-sent"}, ("", "/changed")),
        ({"path": "/a", "raw_path": b"/a?b=1"}, ("", "/a")),
    ],
)
def test_the_path_is_what_a_wsgi_server_says(changes, expected):
    """With or without a prefix that a framework or the server has cut off, and with bytes that are not UTF-8."""
    made = environ(**changes)

    assert (made["SCRIPT_NAME"], made["PATH_INFO"]) == expected


def test_headers_are_those_of_a_wsgi_server():
    """Cookies of HTTP/2 are joined, and names with underscores are left out, which could pass for others."""
    made = environ(
        headers=[
            (b"cookie", b"a=1"),
            (b"cookie", b"b=2"),
            (b"x_forged", b"1"),
            (b"content-type", b"t"),
            (b"x-a", b"\xe9"),
        ]
    )

    assert (made["HTTP_COOKIE"], made["CONTENT_TYPE"], made["HTTP_X_A"]) == ("a=1; b=2", "t", "\xe9")
    assert "HTTP_X_FORGED" not in made


def test_it_can_be_mounted_below_a_path(engine):
    """A framework passes the prefix as root_path; ``url_prefix`` is for those that do not."""
    path = url_of(engine.start(seen))

    async def main(app: Any, sent: dict[str, Any]) -> int:
        exchange = Exchange()
        await app(sent, exchange.receive, exchange.send)
        return exchange.status

    mounted = scope("/sub" + path, root_path="/sub")
    assert asyncio.run(main(create_asgi_app(engine), mounted)) == 202
    assert asyncio.run(main(create_asgi_app(engine, url_prefix="/sub"), scope("/sub" + path))) == 410


# How it holds.


def hold(engine: Durable, act: Callable[[Any, Exchange, asyncio.Task[None]], Any]) -> Exchange:
    """Hold a request, do something, and return what its client was sent."""
    path = url_of(engine.start(listening, "20s"))

    async def main() -> Exchange:
        exchange, app = Exchange(b"abc"), create_asgi_app(engine)
        sent = scope(path, method="PUT", headers=[(b"content-length", b"3")])
        task = asyncio.ensure_future(app(sent, exchange.receive, exchange.send))
        hub = app._receiver
        while not (held := [waiter for each in hub._hubs.values() for waiter in each._all_waiters()]):
            await asyncio.sleep(0.01)
        await act(held[0], exchange, task)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        assert all(not len(each) for each in hub._hubs.values())
        return exchange

    return asyncio.run(main())


def test_an_answer_releases_it_from_another_thread(engine):
    """As the hub's thread does."""

    async def release(waiter: Waiter, _exchange: Exchange, _task: Any) -> None:
        await asyncio.to_thread(waiter.release, Response(b"now", 200))

    exchange = hold(engine, release)

    assert [exchange.status, exchange.sent[1]["body"]] == [200, b"now"]


def test_a_client_that_leaves_frees_its_place_at_once(engine):
    """Without the second that a WSGI server needs to notice."""

    async def leave(_waiter: Waiter, exchange: Exchange, _task: Any) -> None:
        exchange.left.set()

    assert hold(engine, leave).status == 202


def test_a_cancelled_request_frees_its_place(engine):
    """Servers cancel what is left after their graceful time-out."""

    async def cancel(_waiter: Waiter, _exchange: Exchange, task: asyncio.Task[None]) -> None:
        task.cancel()

    assert hold(engine, cancel).sent == []


def test_a_cancellation_counts_more_than_an_answer(engine):
    """Both come in one turn of the loop: the task ends as cancelled."""

    async def both_at_once(waiter: Waiter, _exchange: Exchange, task: asyncio.Task[None]) -> None:
        waiter.release(Response(b"now", 200))
        task.cancel()

    assert hold(engine, both_at_once).sent == []


def test_a_held_request_keeps_its_task_and_nothing_of_what_was_sent(engine):
    """One coroutine waits for the client; headers, body and Werkzeug's request are gone."""

    def requests_and_coroutines() -> list[Any]:
        gc.collect()
        return [each for each in gc.get_objects() if is_of_request(each)]

    def is_of_request(each: Any) -> bool:
        # By its type: isinstance() asks for __class__, and a proxy of Celery or Flask looks up what it stands for.
        its_type = type(each)
        if its_type is types.CoroutineType:
            return each.cr_code.co_qualname.startswith(("AsgiApp", "_Exchange", "LoopCalls"))
        is_environ = its_type is dict and each.get("wsgi.url_scheme") == "https"
        return is_environ or issubclass(its_type, werkzeug.Request)

    def kept() -> list[str]:
        found = (each for each in requests_and_coroutines() if not any(each is other for other in of_other_tests))
        return [each.__qualname__ if type(each) is types.CoroutineType else type(each).__name__ for each in found]

    of_other_tests = requests_and_coroutines()

    async def look(_waiter: Waiter, exchange: Exchange, _task: Any) -> None:
        deadline = time.monotonic() + 10
        while (found := kept()) != ["AsgiApp.__call__"]:
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.01)
        exchange.left.set()

    assert hold(engine, look).status == 202


def test_a_waiter_that_was_released_before_calls_at_once():
    """Between the record and the wait the answer may come already."""
    waiter, calls = Waiter("r", lambda: False), []
    waiter.release(None)
    waiter.when_released(lambda: calls.append(1))

    assert calls == [1]


# What it receives.


def test_bodies_have_a_limit_together(engine, monkeypatch):
    """Beyond it a request gets 503, and what was kept of the others is forgotten when they are handled."""
    monkeypatch.setattr(asgi, "BODIES", 4000)
    path, app = url_of(engine.start(listening, "20s")), create_asgi_app(engine)

    async def main() -> list[int]:
        statuses = []
        for size in (3900, 4100, 3900):
            exchange = Exchange(b"x" * 2000, b"x" * (size - 2000))
            sent = scope(path, headers=[(b"content-length", b"%d" % size)])
            await app(sent, exchange.receive, exchange.send)
            statuses.append(exchange.status)
        return statuses

    assert asyncio.run(main()) == [201, 503, 201]
    assert app._room.left == 4000


def test_a_body_that_is_declared_too_large_is_not_kept(engine):
    """It is dropped piece by piece."""
    path, app = url_of(engine.start(listening, "20s")), create_asgi_app(engine)

    async def main() -> int:
        exchange = Exchange(*[b"x" * 1000] * 100)
        sent = scope(path, headers=[(b"content-length", b"100000")])
        await app(sent, exchange.receive, exchange.send)
        assert exchange.pieces == []
        return exchange.status

    assert asyncio.run(main()) == 413
    assert app._room.left == asgi.BODIES


def test_it_follows_the_life_of_its_server(engine):
    """Start and stop are answered; then nothing is held any more, and websockets are refused."""
    app = create_asgi_app(engine)

    async def main() -> list[str]:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await app({"type": "lifespan"}, receive, send)
        await app({"type": "websocket", "path": "/"}, receive, send)
        return sent

    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    assert asyncio.run(main()) == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]
    # No server has set a handler here, so there is none to wrap.
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_signal_is_the_servers_after_it_is_ours():
    """The server's handler is called with what it always gets, and is wrapped once."""
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: calls.append(signum))
    try:
        shutdown.drain_on(signal.SIGUSR1)
        wrapped = signal.getsignal(signal.SIGUSR1)
        shutdown.drain_on(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is wrapped
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert calls == [signal.SIGUSR1]


def test_asyncio_takes_its_own_handler_of_ctrl_c_back(engine):
    """A program that is no server serves one request: Ctrl-C is Python's again afterwards, and ends a process."""
    path, app = url_of(engine.start(listening, "20s")), create_asgi_app(engine)

    async def main() -> int:
        exchange = Exchange(b"{}")
        await app(scope(path), exchange.receive, exchange.send)
        return exchange.status

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert asyncio.run(main()) == 201
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_uvicorn_serves_it(engine):
    """The oldest release that durable[asgi] allows is tested with this: a request over a real connection."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    path = url_of(engine.start(listening, "20s"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(create_asgi_app(engine), log_config=None, http="h11"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            connection = HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=10)
            connection.request("POST", path, json.dumps({"a": 1}), {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert (response.status, response.read()) == (201, b'{"a": 1}')
            assert response.getheader("x-name") == "caf\xe9"
            connection.close()
        finally:
            server.should_exit = True
            thread.join(10)


def test_the_test_client_is_no_flask_app(engine):
    """What the shared tests call is the ASGI application."""
    assert isinstance(client_of(create_asgi_app(engine)).application, AsWsgi)
