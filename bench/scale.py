"""
What a deployment costs its database and its broker as it grows: ``python -m bench.scale [--runs 10000]``.

PostgreSQL and Redis as servers of their own.  Workers of two children each and web processes, in several sizes.  Each
is measured while nothing happens, and while many runs are started over HTTP, go through a hook and a step, and end.
Counts and CPU times, no durations: the machine may be busy with other things.

Prints one line of JSON for each size, and one that compares the smallest with the largest.  Exit code 1: something grew
faster than the processes, the idle load of the largest size is over its target, or a run was lost or done twice.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis

from chaos.deployment import Deployment
from chaos.ports import free_port, until
from chaos.servers import PostgreSQL, Redis

from . import procfs

#: Workers of two children, and web processes.
SIZES = ((2, 1), (5, 2), (10, 4))
#: Of the largest size while nothing happens.
IDLE_STATEMENTS_PER_SEC = 20.0
IDLE_DATABASE_PERCENT = 1.0
#: How much faster than the processes something may seem to grow: counts of 30 s vary.
TOLERANCE = 1.2

#: Until the processes have done what they do at their start.
_SETTLE_SECS = 35.0
_SAMPLE_SECS = 0.5
_SENDERS = 8
_DEADLINE_SECS = 3600.0

#: The extension counts each statement, but not BEGIN and COMMIT.
_COUNTING = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "off"}
_CALLS = (
    "SELECT query, sum(calls)::bigint FROM pg_stat_statements"
    " WHERE query NOT LIKE '%pg_stat%' GROUP BY query ORDER BY 2 DESC"
)
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@dataclass
class Site:
    """The servers, and the processes that use them."""

    folder: Path
    database: PostgreSQL
    broker: Redis
    deployment: Deployment
    admin: psycopg.Connection[Any]

    def connections(self) -> dict[str, int]:
        """How many connections database and broker have, but for those that ask."""
        clients = self.broker_client.info("clients")["connected_clients"]
        (found,) = self.admin.execute(_CONNECTIONS).fetchone() or (0,)
        return {"database": int(found), "broker": int(clients) - 1}

    @property
    def broker_client(self) -> redis.Redis:
        return self._broker_client

    def __post_init__(self) -> None:
        self._broker_client = redis.Redis(port=self.broker.port)

    def forget_statements(self) -> None:
        """Count statements from now on."""
        self.admin.execute("SELECT pg_stat_statements_reset()")

    def statements(self) -> dict[str, int]:
        """How often each statement was executed."""
        return dict(self.admin.execute(_CALLS).fetchall())

    def database_cpu_secs(self) -> float:
        """The CPU time of PostgreSQL's processes that there are now, but for the one that serves us."""
        own = self.admin.info.backend_pid
        return sum(procfs.cpu_secs(pid) for pid in procfs.family(self.database.pid) if pid != own)

    def processes_cpu_secs(self) -> float:
        """The CPU time of workers and web processes."""
        pids = [pid for process in self.deployment.processes if process.pid for pid in procfs.family(process.pid)]
        return sum(map(procfs.cpu_secs, pids))


@contextmanager
def opened(workers: int, webs: int) -> Iterator[Site]:
    """A deployment of this size, which has started and is idle."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-scale-")))
        # PostgreSQL's user looks into it.
        folder.chmod(0o755)
        database, broker = PostgreSQL(folder, _COUNTING), Redis(folder)
        for server in (database, broker):
            stack.callback(server.kill)
            server.start()
        os.environ |= {
            "DURABLE_DATABASE_URL": database.url,
            "DURABLE_BROKER_URL": broker.url,
            "CHAOS_FOLDER": str(folder),
        }
        subprocess.run([sys.executable, "-c", "from chaos.application import engine; engine.migrate()"], check=True)
        admin = stack.enter_context(psycopg.connect(database.url, autocommit=True))
        admin.execute("CREATE EXTENSION pg_stat_statements")
        deployment = Deployment(folder, database.url, broker.url, free_port(), workers=workers, webs=webs)
        stack.callback(deployment.stop)
        deployment.start()
        deployment.wait_until_up()
        yield Site(folder, database, broker, deployment, admin)


def measure(workers: int, webs: int, runs: int, idle_secs: float) -> dict[str, Any]:
    """What this size costs, idle and at work."""
    with opened(workers, webs) as site:
        time.sleep(_SETTLE_SECS)
        idle = _idle(site, idle_secs)
        return {
            "workers": workers,
            "children": 2 * workers,
            "webs": webs,
            "processes": 2 * workers + webs,
            "idle": idle,
            "at_work": _at_work(site, runs),
        }


def _idle(site: Site, secs: float) -> dict[str, Any]:
    site.forget_statements()
    began, database, processes = time.monotonic(), site.database_cpu_secs(), site.processes_cpu_secs()
    time.sleep(secs)
    found, took = _kinds(site.statements()), time.monotonic() - began
    return {
        "connections": site.connections(),
        "statements_per_sec": {kind: round(count / took, 2) for kind, count in found.items()},
        "database_cpu_percent": round(100 * (site.database_cpu_secs() - database) / took, 2),
        "processes_cpu_percent": round(100 * (site.processes_cpu_secs() - processes) / took, 2),
    }


def _kinds(statements: dict[str, int]) -> dict[str, int]:
    """Statements by what they are for; the sweep's are the rest of what idle processes do."""
    found = {"all": sum(statements.values()), "beats": 0, "lease": 0}
    for text, calls in statements.items():
        if text.startswith("UPDATE durable_workers SET beat_at"):
            found["beats"] += calls
        elif "durable_leases" in text:
            found["lease"] += calls
    return found | {"sweep": found["all"] - found["beats"] - found["lease"]}


