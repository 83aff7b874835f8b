"""The live worker processes and what they run, and the queues with what waits in them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Connection

from ..engine import Engine
from ..store import ClaimedAttempt, QueueBacklog, Worker, claimed_attempts, statistics, workers

#: How many running attempts are read.
LISTED = 500


@dataclass(frozen=True, slots=True)
class LiveProcess:
    """A process with its versions and queues, how many names it has registered, and the attempts that it runs."""

    worker: Worker
    versions: dict[str, str]
    queues: list[str]
    names: int
    running: list[ClaimedAttempt]


@dataclass(frozen=True, slots=True)
class QueueNumbers:
    """A queue: its backlog, since when its oldest step waits, and how many live processes consume it."""

    name: str
    count: int
    oldest: int | None
    consumers: int


@dataclass(frozen=True, slots=True)
class Workforce:
    """All of it at one moment; the attempts that began first come first."""

    processes: list[LiveProcess]
    queues: list[QueueNumbers]
    running: list[ClaimedAttempt]
    now: int


def read(engine: Engine, tx: Connection, now: int) -> Workforce:
    """Return the processes with a heartbeat within ``dead_after``, by host and pid, and the queues by name."""
    alive = workers.alive(tx, now - engine.settings.dead_after)
    running = claimed_attempts.of_workers(tx, [worker.id for worker in alive], LISTED) if alive else []
    running.sort(key=lambda attempt: (attempt.claimed_at, attempt.run_id, attempt.op_id))
    by_worker: dict[str, list[ClaimedAttempt]] = defaultdict(list)
    for attempt in running:
        by_worker[attempt.worker_id].append(attempt)
    processes = [
        LiveProcess(
            worker,
            json.loads(worker.versions or "{}"),
            json.loads(worker.queues or "[]"),
            len(json.loads(worker.names)),
            by_worker.get(worker.id, []),
        )
        for worker in sorted(alive, key=lambda worker: (worker.host, worker.pid))
    ]
    default = engine.dispatch.queue_of_turn(None) or "celery"
    return Workforce(processes, _queues(processes, statistics.backlog_by_queue(tx, now), default), running, now)


def _queues(processes: list[LiveProcess], backlog: list[QueueBacklog], default: str) -> list[QueueNumbers]:
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
