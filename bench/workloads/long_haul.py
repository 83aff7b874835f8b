"""
W10: many runs through one worker: its memory, and its connections to the database.

The worker is a new one.  Some runs are under way at any time; the memory of the
worker with its children is looked at ten times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from .. import procfs
from ..bench import Bench
from ..figures import Sizes, Target, Workload
from ..site import CHILDREN, TIMEOUT_SECS, Site
from ..workflows import sequence

_AT_ONCE = 50
_LOOKS = 10
#: Two per child for its work, one for the housekeeping of each and one more.
_ALLOWED = 2 * CHILDREN + 3

_CONNECTIONS = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bench-worker'"
)


@dataclass(frozen=True, kw_only=True)
class Runs(Sizes):
    """How many runs of one step."""

    runs: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Memory in KiB after the first tenth, at the middle and at the end; the most connections that were seen."""

    early_kib: int
    middle_kib: int
    end_kib: int
    #: The most by the least over the last half.
    last_half: float
    connections: int

    @property
    def connections_by_allowed(self) -> float:
        """The connections by 2 per child and 3."""
        return self.connections / _ALLOWED


def _round(site: Site, count: int) -> Figures:
    looks = []
    connections = 0
    under_way = deque(site.engine.start(sequence, 1) for _ in range(min(_AT_ONCE, count)))
    for number in range(1, count + 1):
        under_way.popleft().result(timeout=TIMEOUT_SECS)
        if number + len(under_way) < count:
            under_way.append(site.engine.start(sequence, 1))
        if number * _LOOKS % count < _LOOKS:
            looks.append(sum(map(procfs.kib, procfs.family(site.worker.pid))))
            connections = max(connections, _connections(site))
    half = looks[len(looks) // 2 :]
    return Figures(
        early_kib=looks[0],
        middle_kib=half[0],
        end_kib=looks[-1],
        last_half=max(half) / min(half),
        connections=connections,
    )


def _connections(site: Site) -> int:
    if site.engine.store.dialect == "sqlite":
        path = str(site.engine.store.url.database)
        return sum(procfs.times_open(pid, path) for pid in procfs.family(site.worker.pid))
    with site.engine.store.read() as tx:
        return int(tx.execute(_CONNECTIONS).scalar_one())


@contextmanager
def _opened(bench: Bench, sizes: Runs) -> Iterator[Callable[[], Figures]]:
    with bench.new_site() as site:
        yield lambda: _round(site, sizes.runs)


WORKLOAD = Workload(
    name="W10",
    title="many runs through one worker",
    full=Runs(runs=10_000),
    short=Runs(runs=1000),
    targets=(
        Target(name="memory in the last half, most by least", figure="last_half", at_most=1.05, gate=1.2),
        Target(name=f"connections by {_ALLOWED}", figure="connections_by_allowed", at_most=1, gate=1),
    ),
    opened=_opened,
    once=True,
)
