"""
How long a sender waits for an answer that a step gives: POST, turn, step, answer.

PostgreSQL and Redis, one Celery worker (prefork, two children) and one
gunicorn (gthread).  Each request meets a run of its own that waits for it, and
a worker that has nothing else to do.  In turn with each goes a plain Celery
task's round trip on the same worker, so that the two share whatever the machine
is doing just then.

Prints one line of JSON per workload.  Exit code 1: a median is not below
``LIMIT_MS``.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import servers

#: What a median must stay below (docs/performance.md).
LIMIT_MS = 50.0
REQUESTS = int(os.environ.get("BENCH_N", "100"))
WARM_UP = 10
#: The pauses of the idle workload, in seconds.
IDLE_SECS = (0.02, 0.27)
_UP_SECS = 60.0


def main() -> int:
    """Bring everything up, measure, and take everything down."""
    with servers.database() as database_url, servers.broker() as broker_url:
        port = servers.free_port()
        settings = {
            "DURABLE_DATABASE_URL": database_url,
            "DURABLE_BROKER_URL": broker_url,
            "DURABLE_PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        os.environ.update(settings)
        return _measured(port, settings)


def _measured(port: int, settings: dict[str, str]) -> int:
    # Only now: the application's settings come from the environment.
    from .application import engine

    engine.migrate()
    celery = ["celery", "-A", "bench.application:celery", "worker", "--concurrency", "2"]
    quiet = ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    gunicorn = ["gunicorn", "--worker-class", "gthread", "--threads", "16", "--bind", f"127.0.0.1:{port}"]
    target = ["--log-level", "warning", "bench.application:create_app()"]
    with (
        servers.process("the worker", [*celery, *quiet], settings),
        servers.process("gunicorn", [*gunicorn, *target], settings),
    ):
        _until(lambda: _is_up(port), "gunicorn answers")
        for _ in range(WARM_UP):
            _baseline()
            _webhook()
        figures = [_workload("webhook_busy", None), _workload("webhook_idle", IDLE_SECS)]
    engine.close()
    return 0 if all(each["median_ms"] < LIMIT_MS for each in figures) else 1


def _workload(name: str, pauses: tuple[float, float] | None) -> dict[str, Any]:
    """Measure, print and return one workload's figures; with *pauses* every request comes after a random one."""
    draw = random.Random(name)

    def rest() -> None:
        if pauses is not None:
            time.sleep(draw.uniform(*pauses))

    ours: list[float] = []
    theirs: list[float] = []
    for number in range(REQUESTS):
        pair = [(ours, _webhook), (theirs, _baseline)]
        # Who comes first changes, so that neither always finds the other's caches.
        for kept, measure in pair if number % 2 else reversed(pair):
            kept.append(measure(rest))
    figures = {
        "workload": name,
        "n": REQUESTS,
        "median_ms": _ms(statistics.median(ours)),
        "p95_ms": _ms(statistics.quantiles(ours, n=20)[-1]),
        "baseline_median_ms": _ms(statistics.median(theirs)),
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 2),
    }
    print(json.dumps(figures), flush=True)
    return figures


def _webhook(rest: Callable[[], None] = lambda: None) -> float:
    """Seconds from a request to its answer; the run waits already, and has ended when this returns."""
    from .application import engine, one_request

    run = engine.start(one_request)
    _until(run.hooks, "the run has opened its webhook")
    url = run.hooks()[0]["url"]
    rest()
    began = time.perf_counter()
    status, body = _post(url, b'{"type":"payment.succeeded"}')
    took = time.perf_counter() - began
    if (status, json.loads(body)) != (200, {"ok": True}):
        raise RuntimeError(f"{url} answered {status} {body!r}")
    run.result(timeout=30)
    return took


def _baseline(rest: Callable[[], None] = lambda: None) -> float:
    """Seconds from ``apply_async`` to the result of a plain Celery task in a Redis list."""
    from .application import client, plain

    inbox = "bench:inbox"
    rest()
    began = time.perf_counter()
    plain.apply_async((inbox,))
    if client().blpop([inbox], timeout=30) is None:
        raise RuntimeError("the plain task's result did not come within 30 s")
    return time.perf_counter() - began


def _post(url: str, body: bytes) -> tuple[int, bytes]:
    """One request on a connection of its own, as a stranger's would be."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=40)
    try:
        connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _is_up(port: int) -> bool:
    try:
        return _post(f"http://127.0.0.1:{port}/", b"")[0] > 0
    except OSError:
        return False


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _UP_SECS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not so within {_UP_SECS:g} s: {what}")
        time.sleep(0.005)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


if __name__ == "__main__":
    sys.exit(main())
