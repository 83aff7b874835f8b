"""Schedules: the list, the page of one, and the forms that pause, resume and trigger one."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import flask

from ..errors import ScheduleNotFound
from ..schedules import Schedule, describe, handle
from ..store import audit
from . import notices
from .actions import record
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
        entries = audit.of_run(tx, _subject(name), _AUDITED)
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


def _act(dashboard: Dashboard, action: str, name: str, do: Callable[[Schedule], Any]) -> Any:
    """Do one thing to one schedule, if the caller may, with an entry in the audit that is committed first."""
    actor = dashboard.guard.require(action)
    found = _find(dashboard, name)
    finish = record(dashboard, _subject(name), action, actor, name)
    result = do(found)
    finish("done" if result else "refused: it was so already")
    return result


def _find(dashboard: Dashboard, name: str) -> Schedule:
    try:
        return handle.get(dashboard.engine, name)
    except ScheduleNotFound:
        detail = "It may be deleted, or no live worker declares it any more."
        raise Refused(404, "Schedule not found", detail) from None


def _subject(name: str) -> str:
    """What the audit names: it has room for the id of a run, and the name of a schedule may be longer."""
    return f"schedule:{sha256(name.encode()).hexdigest()[:40]}"
