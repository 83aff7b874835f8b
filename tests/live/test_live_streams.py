"""Streams with real web servers, Redis and processes: hundreds of readers, lost processes, and items that are fast."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from eventually import eventually
from servers import new_broker
from webservers import Server, body_of, serve

from durable import Durable, Run, create_hook, emit, resume_hook, workflow
from durable.turns.drive import drive
from durable.web.wsgi_request import ROOT

pytestmark = pytest.mark.live

KEY = "signs the tokens of live streams"
READERS = 500
#: As docs/how-to/operating.md has it for a process of hundreds of threads.
MANY_THREADS = {"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0"}
#: What one reader may take of the memory of its process; a held request may take 40 KiB (workload W8).
MOST_KIB = 60

APP = f"""
import os
import flask
from celery import Celery
from durable import Durable
from durable.web import create_blueprint
from durable.web import hub as holding

celery = Celery("streaming", broker=os.environ["BROKER"])
engine = Durable(celery, database_url=os.environ["DATABASE"], signing_key="{KEY}")
app = flask.Flask(__name__)
app.register_blueprint(create_blueprint(engine))

@app.get("/health")
def health():
    return {{
        "pid": os.getpid(),
        "held": sum(len(hub) for hub in holding._hubs),
        "connections": engine.store.engine.pool.checkedout(),
    }}
"""


@workflow(name="live_streams.flow")
async def flow(token: str) -> None:
    emit("rows", 0)
    async for number in create_hook(token=token):
        if number is None:
            break
        emit("rows", number)


@dataclass
class Scene:
    """What the servers and this process share; this process plays the worker."""

    engine: Durable
    folder: Path
    env: dict[str, str]

    def start(self, token: str) -> Run[Any]:
        run = self.engine.start(flow, token)
        drive(self.engine, run.id)
        return run

    def send(self, run: Run[Any], token: str, number: int | None) -> None:
        resume_hook(token, number)
        drive(self.engine, run.id)

    def serve(self, kind: str, *extra: str, threads: int = 8) -> Any:
        return serve(kind, "streaming_app:app", self.folder, *extra, threads=threads, env=self.env)


@pytest.fixture(params=["redis", "memory"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """With notifications through Redis, and with none at all."""
    if request.param == "memory":
        yield from made(tmp_path, "memory://")
        return
    with new_broker("redis", tmp_path) as broker:
        yield from made(tmp_path, broker)


def made(folder: Path, broker: str) -> Iterator[Scene]:
    database = f"sqlite:///{folder}/durable.db"
    (folder / "streaming_app.py").write_text(APP)
    engine = Durable(Celery("streaming", broker=broker), database_url=database, signing_key=KEY)
    yield Scene(engine, folder, {"BROKER": broker, "DATABASE": database, **MANY_THREADS})
    engine.close()


class Reader:
    """A connection that reads a stream, as a browser does."""

    def __init__(self, server: Server, run: Run[Any], last: int | None = None) -> None:
        self.sock = server.connect()
        self.sock.settimeout(20)
        token = run.read_token(streams=["rows"])
        again = "" if last is None else f"Last-Event-ID: {last}\r\n"
        head = f"GET {ROOT}streams/{run.id}/rows?token={token} HTTP/1.1\r\nHost: a\r\n{again}\r\n"
        self.sock.sendall(head.encode())
        self.received = b""

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.received:
            chunk = self.sock.recv(65536)
            assert chunk, f"the server has ended the connection: {self.received[-500:]!r}"
            self.received += chunk
        return self.received

    @property
    def ids(self) -> list[int]:
        """The numbers of the items so far."""
        return [int(each) for each in re.findall(rb"id: (\d+)\ndata", self.received)]

    def close(self) -> None:
        self.sock.close()


def health(server: Server) -> dict[str, Any]:
    return json.loads(body_of(server.send(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")))


def kib(pid: int) -> int:
    """The memory of a process: its proportional set size."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[0])


