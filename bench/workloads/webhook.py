"""
W5: a request to a run that waits for it: POST, turn, step, answer on the held connection.

Each request meets a run of its own that waits already, and a worker that has
nothing else to do.  In turn with each goes a plain Celery task's round trip on
the same worker, so that the two share whatever the machine is doing just then.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from ..bench import Bench
from ..client import post
from ..figures import Sizes, Target, Workload, ms, p95, ratio
from ..site import TIMEOUT_SECS, Site, until
from ..workflows import one_request

#: The pauses of the idle requests.
_IDLE_SECS = (0.02, 0.27)


@dataclass(frozen=True, kw_only=True)
class Requests(Sizes):
    """Requests back to back, requests after random pauses; seconds of rest before a last one, None: no such."""

    busy: int
    idle: int
    rest_secs: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Milliseconds from the request to its answer, and of a plain task from its publishing to its result."""

    busy_p50_ms: float
    busy_p95_ms: float
    plain_busy_p50_ms: float
    plain_busy_p95_ms: float
    idle_p50_ms: float
    idle_p95_ms: float
    plain_idle_p50_ms: float
    plain_idle_p95_ms: float
    rested_ms: float | None

    @property
    def busy_by_plain(self) -> float:
        """The p50 back to back."""
        return self.busy_p50_ms / self.plain_busy_p50_ms

    @property
    def busy_p95_by_plain(self) -> float:
        """The p95 back to back."""
        return self.busy_p95_ms / self.plain_busy_p95_ms

    @property
    def idle_by_plain(self) -> float:
        """The p50 after pauses."""
        return self.idle_p50_ms / self.plain_idle_p50_ms

    @property
    def idle_p95_by_plain(self) -> float:
        """The p95 after pauses."""
        return self.idle_p95_ms / self.plain_idle_p95_ms

    @property
    def rested_by_plain(self) -> float | None:
        """After the long rest, by a plain task's p50 after pauses."""
        return ratio(self.rested_ms, self.plain_idle_p50_ms)


def no_pause() -> None:
    """Go on at once."""


def answer_secs(site: Site, pause: Callable[[], None] = no_pause) -> float:
    """Seconds from a request to its answer; the run waits already, and has ended when this returns."""
    run = site.engine.start(one_request)
    until(run.hooks, "the run has opened its webhook")
    url = run.hooks()[0]["url"]
    pause()
    began = time.perf_counter()
    status, body = post(url, b'{"type":"payment.succeeded"}')
    took = time.perf_counter() - began
    if status != 200 or "at" not in json.loads(body):
        raise RuntimeError(f"{url} answered {status} {body!r}")
    run.result(timeout=TIMEOUT_SECS)
    return took


def _plain_secs(site: Site, pause: Callable[[], None]) -> float:
    pause()
    return site.plain_secs()[1]


def _pairs(site: Site, count: int, pause: Callable[[], None]) -> tuple[list[float], list[float]]:
    """Milliseconds of that many requests, and of as many plain tasks."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(count):
        pair = [(ours, answer_secs), (theirs, _plain_secs)]
        # Who comes first changes, so that neither always finds the other's caches.
        for kept, measure in pair if number % 2 else reversed(pair):
            kept.append(ms(measure(site, pause)))
    return ours, theirs


def _round(site: Site, sizes: Requests, draw: random.Random) -> Figures:
    busy, plain_busy = _pairs(site, sizes.busy, no_pause)
    idle, plain_idle = _pairs(site, sizes.idle, lambda: time.sleep(draw.uniform(*_IDLE_SECS)))
    rest_secs = sizes.rest_secs
    return Figures(
        busy_p50_ms=median(busy),
        busy_p95_ms=p95(busy),
        plain_busy_p50_ms=median(plain_busy),
        plain_busy_p95_ms=p95(plain_busy),
        idle_p50_ms=median(idle),
        idle_p95_ms=p95(idle),
        plain_idle_p50_ms=median(plain_idle),
        plain_idle_p95_ms=p95(plain_idle),
        rested_ms=None if rest_secs is None else ms(answer_secs(site, lambda: time.sleep(rest_secs))),
    )


@contextmanager
def _opened(bench: Bench, sizes: Requests) -> Iterator[Callable[[], Figures]]:
    draw = random.Random("webhook")
    with bench.site.web():
        answer_secs(bench.site)
        yield lambda: _round(bench.site, sizes, draw)


WORKLOAD = Workload(
    name="W5",
    title="a request to a waiting run, and its answer by a step",
    full=Requests(busy=100, idle=100, rest_secs=60.0),
    short=Requests(busy=20, idle=6),
    targets=(
        Target(name="p50 by a plain task's round trip", figure="busy_by_plain", at_most=3, gate=7),
        Target(name="p95 by a plain task's round trip", figure="busy_p95_by_plain", at_most=5, gate=15),
        Target(name="the same after pauses, p50", figure="idle_by_plain", at_most=3, gate=7),
        Target(name="the same after pauses, p95", figure="idle_p95_by_plain", at_most=5, gate=15),
        Target(name="after a minute's rest", figure="rested_by_plain", at_most=3, gate=10),
    ),
    opened=_opened,
)
