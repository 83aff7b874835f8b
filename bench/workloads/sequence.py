"""
W1: one run of sequential no-op steps.

A step costs (last step's stamp - first's) / (n - 1).  Beside it: a bare insert
and commit of this process, and a plain Celery chain whose tasks commit a row
each, at the same lengths.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import chain

from ..bench import Bench
from ..figures import Sizes, Target, Workload, ms
from ..site import TIMEOUT_SECS, Site
from ..workflows import sequence


@dataclass(frozen=True, kw_only=True)
class Lengths(Sizes):
    """Steps of a run, and of a chain; commits are as many as the longest has."""

    short: int
    middle: int
    long: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Milliseconds per step, per link of the chain, per commit."""

    short_ms: float
    middle_ms: float
    long_ms: float
    chain_short_ms: float
    chain_middle_ms: float
    chain_long_ms: float
    commit_ms: float

    @property
    def by_commit(self) -> float:
        """A step of the short run by a bare commit."""
        return self.short_ms / self.commit_ms

    @property
    def long_by_commit(self) -> float:
        """A step of the long run by a bare commit."""
        return self.long_ms / self.commit_ms

    @property
    def by_chain(self) -> float:
        """A step of the short run by a link of the short chain."""
        return self.short_ms / self.chain_short_ms

    @property
    def long_by_chain(self) -> float:
        """A step of the long run by a link of the long chain."""
        return self.long_ms / self.chain_long_ms

    @property
    def long_by_short(self) -> float:
        """A step of the long run by one of the short run."""
        return self.long_ms / self.short_ms


def step_secs(site: Site, length: int) -> float:
    """What a step of a run of that length takes."""
    first, last = site.engine.start(sequence, length).result(timeout=TIMEOUT_SECS)
    return (last - first) / (length - 1)


def chain_secs(site: Site, length: int) -> float:
    """What a link of a plain chain of that length takes, each of which commits a row."""
    series = uuid.uuid4().hex
    inbox = f"bench:{series}"
    links = [site.task("row").si(series, number) for number in range(length)]
    chain(*links, site.task("tell").si(inbox)).apply_async()
    site.told(inbox)
    return site.rows.span_secs(series) / (length - 1)


@contextmanager
def _opened(bench: Bench, sizes: Lengths) -> Iterator[Callable[[], Figures]]:
    yield lambda: _round(bench.site, sizes)


def _round(site: Site, sizes: Lengths) -> Figures:
    known: dict[str, Any] = {}
    commits = []
    for name in ("short", "middle", "long"):
        length = getattr(sizes, name)
        known[f"{name}_ms"] = ms(step_secs(site, length))
        commits.append(ms(site.rows.commit_secs(sizes.long)))
        known[f"chain_{name}_ms"] = ms(chain_secs(site, length))
    return Figures(commit_ms=sorted(commits)[1], **known)


WORKLOAD = Workload(
    name="W1",
    title="one run of sequential no-op steps",
    full=Lengths(short=100, middle=300, long=1000),
    short=Lengths(short=30, middle=60, long=120),
    targets=(
        Target(name="a step by a bare commit", figure="by_commit", at_most=1.5, gate=4),
        Target(name="the same in the long run", figure="long_by_commit", at_most=1.5, gate=4),
        Target(name="a step by a link of a plain chain that commits", figure="by_chain", at_most=0.5, gate=1.2),
        Target(name="the same in the long run", figure="long_by_chain", at_most=0.5, gate=1.2),
        Target(name="a step of the long run by one of the short", figure="long_by_short", at_most=1.15, gate=2),
    ),
    opened=_opened,
)
