"""W3: one run of parallel no-op steps, gathered, beside a plain chord of as many tasks (results in Redis)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celery import chord

from .. import procfs
from ..bench import Bench
from ..figures import Sizes, Target, Workload, ratio
from ..site import TIMEOUT_SECS, Site
from ..workflows import fan_out


@dataclass(frozen=True, kw_only=True)
class Widths(Sizes):
    """Steps at once; *huge* None: not measured."""

    wide: int
    huge: int | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Seconds from the client's call until it has the result; of CPU time of the worker's processes in the wide run."""

    wide_secs: float
    main_cpu_secs: float
    children_cpu_secs: float
    chord_secs: float
    huge_secs: float | None

    @property
    def by_chord(self) -> float:
        """The run by the chord."""
        return self.wide_secs / self.chord_secs

    @property
    def huge_by_wide(self) -> float | None:
        """The huge run by the wide one."""
        return ratio(self.huge_secs, self.wide_secs)


def _run_secs(site: Site, width: int) -> float:
    began = time.perf_counter()
    found = site.engine.start(fan_out, width).result(timeout=TIMEOUT_SECS)
    took = time.perf_counter() - began
    if found != width:
        raise RuntimeError(f"the run gathered {found} results of {width}")
    return took


def _chord_secs(site: Site, width: int) -> float:
    parts = [site.task("part").s(number) for number in range(width)]
    began = time.perf_counter()
    found = chord(parts, app=site.celery)(site.task("whole").s()).get(timeout=TIMEOUT_SECS)
    took = time.perf_counter() - began
    if found != width:
        raise RuntimeError(f"the chord gathered {found} results of {width}")
    return took


def _cpu_secs(site: Site) -> tuple[float, float]:
    """So far, of the worker's main process, and of its children."""
    return procfs.cpu_secs(site.worker.pid), sum(map(procfs.cpu_secs, site.children()))


def _round(bench: Bench, sizes: Widths) -> Figures:
    main, children = _cpu_secs(bench.site)
    wide_secs = _run_secs(bench.site, sizes.wide)
    main_after, children_after = _cpu_secs(bench.site)
    return Figures(
        wide_secs=wide_secs,
        main_cpu_secs=main_after - main,
        children_cpu_secs=children_after - children,
        chord_secs=_chord_secs(bench.site, sizes.wide),
        huge_secs=None if sizes.huge is None else _run_secs(bench.site, sizes.huge),
    )


@contextmanager
def _opened(bench: Bench, sizes: Widths) -> Iterator[Callable[[], Figures]]:
    yield lambda: _round(bench, sizes)


WORKLOAD = Workload(
    name="W3",
    title="one run of parallel no-op steps, gathered",
    full=Widths(wide=1000, huge=10_000),
    short=Widths(wide=100),
    targets=(
        Target(name="the run by a plain chord", figure="by_chord", at_most=0.8, gate=2),
        Target(name="ten times the steps", figure="huge_by_wide", at_most=12, gate=25),
    ),
    opened=_opened,
)
