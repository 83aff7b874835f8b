"""
W9: what many finished runs cost those that go on.

Two sites, each with its worker and web process; the database of one of them is
filled with finished runs.  The same is measured on both, in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from ..bench import Bench
from ..figures import Sizes, Target, Workload, ms
from ..history import fill
from ..site import Site
from .many_runs import steps_per_sec
from .sequence import step_secs
from .webhook import answer_secs


@dataclass(frozen=True, kw_only=True)
class Load(Sizes):
    """Finished runs; the steps of the one run, the number of runs, and of requests that are measured."""

    old_runs: int
    steps: int
    runs: int
    requests: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """W1's, W2's and W5's figures on the empty and on the full database."""

    empty_step_ms: float
    full_step_ms: float
    empty_steps_per_sec: float
    full_steps_per_sec: float
    empty_answer_ms: float
    full_answer_ms: float

    @property
    def step_ratio(self) -> float:
        """W1, full by empty."""
        return self.full_step_ms / self.empty_step_ms

    @property
    def runs_ratio(self) -> float:
        """W2's time, full by empty."""
        return self.empty_steps_per_sec / self.full_steps_per_sec

    @property
    def answer_ratio(self) -> float:
        """W5, full by empty."""
        return self.full_answer_ms / self.empty_answer_ms


def _round(empty: Site, full: Site, sizes: Load) -> Figures:
    step = [ms(step_secs(site, sizes.steps)) for site in (empty, full)]
    runs = [steps_per_sec(site, sizes.runs) for site in (empty, full)]
    pairs = [[ms(answer_secs(site)) for site in (empty, full)] for _ in range(sizes.requests)]
    return Figures(
        empty_step_ms=step[0],
        full_step_ms=step[1],
        empty_steps_per_sec=runs[0],
        full_steps_per_sec=runs[1],
        empty_answer_ms=median(pair[0] for pair in pairs),
        full_answer_ms=median(pair[1] for pair in pairs),
    )


@contextmanager
def _opened(bench: Bench, sizes: Load) -> Iterator[Callable[[], Figures]]:
    with bench.new_site() as empty, bench.new_site() as full, empty.web(), full.web():
        fill(full.engine, sizes.old_runs)
        for site in (empty, full):
            answer_secs(site)
        yield lambda: _round(empty, full, sizes)


WORKLOAD = Workload(
    name="W9",
    title="a database with many finished runs, and an empty one",
    full=Load(old_runs=1_000_000, steps=200, runs=100, requests=40),
    short=Load(old_runs=20_000, steps=50, runs=20, requests=10),
    targets=(
        Target(name="W1, full by empty", figure="step_ratio", at_most=1.1, gate=1.6),
        Target(name="W2's time, full by empty", figure="runs_ratio", at_most=1.1, gate=1.6),
        Target(name="W5, full by empty", figure="answer_ratio", at_most=1.1, gate=1.6),
    ),
    opened=_opened,
)
