"""
W4: runs that all sleep one second at once.

Late is what a user sees: the stamp of the step after the sleep, less that of
the step before it, less the second.  Beside it: plain Celery tasks with an ETA
of a second, late at their body's first line.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from ..bench import Bench
from ..figures import Sizes, Target, Workload, ms, p95
from ..site import TIMEOUT_SECS, Site
from ..workflows import sleeper

_SLEEP_SECS = 1.0


@dataclass(frozen=True, kw_only=True)
class Sleepers(Sizes):
    """How many runs sleep, and how many tasks have an ETA."""

    sleepers: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Milliseconds, and how many runs came early."""

    early: int
    late_p50_ms: float
    late_p95_ms: float
    #: Of the recorded end of the sleep alone, by the database's clock.
    alarm_p95_ms: float
    plain_p50_ms: float
    plain_p95_ms: float

    @property
    def by_plain(self) -> float:
        """The p95 by that of plain tasks."""
        return self.late_p95_ms / self.plain_p95_ms


def _round(site: Site, count: int) -> Figures:
    runs = [site.engine.start(sleeper, _SLEEP_SECS) for _ in range(count)]
    stamps = [run.result(timeout=TIMEOUT_SECS) for run in runs]
    late = [ms(after - before - _SLEEP_SECS) for before, after in stamps]
    alarms = [_alarm_late_ms(site, run.id) for run in runs]
    plain = _plain_late_ms(site, count)
    return Figures(
        early=sum(each < 0 for each in [*late, *alarms]),
        late_p50_ms=median(late),
        late_p95_ms=p95(late),
        alarm_p95_ms=p95(alarms),
        plain_p50_ms=median(plain),
        plain_p95_ms=p95(plain),
    )


def _alarm_late_ms(site: Site, run_id: str) -> float:
    log = site.engine.get_run(run_id).events()
    (created,) = [event for event in log if event.kind == "wait_created"]
    (ended,) = [event for event in log if event.kind == "wait_completed"]
    return float(ended.at - created.due_at) / 1000  # type: ignore[attr-defined]


def _plain_late_ms(site: Site, count: int) -> list[float]:
    inbox = f"bench:{uuid.uuid4().hex}"
    due = []
    for number in range(count):
        due.append(time.time() + _SLEEP_SECS)
        site.task("tell").apply_async((f"{inbox}:{number}",), eta=datetime.fromtimestamp(due[-1], UTC))
    return [ms(site.told(f"{inbox}:{number}") - at) for number, at in enumerate(due)]


@contextmanager
def _opened(bench: Bench, sizes: Sleepers) -> Iterator[Callable[[], Figures]]:
    yield lambda: _round(bench.site, sizes.sleepers)


WORKLOAD = Workload(
    name="W4",
    title=f"runs that sleep {_SLEEP_SECS:g} s at once",
    full=Sleepers(sleepers=100),
    short=Sleepers(sleepers=20),
    targets=(
        Target(name="sleeps that ended early", figure="early", at_most=0, gate=0),
        Target(name="ms late, p95", figure="late_p95_ms", at_most=10),
    ),
    opened=_opened,
)
