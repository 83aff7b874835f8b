"""W6: from ``start()`` to the first line of the first step, beside a plain task from its publishing to its body."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from ..bench import Bench
from ..figures import Sizes, Target, Workload, ms
from ..site import TIMEOUT_SECS, Site
from ..workflows import sequence

_IDLE_SECS = (0.02, 0.27)


@dataclass(frozen=True, kw_only=True)
class Starts(Sizes):
    """Starts one after the other, and starts after random pauses."""

    busy: int
    idle: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Milliseconds, medians."""

    busy_ms: float
    plain_busy_ms: float
    idle_ms: float
    plain_idle_ms: float

    @property
    def busy_by_plain(self) -> float:
        """One after the other."""
        return self.busy_ms / self.plain_busy_ms

    @property
    def idle_by_plain(self) -> float:
        """After pauses."""
        return self.idle_ms / self.plain_idle_ms


def first_step_secs(site: Site) -> float:
    """Seconds from the call of ``start`` to the first line of the step; the run has ended when this returns."""
    began = time.time()
    run = site.engine.start(sequence, 1)
    return float(run.result(timeout=TIMEOUT_SECS)[0] - began)


def _pairs(site: Site, count: int, pause: Callable[[], None]) -> tuple[float, float]:
    """The medians in milliseconds, ours and theirs."""
    ours, theirs = [], []
    for _ in range(count):
        pause()
        ours.append(ms(first_step_secs(site)))
        pause()
        theirs.append(ms(site.plain_secs()[0]))
    return median(ours), median(theirs)


def _round(site: Site, sizes: Starts, draw: random.Random) -> Figures:
    busy, plain_busy = _pairs(site, sizes.busy, lambda: None)
    idle, plain_idle = _pairs(site, sizes.idle, lambda: time.sleep(draw.uniform(*_IDLE_SECS)))
    return Figures(busy_ms=busy, plain_busy_ms=plain_busy, idle_ms=idle, plain_idle_ms=plain_idle)


@contextmanager
def _opened(bench: Bench, sizes: Starts) -> Iterator[Callable[[], Figures]]:
    draw = random.Random("first step")
    first_step_secs(bench.site)
    yield lambda: _round(bench.site, sizes, draw)


WORKLOAD = Workload(
    name="W6",
    title="start() → the first line of the first step",
    full=Starts(busy=100, idle=50),
    short=Starts(busy=30, idle=6),
    targets=(
        Target(name="p50 by a plain task's way to its body", figure="busy_by_plain", at_most=2.5, gate=6),
        Target(name="the same after pauses", figure="idle_by_plain", at_most=2.5, gate=6),
    ),
    opened=_opened,
)
