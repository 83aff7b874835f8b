"""
W11: one run of many steps, ten at once, beside as many plain tasks; with few children, many, and in two workers.

The steps sleep, so the CPU time is that of Celery and of durable.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .. import procfs
from ..bench import Bench
from ..figures import Sizes, Target, Workload
from ..site import TIMEOUT_SECS, Site
from ..workflows import batch

AT_ONCE = 10
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


def _measured(site: Site, act: Callable[[Site, int], object], items: int) -> tuple[float, float]:
    """Seconds that *act* takes with the site and that many items, and milliseconds of the workers' CPU time an item."""
    processes = [worker.pid for worker in site.workers] + site.children()
    cpu_before, began = sum(map(procfs.cpu_secs, processes)), time.perf_counter()
    act(site, items)
    took = time.perf_counter() - began
    return took, (sum(map(procfs.cpu_secs, processes)) - cpu_before) / items * 1000


def _run(site: Site, items: int) -> None:
    found = site.engine.start(batch, items, AT_ONCE, NAP_SECS).result(timeout=TIMEOUT_SECS)
    if found != items:
        raise RuntimeError(f"the run has {found} results of {items}")


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
    return Figures(**dict(zip(Figures.__dataclass_fields__, measured, strict=True)))


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
    ),
    opened=_opened,
)
