"""Numbers by workflow: open runs, ended runs of a time window, durations, throughput."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import flask

from .. import registry
from ..engine import Engine
from ..store import Durations, pauses, statistics
from . import charts, notices
from .pages import Dashboard
from .security import Refused

#: The time windows, in microseconds, and into how many columns a plot divides each.
WINDOWS = {"hour": (3_600_000_000, 30), "day": (86_400_000_000, 24), "week": (604_800_000_000, 28)}

PLOT_HEIGHT = 32
#: How long one process keeps the numbers.
_KEPT_SECS = 5.0


@dataclass(slots=True)
class WorkflowNumbers:
    """The numbers of one workflow."""

    name: str
    open: dict[str, int]
    ended: dict[str, int]
    durations: Durations | None
    plot: list[charts.Column]

    @property
    def total(self) -> int:
        """Runs that ended in the window."""
        return sum(self.ended.values())


def show(dashboard: Dashboard) -> flask.Response:
    """The table of workflows."""
    dashboard.guard.require("read")
    dashboard.engine.check_schema()
    window = flask.request.args.get("window", "day")
    if window not in WINDOWS:
        raise Refused(400, "The window is malformed", f"It is one of {', '.join(WINDOWS)}.")
    numbers, since, is_cut = _numbers(dashboard, window)
    with dashboard.engine.store.read() as tx:
        paused = {each.name for each in pauses.active(tx) if each.kind == pauses.WORKFLOW}
    return dashboard.live_page(
        "workflows.html",
        seen=[[each.name, each.open, each.ended, each.name in paused] for each in numbers],
        refresh=10,
        window=window,
        windows=list(WINDOWS),
        numbers=numbers,
        paused=paused,
        notice=notices.of(flask.request.args),
        since=since,
        is_cut=is_cut,
        sample=statistics.SAMPLE,
        height=PLOT_HEIGHT,
    )


_kept: dict[tuple[int, str], tuple[float, Any]] = {}


def _numbers(dashboard: Dashboard, window: str) -> tuple[list[WorkflowNumbers], int, bool]:
    """The numbers; those of a moment ago are used again, so that many viewers cost what one costs."""
    key = (id(dashboard), window)
    kept = _kept.get(key)
    if kept is not None and time.monotonic() - kept[0] < _KEPT_SECS:
        found: tuple[list[WorkflowNumbers], int, bool] = kept[1]
        return found
    found = read(dashboard.engine, window)
    _kept[key] = (time.monotonic(), found)
    return found


def read(engine: Engine, window: str) -> tuple[list[WorkflowNumbers], int, bool]:
    """The numbers of each workflow; since when they are; and whether that is later than the window's beginning."""
    length, slices = WINDOWS[window]
    now = engine.now()
    begin = now - length
    with engine.store.read() as tx:
        found = statistics.ended(tx, begin, now, slices)
        open_runs = statistics.open_by_name(tx)
    names = sorted({*registry.workflows, *(each.name for each in found.ended), *(name for name, _ in open_runs)})
    by_name = {name: WorkflowNumbers(name, {}, {}, found.durations.get(name), []) for name in names}
    for (name, status), count in open_runs.items():
        by_name[name].open[status] = count
    totals = {name: [0] * slices for name in names}
    failed = {name: [0] * slices for name in names}
    for each in found.ended:
        numbers = by_name[each.name].ended
        numbers[each.status] = numbers.get(each.status, 0) + each.count
        totals[each.name][each.slice] += each.count
        failed[each.name][each.slice] += each.count if each.status == "failed" else 0
    for name, numbers_of in by_name.items():
        numbers_of.plot = charts.columns(totals[name], failed[name], PLOT_HEIGHT)
    return list(by_name.values()), found.since, found.since > begin
