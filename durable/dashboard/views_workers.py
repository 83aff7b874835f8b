"""Workers and queues: live processes and what they run, the backlog, overdue timers, and the doctor's findings."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass

import flask

from .. import doctor
from ..doctor import Finding
from ..store import BOUND, ClaimedAttempt, Worker, statistics, steps, workers
from .pages import Dashboard

#: How many running attempts the page lists.
LISTED = 500
#: A timer that is later than this is listed as overdue, in microseconds.
LATE = 5_000_000
#: How long one process keeps the doctor's findings, for which it asks the broker.
_KEPT_SECS = 30.0


@dataclass(frozen=True, slots=True)
class LiveProcess:
    """A process with its queues, and the attempts that it runs."""

    worker: Worker
    queues: list[str]
    names: int
    running: list[ClaimedAttempt]


@dataclass(frozen=True, slots=True)
class QueueNumbers:
    """A queue: its backlog, and how many live processes consume it."""

    name: str
    count: int
    oldest: int | None
    consumers: int


def show(dashboard: Dashboard) -> flask.Response:
    """The page."""
    dashboard.guard.require("read")
    engine = dashboard.engine
    engine.check_schema()
    now = engine.now()
    with engine.store.read() as tx:
        alive = workers.alive(tx, now - engine.settings.dead_after)
        running = steps.claimed_by(tx, [worker.id for worker in alive], LISTED) if alive else []
        backlog = statistics.backlog_by_queue(tx, now)
        overdue = statistics.overdue_timers(tx, now, LATE, 20)
    by_worker: dict[str, list[ClaimedAttempt]] = defaultdict(list)
    for attempt in running:
        by_worker[attempt.worker_id].append(attempt)
    processes = [
        LiveProcess(
            worker, json.loads(worker.queues or "[]"), len(json.loads(worker.names)), by_worker.get(worker.id, [])
        )
        for worker in sorted(alive, key=lambda worker: (worker.host, worker.pid))
    ]
    default = engine.dispatch.queue_of_turn(None) or "celery"
    return dashboard.live_page(
        "workers.html",
        seen=[[worker.id for worker in alive], repr(running), repr(backlog), overdue[0], now // 5_000_000],
        processes=processes,
        queues=_queues(processes, backlog, default),
        overdue=overdue,
        most=BOUND,
        findings=_findings(dashboard),
        now=now,
    )


def _queues(processes: list[LiveProcess], backlog: list[statistics.QueueBacklog], default: str) -> list[QueueNumbers]:
    consumers: dict[str, int] = defaultdict(int)
    for process in processes:
        for queue in process.queues:
            consumers[queue] += 1
    waiting = {entry.queue or default: entry for entry in backlog}
    return [
        QueueNumbers(
            name,
            waiting[name].count if name in waiting else 0,
            waiting[name].oldest if name in waiting else None,
            consumers.get(name, 0),
        )
        for name in sorted({*consumers, *waiting})
    ]


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
