"""
W11: one run of many steps, ten at once, beside as many plain tasks; with few children, many, and in two workers.

The steps sleep, so the CPU time is that of Celery and of durable.  With many children, also: all steps at once, each
taken in when it is done, by tasks with a queue, and as many steps in 20 runs side by side.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from durable.registry import Workflow

from .. import procfs
from ..bench import Bench
from ..figures import Sizes, Target, Workload
from ..site import TIMEOUT_SECS, Site
from ..workflows import batch, completed, gathered, queued

AT_ONCE = 10
SIDE_BY_SIDE = 20
NAP_SECS = 0.05

#: The children of each worker.
FEW, MANY, TWO_WORKERS = (2,), (10,), (5, 5)


@dataclass(frozen=True, kw_only=True)
class Items(Sizes):
    """How many steps, and tasks."""

    items: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """
    Seconds of the run and of the plain tasks, and milliseconds of the workers' CPU time an item.

    With 2 children, with 10 (``many``), and with 5 in each of two workers (``two``).
    """

    few_secs: float
    few_plain_secs: float
    few_cpu_ms: float
    few_plain_cpu_ms: float
    many_secs: float
    many_plain_secs: float
    many_cpu_ms: float
    many_plain_cpu_ms: float
    two_secs: float
    two_plain_secs: float
    two_cpu_ms: float
    two_plain_cpu_ms: float
    gathered_secs: float
    completed_secs: float
    queued_secs: float
    side_by_side_secs: float

    @property
    def few_by_plain(self) -> float:
        """The run by the plain tasks, with 2 children."""
        return self.few_secs / self.few_plain_secs

    @property
    def many_by_plain(self) -> float:
        """With 10 children."""
        return self.many_secs / self.many_plain_secs

    @property
    def two_by_plain(self) -> float:
        """With 5 children in each of two workers."""
        return self.two_secs / self.two_plain_secs

    @property
    def few_cpu_by_plain(self) -> float:
        """The CPU time of the run by that of the plain tasks, with 2 children."""
        return self.few_cpu_ms / self.few_plain_cpu_ms

    @property
    def many_cpu_by_plain(self) -> float:
        """With 10 children."""
        return self.many_cpu_ms / self.many_plain_cpu_ms

    @property
    def two_cpu_by_plain(self) -> float:
        """With 5 children in each of two workers."""
        return self.two_cpu_ms / self.two_plain_cpu_ms

    @property
    def gathered_by_plain(self) -> float:
        """All at once, with 10 children."""
        return self.gathered_secs / self.many_plain_secs

    @property
    def completed_by_plain(self) -> float:
        """Each taken in when it is done, with 10 children."""
        return self.completed_secs / self.many_plain_secs

    @property
    def queued_by_plain(self) -> float:
        """By ten tasks with a queue, with 10 children."""
        return self.queued_secs / self.many_plain_secs

    @property
    def side_by_side_by_plain(self) -> float:
        """In 20 runs, with 10 children."""
        return self.side_by_side_secs / self.many_plain_secs


def _measured(site: Site, act: Callable[[Site, int], object], items: int) -> tuple[float, float]:
    """Seconds that *act* takes with the site and that many items, and milliseconds of the workers' CPU time an item."""
    processes = [worker.pid for worker in site.workers] + site.children()
    cpu_before, began = sum(map(procfs.cpu_secs, processes)), time.perf_counter()
    act(site, items)
    took = time.perf_counter() - began
    return took, (sum(map(procfs.cpu_secs, processes)) - cpu_before) / items * 1000


def _run(site: Site, items: int, form: Workflow[[int, int, float], int] = batch, runs: int = 1) -> None:
    started = [site.engine.start(form, items // runs, AT_ONCE, NAP_SECS) for _ in range(runs)]
    for run in started:
        found = run.result(timeout=TIMEOUT_SECS)
        if found != items // runs:
            raise RuntimeError(f"the run has {found} results of {items // runs}")


def _run_plain(site: Site, items: int) -> None:
    inbox = f"bench:{uuid.uuid4().hex}"
    for _ in range(items):
        site.task("nap").apply_async((NAP_SECS, inbox))
    for _ in range(items):
        site.told(inbox)


def _round(sites: Sequence[Site], items: int) -> Figures:
    measured: list[float] = []
    for site in sites:
        secs, cpu_ms = _measured(site, _run, items)
        plain_secs, plain_cpu_ms = _measured(site, _run_plain, items)
        measured += [secs, plain_secs, cpu_ms, plain_cpu_ms]
    _, many, _ = sites
    measured += [_secs(partial(_run, many, items, form)) for form in (gathered, completed, queued)]
    measured.append(_secs(partial(_run, many, items, runs=min(SIDE_BY_SIDE, items))))
    return Figures(**dict(zip(Figures.__dataclass_fields__, measured, strict=True)))


def _secs(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


@contextmanager
def _opened(bench: Bench, sizes: Items) -> Iterator[Callable[[], Figures]]:
    with ExitStack() as stack:
        sites = [stack.enter_context(bench.new_site(children)) for children in (FEW, MANY, TWO_WORKERS)]
        yield lambda: _round(sites, sizes.items)


WORKLOAD = Workload(
    name="W11",
    title="one run of steps of 50 ms, ten at once",
    full=Items(items=500),
    short=Items(items=100),
    targets=(
        Target(name="the run by plain tasks, 2 children", figure="few_by_plain", at_most=1.5, gate=4),
        Target(name="the same with 10 children", figure="many_by_plain", at_most=1.5, gate=6),
        Target(name="the same with 2 workers of 5", figure="two_by_plain", at_most=1.5, gate=6),
        Target(name="CPU time by that of plain tasks, 2 children", figure="few_cpu_by_plain", at_most=1.5, gate=6),
        Target(name="CPU time with 10 children", figure="many_cpu_by_plain", at_most=1.5, gate=6),
        Target(name="CPU time with 2 workers of 5", figure="two_cpu_by_plain", at_most=1.5, gate=6),
        Target(name="all at once, 10 children", figure="gathered_by_plain", at_most=1.5, gate=9),
        Target(name="each when it is done, 10 children", figure="completed_by_plain", at_most=1.5, gate=9),
        Target(name="by tasks with a queue, 10 children", figure="queued_by_plain", at_most=1.5, gate=9),
        Target(name="in 20 runs, 10 children", figure="side_by_side_by_plain", at_most=1.5, gate=12),
    ),
    opened=_opened,
)
