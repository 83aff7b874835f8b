"""
W8: many requests held by one web process.

Runs take some requests each, and answer all of them when they are told.  While
they hold: the memory per request, how long another route takes, the CPU time.
Then each answer's way from ``respond_with`` to its sender.  Beside it, the memory
per request that a view of plain Flask holds in a web process of its own.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import urlsplit

from durable import Run

from .. import procfs, servers
from ..bench import Bench
from ..client import get
from ..figures import Sizes, Target, Workload, ms, p95
from ..site import MANY_THREADS, TIMEOUT_SECS, Site, until
from ..workflows import held_requests

#: Requests per run.
_SHARE = 10
_OTHERS = 50
_REST_SECS = 2.0
#: Requests that bring up what is there once: the connections of the pools, the hub and its listener.
_WARMING = 20
#: Threads beyond those that hold.
_SPARE = 40
_UP_SECS = 50.0


@dataclass(frozen=True, kw_only=True)
class Requests(Sizes):
    """How many are held at once."""

    held: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """KiB per held request, and per one held by plain Flask; milliseconds; CPU time at rest, in percent of one core."""

    kib_each: float
    plain_kib_each: float | None = None
    other_route_p95_ms: float
    answer_p95_ms: float
    idle_cpu_percent: float


@dataclass(frozen=True, kw_only=True)
class Web:
    """The web process that holds, its memory with *warm* threads, which take some of the requests."""

    port: int
    pid: int
    warm: int = 0
    warm_kib: int = 0


class Senders:
    """Connections that wait for their answers, all in this thread."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._selector = selectors.DefaultSelector()

    def send(self, url: str) -> None:
        """POST on a connection of its own, and do not wait."""
        sock = socket.create_connection(("127.0.0.1", self._web.port))
        head = f"POST {urlsplit(url).path} HTTP/1.1\r\nHost: bench\r\nContent-Length: 2\r\nConnection: close\r\n"
        sock.sendall(f"{head}Content-Type: application/json\r\n\r\n{{}}".encode())
        self._selector.register(sock, selectors.EVENT_READ)

    def late_ms(self, count: int) -> list[float]:
        """Of each answer: from the time in it, which its step took before it responded, until it is here."""
        late: list[float] = []
        deadline = time.monotonic() + TIMEOUT_SECS
        while len(late) < count:
            ready = self._selector.select(timeout=1.0)
            arrived = time.time()
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                self._selector.unregister(key.fileobj)
                late.append(ms(arrived - _answered_at(key.fileobj)))
            if time.monotonic() > deadline:
                raise RuntimeError(f"{count - len(late)} of {count} held requests got no answer")
        return late

    def close(self) -> None:
        """Give up what still waits."""
        for key in list((self._selector.get_map() or {}).values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def _answered_at(sock: socket.socket) -> float:
    # Not to the end of the connection, on which the server lingers: the other senders would wait for it here.
    with sock, sock.makefile("rb") as received:
        head = b"".join(iter(received.readline, b"\r\n"))
        body = received.read(int(re.findall(rb"(?i)content-length: (\d+)", head)[0]))
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"a held request was answered {head.splitlines()[:1]} {body[:200]!r}")
    return float(json.loads(body)["at"])


@contextmanager
def _opened(bench: Bench, sizes: Requests) -> Iterator[Callable[[], Figures]]:
    site = bench.site
    port = servers.free_port()
    with site.web(port=port, threads=sizes.held + _SPARE, environment=MANY_THREADS) as master:
        (pid,) = procfs.children(master.pid)
        web = Web(port=port, pid=pid)
        _round(site, web, _WARMING)
        # Threads stay when their requests have gone, so it is measured once.
        web = replace(web, warm=_WARMING, warm_kib=procfs.kib(pid))
        yield lambda: replace(_round(site, web, sizes.held), plain_kib_each=_plain_kib(site, sizes.held))


def _round(site: Site, web: Web, count: int) -> Figures:
    shares = [min(_SHARE, count - first) for first in range(0, count, _SHARE)]
    tokens = [f"release-{uuid.uuid4().hex}" for _ in shares]
    runs = [site.engine.start(held_requests, *each) for each in zip(shares, tokens, strict=True)]
    urls = [_url(run) for run in runs]
    with ExitStack() as stack:
        senders = Senders(web)
        stack.callback(senders.close)
        for url, share in zip(urls, shares, strict=True):
            for _ in range(share):
                senders.send(url)
        for run in runs:
            until(partial(_has_all, run), "a run has taken its requests", _UP_SECS)
        each = (procfs.kib(web.pid) - web.warm_kib) / (count - web.warm)
        others = [_route_ms(web) for _ in range(_OTHERS)]
        idle = _cpu_percent(web)
        for token in tokens:
            site.engine.resume_hook(token, None)
        late = senders.late_ms(count)
    for run in runs:
        run.result(timeout=TIMEOUT_SECS)
    return Figures(kib_each=each, other_route_p95_ms=p95(others), answer_p95_ms=p95(late), idle_cpu_percent=idle)


def _plain_kib(site: Site, held: int) -> float:
    port = servers.free_port()
    with site.web(port=port, threads=held + _SPARE, environment=MANY_THREADS) as master:
        (pid,) = procfs.children(master.pid)
        web = Web(port=port, pid=pid)
        _kib_while_waiting(web, _WARMING)
        warm_kib = procfs.kib(pid)
        return (_kib_while_waiting(web, held) - warm_kib) / (held - _WARMING)


def _kib_while_waiting(web: Web, count: int) -> int:
    """The memory while so many requests wait in plain Flask; they have gone when this returns."""

    def are_there(wanted: int) -> bool:
        return int(get(f"http://127.0.0.1:{web.port}/waiting")[1]) == wanted

    senders = Senders(web)
    for _ in range(count):
        senders.send("/wait")
    until(partial(are_there, count), f"{count} requests wait")
    kib = procfs.kib(web.pid)
    get(f"http://127.0.0.1:{web.port}/go")
    until(partial(are_there, 0), "nobody waits any more")
    senders.close()
    return kib


def _url(run: Run[None]) -> str:
    until(run.hooks, "the run has opened its webhook")
    return str(run.hooks()[0]["url"])


def _has_all(run: Run[None]) -> bool:
    # The hook by which it is told to answer is opened after the last request.
    return len(run.hooks()) > 1


def _route_ms(web: Web) -> float:
    began = time.perf_counter()
    get(f"http://127.0.0.1:{web.port}/")
    return ms(time.perf_counter() - began)


def _cpu_percent(web: Web) -> float:
    used, began = procfs.cpu_secs(web.pid), time.monotonic()
    time.sleep(_REST_SECS)
    return (procfs.cpu_secs(web.pid) - used) / (time.monotonic() - began) * 100


WORKLOAD = Workload(
    name="W8",
    title="requests held by one web process",
    full=Requests(held=500),
    short=Requests(held=50),
    targets=(
        Target(name="KiB per held request", figure="kib_each", at_most=40),
        Target(name="ms of another route, p95", figure="other_route_p95_ms", at_most=50),
        Target(name="ms from respond_with to the sender, p95", figure="answer_p95_ms", at_most=100),
        Target(name="% of a core while nothing happens", figure="idle_cpu_percent", at_most=2),
    ),
    opened=_opened,
)