def _at_work(site: Site, runs: int) -> dict[str, Any]:
    """Start the runs and resume each; what that takes, and what came of it."""
    site.forget_statements()
    began, processes = time.monotonic(), site.processes_cpu_secs()
    most = {"database": 0, "broker": 0}
    over = threading.Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_SECS):
            for name, count in site.connections().items():
                most[name] = max(most[name], count)

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        with ThreadPoolExecutor(_SENDERS) as pool:
            list(pool.map(lambda first: _send(site, range(first, runs, _SENDERS)), range(_SENDERS)))
        until(lambda: len(_executions(site)) >= runs, f"{runs} runs have ended", _DEADLINE_SECS)
        until(lambda: _open_runs(site) == 0, "no run is open", 60.0)
    finally:
        over.set()
        sampling.join()
    kinds, secs = _kinds(site.statements()), time.monotonic() - began
    executed = _executions(site)
    return {
        "runs": runs,
        "lost": runs - len(set(executed)),
        "twice": len(executed) - len(set(executed)),
        "most_connections": most,
        "statements_per_run": round(kinds["sweep"] / runs, 2),
        "beats_per_sec": round(kinds["beats"] / secs, 2),
        "lease_per_sec": round(kinds["lease"] / secs, 2),
        "processes_cpu_ms_per_run": round(1000 * (site.processes_cpu_secs() - processes) / runs, 2),
    }


def _send(site: Site, numbers: range) -> None:
    """Start runs, and say to each that its upload is there, once it waits for that."""
    connection = http.client.HTTPConnection(site.deployment.url.removeprefix("http://"), timeout=60)
    for number in numbers:
        _post(connection, "/start/imports", [f"scale-{number}"])
    for number in numbers:
        while _post(connection, f"/upload/scale-{number}", f"blob-{number}") == 404:
            time.sleep(0.02)
    connection.close()


def _post(connection: http.client.HTTPConnection, path: str, body: object) -> int:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    if response.status >= 500:
        raise RuntimeError(f"{path} was answered with {response.status}")
    return response.status


def _executions(site: Site) -> list[str]:
    """The names of the runs whose step was executed, one for each execution."""
    known = site.folder / "ledger"
    return [json.loads(line)["payload"] for line in known.read_text().splitlines()] if known.exists() else []


def _open_runs(site: Site) -> int:
    (found,) = site.admin.execute("SELECT count(*) FROM durable_runs WHERE completed_at IS NULL").fetchone() or (0,)
    return int(found)


def compare(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """How often each count of the largest size is that of the smallest, beside the processes."""
    ratios = {
        "processes": large["processes"] / small["processes"],
        "idle_statements": _ratio(small, large, "idle", "statements_per_sec", "all"),
        "idle_beats": _ratio(small, large, "idle", "statements_per_sec", "beats"),
        "idle_sweep_and_lease": (
            (large["idle"]["statements_per_sec"]["sweep"] + large["idle"]["statements_per_sec"]["lease"])
            / (small["idle"]["statements_per_sec"]["sweep"] + small["idle"]["statements_per_sec"]["lease"])
        ),
        "database_connections_at_work": _ratio(small, large, "at_work", "most_connections", "database"),
        "broker_connections_at_work": _ratio(small, large, "at_work", "most_connections", "broker"),
        "statements_per_run": _ratio(small, large, "at_work", "statements_per_run"),
    }
    too_much = [name for name, ratio in ratios.items() if ratio > TOLERANCE * ratios["processes"]]
    idle = large["idle"]
    if idle["statements_per_sec"]["all"] > IDLE_STATEMENTS_PER_SEC:
        too_much.append("idle statements a second")
    if idle["database_cpu_percent"] > IDLE_DATABASE_PERCENT:
        too_much.append("idle CPU time of the database")
    return {"ratios": {name: round(ratio, 2) for name, ratio in ratios.items()}, "too_much": too_much}


def _ratio(small: dict[str, Any], large: dict[str, Any], *path: str) -> float:
    first: Any = small
    last: Any = large
    for name in path:
        first, last = first[name], last[name]
    return float(last) / float(first)


def main() -> int:
    """Measure all sizes; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale")
    parser.add_argument("--runs", type=int, default=10_000, help="of the largest size; a tenth of the others")
    parser.add_argument("--idle-secs", type=float, default=30.0)
    given = parser.parse_args()
    found = []
    for workers, webs in SIZES:
        runs = given.runs if (workers, webs) == SIZES[-1] else given.runs // 10
        found.append(measure(workers, webs, runs, given.idle_secs))
        print(json.dumps(found[-1]), flush=True)
    verdict = compare(found[0], found[-1])
    print(json.dumps(verdict))
    failed = verdict["too_much"] or any(each["at_work"]["lost"] or each["at_work"]["twice"] for each in found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
