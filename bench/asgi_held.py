"""
``python -m bench.asgi_held``: how many requests one ASGI process holds, and what each takes.  Prints JSON.

It sends so many requests to a manual webhook, each on a connection of its own, and
measures the web process while it holds them: its memory, how long another route takes,
and its CPU time at rest.  Then it answers some from another process.  Beside it, the
memory that each takes of a bare ASGI function that only waits, under the same server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from celery import Celery

from durable import Durable, Response, create_webhook, workflow
from durable.store.schema import requests
from durable.turns.drive import drive
from durable.web import create_asgi_app, hub
from durable.web.wsgi_request import PATH, ROOT

from . import procfs, servers
from .client import get
from .figures import ms, p95

#: Requests that bring up what is there once: the connections of the pools, the hub and its listener.
_WARMING = 50
#: How many connections are opened at once.
_OPENING = 40
_ROUTES = 50
_ANSWERS = 100
_REST_SECS = 2.0
_UP_SECS = 30.0


@workflow(name="bench.asgi_held")
async def listening() -> None:
    """Hold every request for as long as durable allows."""
    async for _ in create_webhook(respond_with="manual", timeout="55s"):
        pass


def create_app() -> Any:
    """Return what the server serves: durable's application, and two routes beside it."""
    engine = make_engine()
    app, waiting = create_asgi_app(engine), [0]

    async def beside(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path == "/wait":
            while (await receive()).get("more_body"):
                pass
            waiting[0] += 1
            await receive()
            waiting[0] -= 1
        elif path == "/held":
            held = waiting[0] + sum(len(each) for each in hub._hubs)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": str(held).encode()})
        else:
            await app(scope, receive, send)

    return beside


def make_engine() -> Durable:
    """Return the engine of this process; the environment says where its servers are."""
    return Durable(Celery("bench-asgi"), max_pending=1_000_000, public_url="http://bench")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """KiB per held request, and per one that a bare ASGI function holds; milliseconds; percent of one core."""

    held: int
    server: str
    kib_each: float
    bare_kib_each: float
    recorded_per_sec: float
    other_route_p95_ms: float
    answer_p95_ms: float
    idle_cpu_percent: float


def command(server: str, port: int) -> list[str]:
    """Return what to run as ``python -m``."""
    if server == "uvicorn":
        quiet = ["--log-level", "warning", "--no-access-log", "--backlog", "4096"]
        return ["uvicorn", "--factory", "bench.asgi_held:create_app", "--port", str(port), *quiet]
    return ["hypercorn", "bench.asgi_held:create_app()", "--bind", f"127.0.0.1:{port}", "--backlog", "4096"]


@contextmanager
def web(server: str, environment: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Run the server; the port, and the id of the process that serves."""
    port = servers.free_port()
    with servers.process(server, command(server, port), environment) as process:
        deadline = time.monotonic() + _UP_SECS
        while True:
            try:
                get(f"http://127.0.0.1:{port}{ROOT}health")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        children = procfs.children(process.pid)
        # hypercorn serves from a child, beside multiprocessing's tracker.
        yield port, max(children, key=procfs.kib) if server == "hypercorn" else process.pid


class Senders:
    """Connections that wait for their answers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[asyncio.StreamWriter] = []
        self._reading: list[asyncio.Task[None]] = []
        self._gate = asyncio.Semaphore(_OPENING)
        self._answered: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(self, path: str, count: int) -> None:
        """POST on connections of their own until so many are held."""
        await asyncio.gather(*(self._send(path) for _ in range(count)))
        await self.until_held(len(self._open))

    async def _send(self, path: str) -> None:
        async with self._gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\nUser-Agent: bench/1.0\r\n"
            writer.write(f"{head}Content-Type: application/json\r\n\r\n{{}}".encode())
            self._open.append(writer)
            await writer.drain()
        self._reading.append(asyncio.create_task(self._read(reader)))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        self._answered.put_nowait(await reader.read(12))

    async def until_held(self, count: int) -> None:
        """Wait until the process holds so many."""
        deadline = time.monotonic() + 50
        while int((await asyncio.to_thread(get, f"http://127.0.0.1:{self._port}/held"))[1]) != count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the process does not hold {count} requests")
            await asyncio.sleep(0.1)

    async def answered(self) -> None:
        """Wait for the next answer."""
        answer = await asyncio.wait_for(self._answered.get(), 30)
        assert answer == b"HTTP/1.1 200", answer

    async def close(self) -> None:
        """Leave; the process notices it."""
        for task in self._reading:
            task.cancel()
        for writer in self._open:
            writer.close()
        self._open.clear()
        await self.until_held(0)


async def _kib_each(port: int, pid: int, path: str, held: int) -> tuple[float, float, Senders]:
    """Hold so many; KiB each, how many were sent in a second, and their senders."""
    senders = Senders(port)
    await senders.send(path, _WARMING)
    before = procfs.kib(pid)
    began = time.perf_counter()
    await senders.send(path, held - _WARMING)
    took = time.perf_counter() - began
    return (procfs.kib(pid) - before) / (held - _WARMING), (held - _WARMING) / took, senders


async def measure(engine: Durable, server: str, held: int, environment: dict[str, str]) -> Figures:
    """Measure one server."""
    run = engine.start(listening)
    drive(engine, run.id)
    path = PATH + run.hooks()[0]["token"]
    with web(server, environment) as (port, pid):
        bare, _, senders = await _kib_each(port, pid, "/wait", held)
        await senders.close()
    with web(server, environment) as (port, pid):
        each, per_sec, senders = await _kib_each(port, pid, path, held)
        routes = [await asyncio.to_thread(_route_ms, port) for _ in range(_ROUTES)]
        used, began = procfs.cpu_secs(pid), time.monotonic()
        await asyncio.sleep(_REST_SECS)
        idle = (procfs.cpu_secs(pid) - used) / (time.monotonic() - began) * 100
        with engine.store.read() as tx:
            statement = sa.select(requests.c.id).where(requests.c.answered_at.is_(None)).limit(_ANSWERS)
            ids = list(tx.execute(statement).scalars())
        late = [await _answer_ms(engine, senders, each_id) for each_id in ids]
        await senders.close()
    return Figures(
        held=held,
        server=server,
        kib_each=round(each, 1),
        bare_kib_each=round(bare, 1),
        recorded_per_sec=round(per_sec),
        other_route_p95_ms=round(p95(routes), 1),
        answer_p95_ms=round(p95(late), 1),
        idle_cpu_percent=round(idle, 1),
    )


def _route_ms(port: int) -> float:
    began = time.perf_counter()
    get(f"http://127.0.0.1:{port}{ROOT}health")
    return ms(time.perf_counter() - began)


async def _answer_ms(engine: Durable, senders: Senders, request_id: str) -> float:
    began = time.perf_counter()
    await asyncio.to_thread(engine.respond, request_id, Response(b"answered").checked())
    await senders.answered()
    return ms(time.perf_counter() - began)


def main(arguments: list[str]) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.asgi_held", description=__doc__)
    parser.add_argument("--held", type=int, default=5000)
    parser.add_argument("--server", choices=("uvicorn", "hypercorn"), default="uvicorn")
    parser.add_argument("--database", choices=servers.DATABASES, default="postgresql")
    options = parser.parse_args(arguments)
    with servers.database(options.database) as database_url, servers.redis_database() as broker_url:
        environment = {"DURABLE_DATABASE_URL": database_url, "DURABLE_BROKER_URL": broker_url}
        os.environ.update(environment)
        engine = make_engine()
        engine.migrate()
        try:
            print(json.dumps(asdict(asyncio.run(measure(engine, options.server, options.held, environment)))))
        finally:
            engine.close()


if __name__ == "__main__":
    main(sys.argv[1:])
