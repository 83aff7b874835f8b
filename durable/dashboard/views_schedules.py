"""Schedules: the list, the page of one, and the forms that pause, resume, trigger, backfill and delete one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import flask

from .. import duration
from ..client import audited
from ..errors import ConfigurationError, ScheduleNotFound
from ..schedules import Schedule, describe, handle
from ..store import audit
from . import notices
from .pages import Dashboard, back_to
from .security import Refused

PAGE = 50
#: How many planned times the page of a schedule shows.
TIMES = 10
_AUDITED = 20


def show(dashboard: Dashboard) -> flask.Response:
    """The schedules in the order of their names, by pages."""
    dashboard.guard.require("read")
    after = flask.request.args.get("after", "")
    found = describe.list_schedules(dashboard.engine, after=after[:255], limit=PAGE + 1)
    shown = found[:PAGE]
    return dashboard.live_page(
        "schedules.html",
        seen=shown,
        found=shown,
        older=shown[-1]["name"] if len(found) > PAGE else None,
        notice=notices.of(flask.request.args),
        is_first=not after,
        now=dashboard.engine.now(),
    )


def show_one(dashboard: Dashboard, name: str) -> flask.Response:
    """One schedule: its next times, its latest runs, and what people did to it."""
    dashboard.guard.require("read")
    engine = dashboard.engine
    found = _find(dashboard, name)
    now = engine.now()
    shown = describe.describe(found.row(), found.latest(), now, TIMES)
    with engine.store.read() as tx:
        entries = audit.of_run(tx, subject(name), _AUDITED)
    return dashboard.live_page(
        "schedule.html",
        seen=[shown, repr(entries)],
        schedule=shown,
        entries=entries,
        notice=notices.of(flask.request.args),
        now=now,
    )


def pause(dashboard: Dashboard, name: str) -> flask.Response:
    """Let the schedule start no more runs."""
    if not _act(dashboard, "pause_schedule", name, Schedule.pause):
        raise Refused(409, "Nothing was done", "The schedule is paused already.")
    return back_to("schedule", name=name, done="pause_schedule")


def resume(dashboard: Dashboard, name: str) -> flask.Response:
    """Let the schedule go on."""
    if not _act(dashboard, "resume_schedule", name, Schedule.resume):
        raise Refused(409, "Nothing was done", "The schedule is not paused.")
    return back_to("schedule", name=name, done="resume_schedule")


def trigger(dashboard: Dashboard, name: str) -> flask.Response:
    """Start a run of the schedule now, and show it."""
    run = _act(dashboard, "trigger_schedule", name, Schedule.trigger)
    return back_to("run", run_id=run.id, done="start")


def backfill(dashboard: Dashboard, name: str) -> flask.Response:
    """Start a run for each planned time of the form's range that has none."""
    start, end = moment("start"), moment("end")
    if start is None or end is None:
        raise Refused(400, "A time is missing", "Give the range from its first to its last planned time.")
    made = _act(dashboard, "backfill_schedule", name, lambda found: found.backfill(start, end))
    return back_to("schedule", name=name, done="backfill_schedule", count=len(made))


def delete(dashboard: Dashboard, name: str) -> flask.Response:
    """Delete the schedule."""
    _act(dashboard, "delete_schedule", name, Schedule.delete)
    return back_to("schedules", done="delete_schedule")


def _act(dashboard: Dashboard, action: str, name: str, do: Callable[[Schedule], Any]) -> Any:
    """Do one thing to one schedule, if the caller may, with an entry in the audit that is committed first."""
    actor = dashboard.guard.require(action)
    found = _find(dashboard, name)
    finish = audited.begin(dashboard.engine, subject(name), action, actor, name)
    try:
        result = do(found)
    except (ConfigurationError, ValueError) as error:
        finish(f"refused: {error}")
        raise Refused(409, "Nothing was done", str(error)) from error
    finish("refused: it was so already" if result is False else "done")
    return result


def _find(dashboard: Dashboard, name: str) -> Schedule:
    try:
        return handle.get(dashboard.engine, name)
    except ScheduleNotFound:
        detail = "It may be deleted, or no live worker declares it any more."
        raise Refused(404, "Schedule not found", detail) from None


def subject(name: str) -> str:
    """What the audit names."""
    return audit.subject("schedule", name)


def moment(field: str) -> datetime | None:
    """A field of the form that is a time with a UTC offset; None if it is empty."""
    text = flask.request.form.get(field, "").strip()
    try:
        return duration.to_datetime(duration.from_iso(text)) if text else None
    except ValueError as error:
        raise Refused(
            400,
            f"The field {field!r} is not a time",
            f"{error}.  Write a time with its UTC offset, such as 2026-05-01T03:00+02:00.  Go back and correct it.",
        ) from error
