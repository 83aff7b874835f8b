"""W2: many runs of five steps, started at once, beside as many plain Celery chains of five that persist nothing."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celery import chain

from .. import procfs
from ..bench import Bench
from ..figures import Sizes, Target, Workload
from ..site import TIMEOUT_SECS, Site
from ..workflows import sequence

STEPS = 5


@dataclass(frozen=True, kw_only=True)
class Runs(Sizes):
    """How many runs, and chains."""

    runs: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """
    Steps a second, from before the first start to the last step's first line.

    And the CPU time of all processes but the database and the broker, in milliseconds a step.
    """

    steps_per_sec: float
    cpu_ms_a_step: float
    chains_per_sec: float
    chains_cpu_ms_a_step: float

    @property
    def by_chains(self) -> float:
        """Ours by the plain chains'."""
        return self.steps_per_sec / self.chains_per_sec

    @property
    def cpu_by_chains(self) -> float:
        """Our CPU time by the plain chains'."""
        return self.cpu_ms_a_step / self.chains_cpu_ms_a_step


def steps_per_sec(site: Site, runs: int) -> float:
    """The steps a second of that many runs."""
    began = time.time()
    started = [site.engine.start(sequence, STEPS) for _ in range(runs)]
    ended = max(run.result(timeout=TIMEOUT_SECS)[-1] for run in started)
    return runs * STEPS / (ended - began)


def chains_per_sec(site: Site, chains: int) -> float:
    """The tasks a second of plain chains, whose last link tells that it has run."""
    inbox = f"bench:{uuid.uuid4().hex}"
    links = [site.task("nothing").si(number) for number in range(STEPS - 1)]
    began = time.time()
    for _ in range(chains):
        chain(*links, site.task("tell").si(inbox)).apply_async()
    ended = max(site.told(inbox) for _ in range(chains))
    return chains * STEPS / (ended - began)


def _with_cpu(measure: Callable[[Site, int], float], site: Site, count: int) -> tuple[float, float]:
    """What *measure* returns for that many, and milliseconds of the worker's and this process's CPU time a step."""
    processes = [os.getpid(), site.worker.pid, *site.children()]
    used = sum(map(procfs.cpu_secs, processes))
    found = measure(site, count)
    return found, (sum(map(procfs.cpu_secs, processes)) - used) / (count * STEPS) * 1000


@contextmanager
def _opened(bench: Bench, sizes: Runs) -> Iterator[Callable[[], Figures]]:
    def measure() -> Figures:
        steps, cpu_ms = _with_cpu(steps_per_sec, bench.site, sizes.runs)
        chains, chains_cpu_ms = _with_cpu(chains_per_sec, bench.site, sizes.runs)
        return Figures(
            steps_per_sec=steps,
            cpu_ms_a_step=cpu_ms,
            chains_per_sec=chains,
            chains_cpu_ms_a_step=chains_cpu_ms,
        )

    yield measure


WORKLOAD = Workload(
    name="W2",
    title=f"many runs of {STEPS} steps, started at once",
    full=Runs(runs=200),
    short=Runs(runs=40),
    targets=(Target(name="steps a second by those of plain chains", figure="by_chains", at_least=1.4, gate=0.7),),
    opened=_opened,
)
