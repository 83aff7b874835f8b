"""Workers and queues: live processes and what they run, backlogs, limits, overdue timers, the doctor's findings."""

from __future__ import annotations

import threading
import time

import flask

from .. import doctor
from ..client import limits as client_limits
from ..client import workforce
from ..doctor import Finding
from ..store import BOUND, limit_view, pauses, statistics
from . import notices
from .pages import Dashboard

#: A timer that is later than this is listed as overdue, in microseconds.
LATE = 5_000_000
#: The most keys of limits that are listed.
LIMITS = 50
#: How long one process keeps the doctor's findings, for which it asks the broker.
_KEPT_SECS = 30.0


def show(dashboard: Dashboard) -> flask.Response:
    """The page."""
    dashboard.guard.require("read")
    engine = dashboard.engine
    engine.check_schema()
    now = engine.now()
    with engine.store.read() as tx:
        fleet = workforce.read(engine, tx, now)
        overdue = statistics.overdue_timers(tx, now, LATE, 20)
        limits = limit_view.states(tx, LIMITS, engine.store.now())
        paused = pauses.every(tx, LIMITS)
    return dashboard.live_page(
        "workers.html",
        seen=[
            [each.worker.id for each in fleet.processes],
            repr(fleet.running),
            repr(fleet.queues),
            overdue[0],
            repr(limits),
            repr(paused),
            now // 5_000_000,
        ],
        processes=fleet.processes,
        queues=fleet.queues,
        overdue=overdue,
        limits=limits,
        paused=paused,
        paused_queues={each.name for each in paused if each.kind == pauses.QUEUE and each.resuming_at is None},
        notice=notices.of(flask.request.args),
        kinds=client_limits.KINDS,
        most=BOUND,
        findings=_findings(dashboard),
        now=now,
    )


_lock = threading.Lock()
_kept: dict[int, tuple[float, list[Finding]]] = {}


def _findings(dashboard: Dashboard) -> list[Finding]:
    """The doctor's findings, at most ``_KEPT_SECS`` old: it waits up to some seconds for workers to answer."""
    with _lock:
        kept = _kept.get(id(dashboard))
        if kept is None or time.monotonic() - kept[0] > _KEPT_SECS:
            kept = (time.monotonic(), doctor.examine(dashboard.engine))
            _kept[id(dashboard)] = kept
        return kept[1]
