"""
Holding connections: real servers, a real Redis, and answers that come from another process.

The servers run the application below.  This process plays the worker: it
drives the run and answers requests.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from eventually import eventually
from servers import new_broker
from webservers import ASGI, Server, body_of, header_of, post, read_one, serve, status_of

from durable import Durable, Response, create_webhook, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web.wsgi_request import PATH

pytestmark = pytest.mark.live

APP = """
import json, os, threading
import flask
from celery import Celery
from durable import Durable
from durable.web import create_asgi_app, create_blueprint
from durable.web import hub as holding

celery = Celery("holding", broker=os.environ["BROKER"])
engine = Durable(celery, database_url=os.environ["DATABASE"], public_url="http://hooks.test")

app = flask.Flask(__name__)
app.register_blueprint(create_blueprint(engine))

@app.get("/health")
def health():
    return {
        "pid": os.getpid(),
        "held": sum(len(hub) for hub in holding._hubs),
        "threads": [thread.name for thread in threading.enumerate()],
        "connections": engine.store.engine.pool.checkedout(),
    }

durable_app = create_asgi_app(engine)

async def asgi(scope, receive, send):
    if scope.get("path") != "/health":
        await durable_app(scope, receive, send)
        return
    body = json.dumps(health()).encode()
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"""


@workflow
async def held_open() -> None:
    async for _ in create_webhook(respond_with="manual", timeout="15s"):
        pass


@dataclass
class World:
    """What the servers and this process share, and one run that listens."""

    engine: Durable
    folder: Path
    env: dict[str, str]
    run_id: str
    token: str

    @property
    def path(self) -> str:
        return PATH + self.token

    def serve(self, kind: str, *extra: str, threads: int = 8) -> Any:
        target = "holding_app:asgi" if kind in ASGI else "holding_app:app"
        return serve(kind, target, self.folder, *extra, threads=threads, env=self.env)

    def recorded(self) -> dict[bytes, str]:
        """The requests in the database that have no answer: ids by body."""
        with self.engine.store.read() as tx:
            rows = tx.execute(sa.select(requests.c.id, requests.c.body).where(requests.c.answered_at.is_(None)))
            return {row.body: row.id for row in rows}

    def wait_for(self, count: int) -> dict[bytes, str]:
        eventually(lambda: len(self.recorded()) >= count)
        return self.recorded()

    def answer(self, request_id: str, body: bytes) -> bool:
        return self.engine.respond(request_id, Response(body).checked())


def make_world(folder: Path, broker: str) -> World:
    database = f"sqlite:///{folder}/durable.db"
    (folder / "holding_app.py").write_text(APP)
    celery = Celery("holding", broker=broker)
    engine = Durable(celery, database_url=database, public_url="http://hooks.test")
    run = engine.start(held_open)
    drive(engine, run.id)
    (hook,) = run.hooks()
    env = {"BROKER": broker, "DATABASE": database}
    return World(engine, folder, env, run.id, hook["token"])


def end_world(world: World) -> None:
    world.engine.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Hints through Redis."""
    with new_broker("redis", tmp_path) as broker:
        made = make_world(tmp_path, broker)
        yield made
        end_world(made)


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[World]:
    """No hints at all."""
    made = make_world(tmp_path, "memory://")
    yield made
    end_world(made)


