"""Schedules as plain JSON, for the command line, the control routes and the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from .. import duration
from ..engine import Engine
from ..store import ScheduledRun, ScheduleRow, schedules
from . import declared, plan, timing

#: How many planned times a list shows of each schedule.
_LISTED_TIMES = 1


def list_schedules(engine: Engine, *, after: str = "", limit: int) -> list[dict[str, Any]]:
    """The schedules in the order of their names, each with its next planned time and its latest runs."""
    engine.check_schema()
    # What this process declares is there already, though no worker has written it.
    declared.write_missing(engine)
    with engine.store.read() as tx:
        rows = schedules.page(tx, after=after, limit=limit)
        latest = schedules.latest_runs(tx, [row.name for row in rows])
    now = engine.now()
    return [describe(row, latest[row.name], now, _LISTED_TIMES) for row in rows]


def describe(row: ScheduleRow, latest: Sequence[ScheduledRun], now: int, times: int) -> dict[str, Any]:
    """One schedule, with so many of its next planned times."""
    zone = ZoneInfo(row.tz)
    upcoming = plan.upcoming(row, now, times)
    return {
        "name": row.name,
        "workflow": row.workflow,
        "timing": timing.from_json(row.timing).describe(),
        "tz": row.tz,
        "overlap": row.overlap,
        "catch_up": row.catch_up,
        "jitter": duration.to_text(row.jitter) if row.jitter else None,
        "until": duration.iso(row.until_at),
        "status": status_of(row),
        "declared": row.is_declared,
        "next": [duration.to_datetime(at).astimezone(zone).isoformat() for at in upcoming],
        "waits_for": duration.iso(row.planned_at) if row.is_held else None,
        "skipped": row.skipped,
        "runs": [
            {"run_id": run.run_id, "scheduled_for": duration.iso(run.planned_at), "status": run.status or "deleted"}
            for run in latest
        ],
    }


def status_of(row: ScheduleRow) -> str:
    """``active``, ``paused``, or ``ended`` when no planned time is left."""
    if row.paused_at is not None:
        return "paused"
    return "ended" if row.planned_at is None else "active"