@pytest.mark.parametrize("kind", ["gthread", "gevent", "waitress", "pywsgi", "werkzeug"])
def test_every_server_sends_items_as_they_come(scene, kind):
    """Not collected until the end; and the end comes by itself."""
    run = scene.start("live-1")
    with scene.serve(kind) as server:
        reader = Reader(server, run)
        reader.read_until(b"id: 0\ndata")
        for number in (1, 2):
            scene.send(run, "live-1", number)
            reader.read_until(b"id: %d\ndata" % number)
        scene.send(run, "live-1", None)
        reader.read_until(b"event: end")
        assert reader.ids == [0, 1, 2]
        reader.close()


def test_five_hundred_readers_in_one_process_get_each_item_once(scene):
    """They pin no connection to the database and little memory, and all get what is new within a second or so."""
    run = scene.start("live-2")
    with scene.serve("gthread", threads=READERS + 20) as server:
        warm = [Reader(server, run) for _ in range(20)]
        for reader in warm:
            reader.read_until(b"id: 0\ndata")
        pid = health(server)["pid"]
        before = kib(pid)
        readers = [*warm, *(Reader(server, run) for _ in range(READERS - len(warm)))]
        for reader in readers:
            reader.read_until(b"id: 0\ndata")
        eventually(lambda: health(server)["held"] == READERS)
        each = (kib(pid) - before) / (READERS - len(warm))
        assert each < MOST_KIB
        eventually(lambda: health(server)["connections"] <= 1)

        began = time.monotonic()
        scene.send(run, "live-2", 1)
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda reader: reader.read_until(b"id: 1\ndata"), readers))
        took = time.monotonic() - began
        scene.send(run, "live-2", None)
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda reader: reader.read_until(b"event: end"), readers))
        assert {tuple(reader.ids) for reader in readers} == {(0, 1)}
        for reader in readers:
            reader.close()
        eventually(lambda: health(server)["held"] == 0)
        print(f"{READERS} readers: {each:.1f} KiB each, an item reached all in {took * 1000:.0f} ms")
        # This machine may be busy.
        assert took < 5


def test_a_reader_beyond_the_limit_polls(scene):
    """Of four threads three hold; the next reader gets what there is, and may come back."""
    run = scene.start("live-3")
    with scene.serve("gthread", threads=4) as server:
        readers = [Reader(server, run) for _ in range(3)]
        for reader in readers:
            reader.read_until(b"id: 0\ndata")
        extra = Reader(server, run)
        extra.read_until(b"0\r\n\r\n")
        assert (extra.ids, b"event: end" in extra.received) == ([0], False)
        scene.send(run, "live-3", 1)
        again = Reader(server, run, last=0)
        again.read_until(b"0\r\n\r\n")
        assert again.ids == [1]
        for reader in (*readers, extra, again):
            reader.close()


@pytest.mark.parametrize("kind", ["gthread", "gevent"])
def test_a_server_that_is_stopped_sends_its_readers_on(scene, kind):
    """They end without the event ``end``, so a browser comes back, to another process."""
    run = scene.start("live-4")
    with scene.serve(kind) as server:
        reader = Reader(server, run)
        reader.read_until(b"id: 0\ndata")
        began = time.monotonic()
        server.terminate()
        try:
            while chunk := reader.sock.recv(65536):
                reader.received += chunk
        except ConnectionResetError:
            pass
        assert time.monotonic() - began < 5
        assert b"event: end" not in reader.received
        reader.close()
    with scene.serve(kind) as server:
        scene.send(run, "live-4", 1)
        reader = Reader(server, run, last=0)
        reader.read_until(b"id: 1\ndata")
        assert reader.ids == [1]
        reader.close()


def test_a_browser_that_leaves_frees_its_place(scene):
    run = scene.start("live-5")
    with scene.serve("gthread") as server:
        reader = Reader(server, run)
        reader.read_until(b"id: 0\ndata")
        eventually(lambda: health(server)["held"] == 1)
        reader.close()
        eventually(lambda: health(server)["held"] == 0, within_secs=5)
