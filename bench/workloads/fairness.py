"""
F: others beside one long run of quick steps.

The others are runs of one step, started one after the other at a steady pace
that the system keeps up with: while it is idle, and while the long run goes on.
What counts is the time from the call of ``start`` to their step's first line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from ..bench import Bench
from ..figures import Sizes, Target, Workload, ms, p95
from ..site import TIMEOUT_SECS, Site, until
from ..workflows import sequence
from .first_step import first_step_secs

#: From one start to the next: at least this, and this often what one takes on an idle system.
_PACE_SECS = 0.01
_PACE = 2


@dataclass(frozen=True, kw_only=True)
class Load(Sizes):
    """Steps of the long run, which is cancelled when the others have ended; and how many others."""

    steps: int
    others: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Milliseconds from start() to the first line of the others' step, without and with the long run."""

    idle_p50_ms: float
    idle_p95_ms: float
    beside_p50_ms: float
    beside_p95_ms: float
    #: 1 when the long run still went on after the last of the others, else 0.
    went_on: int

    @property
    def p95_ratio(self) -> float:
        """The p95 beside the long run by the idle system's."""
        return self.beside_p95_ms / self.idle_p95_ms


def _pace_secs(site: Site) -> float:
    return max(_PACE_SECS, _PACE * median(first_step_secs(site) for _ in range(5)))


def _others_ms(site: Site, count: int, pace_secs: float) -> list[float]:
    began, runs = [], []
    for _ in range(count):
        began.append(time.time())
        runs.append(site.engine.start(sequence, 1))
        time.sleep(max(0.0, began[-1] + pace_secs - time.time()))
    stamps = [run.result(timeout=TIMEOUT_SECS)[0] for run in runs]
    return [ms(at - before) for before, at in zip(began, stamps, strict=True)]


def _round(site: Site, sizes: Load) -> Figures:
    pace_secs = _pace_secs(site)
    idle = _others_ms(site, sizes.others, pace_secs)
    long_run = site.engine.start(sequence, sizes.steps)
    until(lambda: any(event.kind == "step_completed" for event in long_run.events(limit=10)), "the long run goes on")
    beside = _others_ms(site, sizes.others, pace_secs)
    went_on = long_run.cancel()
    until(lambda: long_run.completed_at, "the long run has ended")
    return Figures(
        idle_p50_ms=median(idle),
        idle_p95_ms=p95(idle),
        beside_p50_ms=median(beside),
        beside_p95_ms=p95(beside),
        went_on=int(went_on),
    )


@contextmanager
def _opened(bench: Bench, sizes: Load) -> Iterator[Callable[[], Figures]]:
    yield lambda: _round(bench.site, sizes)


WORKLOAD = Workload(
    name="F",
    title="others beside one long run of quick steps",
    full=Load(steps=10_000, others=100),
    short=Load(steps=2000, others=30),
    targets=(
        Target(name="the others' p95 by an idle system's", figure="p95_ratio", at_most=3, gate=6),
        Target(name="the long run outlasted the others", figure="went_on", at_least=1),
    ),
    opened=_opened,
)