def health(server: Server) -> dict[str, Any]:
    return json.loads(body_of(server.send(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")))


def hold(server: Server, world: World, body: bytes) -> socket.socket:
    """A connection that waits for its answer."""
    sock = server.connect()
    sock.settimeout(20)
    sock.sendall(post(world.path, body, keep=True))
    return sock


def answer_of(sock: socket.socket) -> bytes:
    with sock:
        return read_one(sock)


@pytest.mark.parametrize("kind", ["gthread", "gevent", "waitress", "pywsgi", *ASGI])
def test_an_answer_from_another_process_goes_out_on_the_held_connection(world, kind):
    """Within a fraction of a second, by a hint."""
    took = []
    with world.serve(kind) as server:
        for name in (b"a", b"b", b"c"):
            sock = hold(server, world, name)
            ids = world.wait_for(1)
            started = time.monotonic()
            assert world.answer(ids[name], name)
            answer = answer_of(sock)
            took.append(time.monotonic() - started)
            assert (status_of(answer), body_of(answer)) == (200, name)

    # The first may still wait for the inbox, and this machine be busy.
    assert min(took) < 0.5


def test_without_hints_it_comes_within_a_second(deaf):
    """The poll alone is enough."""
    with deaf.serve("gthread") as server:
        sock = hold(server, deaf, b"a")
        ids = deaf.wait_for(1)
        started = time.monotonic()
        assert deaf.answer(ids[b"a"], b"yes")

        assert body_of(answer_of(sock)) == b"yes"
        assert time.monotonic() - started < 1


def test_c65_two_hundred_held_connections(world):
    """They pin no database connection and keep nobody else waiting; then all is as it was before."""
    names = [b"%d" % number for number in range(200)]
    with world.serve("gthread", threads=212) as server:
        assert status_of(server.send(post(PATH + "x" * 43, b""))) == 404
        socks = {name: hold(server, world, name) for name in names}
        ids = world.wait_for(200)
        eventually(lambda: health(server)["held"] == 200)

        took = []
        for _ in range(5):
            started = time.monotonic()
            assert health(server)["connections"] <= 1
            took.append(time.monotonic() - started)
        assert min(took) < 0.1

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(lambda name: world.answer(ids[name], name), names))
        assert {name: body_of(answer_of(sock)) for name, sock in socks.items()} == {name: name for name in names}
        eventually(lambda: "durable-hold" not in health(server)["threads"])
        assert (health(server)["held"], health(server)["connections"]) == (0, 0)


def test_above_the_limit_a_request_is_recorded_and_202_at_once(world):
    """Of four threads three hold; the next sender is told where to ask, and others are still served."""
    with world.serve("gthread", threads=4) as server:
        socks = [hold(server, world, b"%d" % number) for number in range(3)]
        ids = world.wait_for(3)
        started = time.monotonic()

        answer = server.send(post(world.path, b"one too many"))

        assert time.monotonic() - started < 1
        assert status_of(answer) == 202
        location = header_of(answer, "Location")
        assert location.startswith(f"http://hooks.test{world.path}/requests/")
        assert health(server)["held"] == 3
        world.answer(world.wait_for(4)[b"one too many"], b"late")
        poll = location.removeprefix("http://hooks.test")
        polled = server.send(f"GET {poll} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert (body_of(polled), header_of(polled, "Durable-Recorded")) == (b"late", "true")
        for request_id in ids.values():
            world.answer(request_id, b"")
        assert [status_of(answer_of(sock)) for sock in socks] == [200] * 3


def test_the_sync_worker_does_not_hold(world):
    """It would be killed at its timeout, and nobody else served: 202 at once, and a warning, once."""
    with world.serve("sync") as server:
        started = time.monotonic()
        answers = [server.send(post(world.path, name)) for name in (b"a", b"b")]

        assert time.monotonic() - started < 2
        assert [status_of(answer) for answer in answers] == [202, 202]
        assert all(header_of(answer, "Location") for answer in answers)
        assert server.log.read_text().count("--worker-class gthread") == 1


@pytest.mark.parametrize("kind", ["gthread", "waitress", "gevent", *ASGI])
def test_c66_a_client_that_leaves_frees_its_place(world, kind):
    """Soon after; the request stays recorded, and its answer can be polled."""
    with world.serve(kind) as server:
        sock = hold(server, world, b"a")
        ids = world.wait_for(1)
        eventually(lambda: health(server)["held"] == 1)
        sock.close()

        eventually(lambda: health(server)["held"] == 0, within_secs=2)
        assert world.answer(ids[b"a"], b"late")
        path = f"{world.path}/requests/{ids[b'a']}"
        polled = server.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert body_of(polled) == b"late"


@pytest.mark.parametrize("hooked", [True, False], ids=["with our hook", "without"])
@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_sigterm_ends_holds(world, kind, hooked):
    """A server that is stopped gives held senders their timeout answer and is gone soon after."""
    (world.folder / "gunicorn.conf.py").write_text(
        "from durable.web.gunicorn import post_worker_init\n" if hooked else ""
    )
    with world.serve(kind) as server:
        sock = hold(server, world, b"a")
        world.wait_for(1)
        eventually(lambda: health(server)["held"] == 1)
        started = time.monotonic()
        server.terminate()

        answer = answer_of(sock)

        assert status_of(answer) == 202
        assert time.monotonic() - started < 2.5
        assert server.process.wait(6) == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ASGI)
def test_an_asgi_server_that_is_stopped_ends_holds(world, kind, signum):
    """The server itself would wait until its graceful time-out before it tells the application."""
    with world.serve(kind) as server:
        sock = hold(server, world, b"a")
        world.wait_for(1)
        eventually(lambda: health(server)["held"] == 1)
        started = time.monotonic()
        server.process.send_signal(signum)

        answer = answer_of(sock)

        assert status_of(answer) == 202
        assert time.monotonic() - started < 2.5
        server.process.wait(6)


@pytest.mark.parametrize("kind", ASGI)
def test_three_hundred_held_by_asgi_take_no_thread_each(world, kind):
    """They pin neither a thread nor a database connection, and each gets its own answer."""
    names = [b"%d" % number for number in range(300)]
    with world.serve(kind) as server:
        socks = {name: hold(server, world, name) for name in names}
        ids = world.wait_for(300)
        eventually(lambda: health(server)["held"] == 300)

        told = health(server)
        assert told["connections"] <= 1
        assert len(told["threads"]) < 30
        for name in names:
            assert world.answer(ids[name], name)
        assert {name: body_of(answer_of(sock)) for name, sock in socks.items()} == {name: name for name in names}
        eventually(lambda: health(server)["held"] == 0)


def test_c65_each_answer_finds_its_process(world):
    """Loaded before the fork, four processes, a hundred holds: everyone gets the right answer."""
    names = [b"%d" % number for number in range(100)]
    # One process may get them all.
    with world.serve("gthread", "--preload", "--workers=4", threads=110) as server:
        socks = {name: hold(server, world, name) for name in names}
        ids = world.wait_for(100)
        for name in names:
            assert world.answer(ids[name], name)

        assert {name: body_of(answer_of(sock)) for name, sock in socks.items()} == {name: name for name in names}


def test_c68_redis_killed_while_held(tmp_path):
    """The answer comes all the same, by the poll, within two seconds."""
    port = free_port()
    broker = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: answers_ping(port))
        world = make_world(tmp_path, f"redis://127.0.0.1:{port}/0")
        with world.serve("gthread") as server:
            sock = hold(server, world, b"a")
            ids = world.wait_for(1)
            # The start and the request have each sent a turn.
            eventually(lambda: queued(port) == 2)
            broker.send_signal(signal.SIGKILL)
            broker.wait()
            started = time.monotonic()
            assert world.answer(ids[b"a"], b"yes")

            assert body_of(answer_of(sock)) == b"yes"
            assert time.monotonic() - started < 2
        end_world(world)
    finally:
        broker.kill()
        broker.wait()


@pytest.mark.parametrize("kind", ["gthread", *ASGI])
def test_an_access_log_holds_no_token(world, kind):
    """Access lines are there, with the token masked."""
    with world.serve(kind) as server:
        server.send(f"GET {world.path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        eventually(lambda: "v1/webhook/..." in server.log.read_text())

        assert world.token not in server.log.read_text()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answers_ping(port: int) -> bool:
    with redis.Redis(port=port) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


def queued(port: int) -> int:
    with redis.Redis(port=port) as client:
        return int(client.llen("celery"))
