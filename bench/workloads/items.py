"""
W12: items that one step emits to a stream.

As fast as it can, until the step's result is there; beside it, a plain task that inserts rows, and commits each.  And
at a pace of 5,000 items a second, as from a model that the step waits for; beside it, the same step that emits nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from durable.events import StepCompleted

from ..bench import Bench
from ..figures import Sizes, Target, Workload
from ..site import TIMEOUT_SECS, Site
from ..workflows import emitting

#: Items a second.
PACE = 5_000


@dataclass(frozen=True, kw_only=True)
class Items(Sizes):
    """How many at full speed, how many rows the plain task inserts, and how many at a pace."""

    items: int
    rows: int
    paced: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Items and rows a second, and seconds of the steps that keep a pace."""

    items_per_sec: float
    plain_rows_per_sec: float
    paced_secs: float
    silent_secs: float

    @property
    def items_by_plain_rows(self) -> float:
        """How many times as many items as rows that are committed one by one."""
        return self.items_per_sec / self.plain_rows_per_sec

    @property
    def paced_by_silent(self) -> float:
        """What emitting costs a step that keeps a pace."""
        return self.paced_secs / self.silent_secs


def _step_secs(site: Site, count: int, pace: int, *, emits: bool) -> float:
    """Seconds of the step, until all that it emits is written."""
    run = site.engine.start(emitting, count, pace, emits)
    run.result(timeout=TIMEOUT_SECS)
    (ended,) = [each for each in run.events() if isinstance(each, StepCompleted)]
    left = sum(1 for _ in run.stream("items")) if emits else count
    if left != count:
        raise RuntimeError(f"the stream has {left} items of {count}")
    return (ended.at - (ended.started_at or 0)) / 1_000_000


def _plain_secs(site: Site, count: int) -> float:
    inbox = f"bench:{uuid.uuid4().hex}"
    site.task("rows").apply_async((uuid.uuid4().hex, count, inbox))
    return site.told(inbox)


@contextmanager
def _opened(bench: Bench, sizes: Items) -> Iterator[Callable[[], Figures]]:
    site = bench.site

    def measure() -> Figures:
        return Figures(
            items_per_sec=sizes.items / _step_secs(site, sizes.items, 0, emits=True),
            plain_rows_per_sec=sizes.rows / _plain_secs(site, sizes.rows),
            paced_secs=_step_secs(site, sizes.paced, PACE, emits=True),
            silent_secs=_step_secs(site, sizes.paced, PACE, emits=False),
        )

    yield measure


WORKLOAD = Workload(
    name="W12",
    title="items that one step emits",
    full=Items(items=50_000, rows=2_000, paced=20_000),
    short=Items(items=5_000, rows=200, paced=5_000),
    targets=(
        Target(name="items a second", figure="items_per_sec", at_least=5_000),
        Target(name="at 5,000 a second, by a step that emits nothing", figure="paced_by_silent", at_most=1.1, gate=3),
    ),
    opened=_opened,
)
