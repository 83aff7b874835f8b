"""
How long it takes until work goes on after a fault: ``python -m bench.recovery``.

PostgreSQL and Redis or RabbitMQ as servers of their own, two Celery workers
(prefork, two children each), default settings.  What is timed ends with a line
that a step appends to a file, and begins with the fault, or with the database
being back.

Prints one line of JSON per broker.  Exit code 1: a median is over its target
(docs/explanation/reliability.md).
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chaos.deployment import Deployment, Process
from chaos.ports import free_port, until
from chaos.servers import BROKERS, Broker, PostgreSQL

#: Seconds that a median must stay below.
TARGETS = {
    "child_killed": 2.0,
    "worker_killed": 12.0,
    "worker_silent": 12.0,
    "broker_flushed": 5.0,
    "database_back": 5.0,
}
TIMES = int(os.environ.get("BENCH_N", "3"))
_DOWN_SECS = 4.0
#: More than the workers have taken from the broker already when they are stopped.
_LOST_RUNS = 12
_DEADLINE_SECS = 90.0


@dataclass
class Site:
    """What is broken, and the engine that starts runs."""

    folder: Path
    database: PostgreSQL
    broker: Broker
    deployment: Deployment
    engine: Any

    def entries(self, name: str) -> list[dict[str, Any]]:
        """The executions of the steps of one run."""
        known = self.folder / "ledger"
        lines = known.read_text().splitlines() if known.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["payload"].split()[0] == name]

    def wait_for(self, name: str, count: int) -> float:
        """The moment (monotonic) when so many executions were there."""
        until(lambda: len(self.entries(name)) >= count, f"{count} executions of {name}", _DEADLINE_SECS)
        return time.monotonic()

    def worker_of(self, pid: int) -> Process:
        """The worker that a child belongs to."""
        return next(worker for worker in self.deployment.workers if worker.pid == os.getpgid(pid))


def main() -> int:
    """Measure on the broker that the command line names, or on both; the exit code."""
    if not sys.argv[1:]:
        # One process each: the application's engine is made once.
        return max(subprocess.call([sys.executable, "-m", "bench.recovery", broker]) for broker in BROKERS)
    broker = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="durable-recovery-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with _site(folder, broker) as site:
            figures = {fault: _measured(site, fault) for fault in TARGETS}
    print(json.dumps({"broker": broker, "n": TIMES, **figures}), flush=True)
    return 0 if all(figure["median_secs"] < figure["target_secs"] for figure in figures.values()) else 1


@contextmanager
def _site(folder: Path, broker_kind: str) -> Iterator[Site]:
    with ExitStack() as stack:
        database, broker = PostgreSQL(folder), BROKERS[broker_kind](folder)
        for server in (database, broker):
            stack.callback(server.stop)
            server.start()
        settings = {
            "DURABLE_DATABASE_URL": database.url,
            "DURABLE_BROKER_URL": broker.url,
            "CHAOS_FOLDER": str(folder),
        }
        os.environ.update(settings)
        # Only now: the application's settings come from the environment.
        from chaos.application import engine

        stack.callback(engine.close)
        engine.migrate()
        deployment = Deployment(folder, database.url, broker.url, free_port())
        stack.callback(deployment.stop)
        for worker in deployment.workers:
            worker.start()
        for worker in deployment.workers:
            until(partial(worker.has_said, "ready."), f"{worker.name} is ready")
        yield Site(folder, database, broker, deployment, engine)


def _measured(site: Site, fault: str) -> dict[str, Any]:
    took = []
    for number in range(TIMES):
        took.append(_FAULTS[fault](site, f"{fault}-{number}"))
        _restore(site)
    figures = {"median_secs": round(statistics.median(took), 2), "all_secs": [round(each, 2) for each in took]}
    print(f"{fault}: {figures}", file=sys.stderr, flush=True)
    return figures | {"target_secs": TARGETS[fault]}


def _restore(site: Site) -> None:
    """Let steps end, and bring back what is gone."""
    (site.folder / "open").touch()
    for worker in site.deployment.workers:
        worker.signal(signal.SIGCONT)
        worker.start()
    until(lambda: not _open_runs(site), "all runs have ended", _DEADLINE_SECS)
    until(lambda: all(len(worker.children()) >= 2 for worker in site.deployment.workers), "all children are there")
    (site.folder / "open").unlink()
    # A worker that has just been started has to find its place; the next fault comes at no special moment.
    time.sleep(4 + random.random())


def _open_runs(site: Site) -> int:
    import sqlalchemy as sa

    with site.engine.store.read() as tx:
        return int(tx.execute(sa.text("SELECT count(*) FROM durable_runs WHERE completed_at IS NULL")).scalar_one())


def _child_killed(site: Site, name: str) -> float:
    """SIGKILL to the child that runs a step, until the next attempt begins."""
    return _next_attempt(site, name, lambda pid: os.kill(pid, signal.SIGKILL))


def _worker_killed(site: Site, name: str) -> float:
    """SIGKILL to the worker with its children, another worker of the same host goes on."""
    return _next_attempt(site, name, lambda pid: os.killpg(os.getpgid(pid), signal.SIGKILL))


def _worker_silent(site: Site, name: str) -> float:
    """SIGSTOP to the worker with its children: as a host that is gone, it is missed only by its beats."""
    return _next_attempt(site, name, lambda pid: os.killpg(os.getpgid(pid), signal.SIGSTOP))


def _next_attempt(site: Site, name: str, hit: Callable[[int], None]) -> float:
    from chaos.application import held

    site.engine.start(held, name)
    site.wait_for(name, 1)
    began = time.monotonic()
    hit(int(site.entries(name)[0]["payload"].split()[-1]))
    return site.wait_for(name, 2) - began


def _broker_flushed(site: Site, name: str) -> float:
    """Many runs' only messages are in the broker, and gone: until the last of them has begun its step."""
    from chaos.application import awaked

    for worker in site.deployment.workers:
        worker.signal(signal.SIGSTOP)
    for number in range(_LOST_RUNS):
        site.engine.start(awaked, f"{name}-{number}", "1ms")
    site.broker.flush()
    began = time.monotonic()
    for worker in site.deployment.workers:
        worker.signal(signal.SIGCONT)
    return max(site.wait_for(f"{name}-{number}", 1) for number in range(_LOST_RUNS)) - began


def _database_back(site: Site, name: str) -> float:
    """The database has been away while a sleep ended: from its first answer until the step after the sleep begins."""
    from chaos.application import awaked

    run = site.engine.start(awaked, name, "2s")
    until(lambda: any(event.kind == "wait_created" for event in run.events()), "the run sleeps")
    site.database.stop(signal.SIGQUIT)
    time.sleep(_DOWN_SECS)
    site.database.start()
    began = time.monotonic()
    return site.wait_for(name, 1) - began


_FAULTS: dict[str, Callable[[Site, str], float]] = {
    "child_killed": _child_killed,
    "worker_killed": _worker_killed,
    "worker_silent": _worker_silent,
    "broker_flushed": _broker_flushed,
    "database_back": _database_back,
}


if __name__ == "__main__":
    sys.exit(main())
