"""
How throughput grows with workers and with callers: ``python -m bench.scaling``, or ``python -m bench.scaling 400``.

For 1, 2, 4 and 8 children and 1, 2 and 4 processes that call ``start()``: the runs of five steps a second, and the CPU
time of each side for a step.  Beside each, plain Celery chains of five on the same workers.  The side whose CPU time
for a step is the largest is the one that you add processes or machines to first.

Also what a run leaves in the database: bytes of tables and indexes, and bytes of the write-ahead log.

With ``--databases 2`` the runs are divided between two databases, each with a worker of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from celery import Celery

from durable import Durable

from . import procfs
from .site import TIMEOUT_SECS, Setup, Site, opened
from .workflows import sequence
from .workloads.many_runs import STEPS, chains_per_sec

T = TypeVar("T")

CHILDREN = (1, 2, 4, 8)
STARTERS = (1, 2, 4)

_LOG_AT = sa.text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
_SIZE = sa.text("SELECT pg_database_size(current_database())")


def main() -> int:
    """Measure, and print a line of JSON for each size."""
    options = _options()
    if options.databases > 1:
        for number in (1, options.databases):
            print(json.dumps(_divided(options.runs, number)), flush=True)
        return 0
    for children in CHILDREN:
        with opened(Setup(), children=(children,)) as site:
            _run([site], STARTERS[0], 20)
            for starters in STARTERS:
                figures = {"children": children, "starters": starters, **_run([site], starters, options.runs)}
                print(json.dumps(figures | _plain(site, options.runs)), flush=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__.strip().splitlines()[0])
    parser.add_argument("runs", nargs="?", type=int, default=400, help="how many runs of five steps (default: 400)")
    parser.add_argument("--databases", type=int, default=1, help="divide the runs between that many databases")
    return parser.parse_args()


def _divided(runs: int, number: int) -> dict[str, object]:
    """Return the figures of runs that are divided between so many databases, by a worker of one child for each."""
    with ExitStack() as stack:
        sites = [stack.enter_context(opened(Setup(), children=(1,))) for _ in range(number)]
        _run(sites, number, 20)
        return {"databases": number, **_run(sites, number, runs)}


def _run(sites: Sequence[Site], starters: int, runs: int) -> dict[str, object]:
    """Start runs from so many processes, and wait until all have ended."""
    share = runs // starters
    places = [sites[number % len(sites)] for number in range(starters)]
    with _starters(starters) as pools:
        # Each has imported everything, and opened its connections, before the clock starts.
        _each(pools, [partial(_start, _urls(site), 1) for site in places])
        before, began = _counts(sites), time.time()
        own = sum(_each(pools, [time.process_time] * starters))
        started = _each(pools, [partial(_start, _urls(site), share) for site in places])
        ends = [
            site.engine.get_run(run_id).result(timeout=TIMEOUT_SECS)[-1]
            for site, run_ids in zip(places, started, strict=True)
            for run_id in run_ids
        ]
        after = _counts(sites)
        own = sum(_each(pools, [time.process_time] * starters)) - own
    done = share * starters
    steps = done * STEPS
    cost = {name: after[name] - before[name] for name in before}
    return {
        "steps_per_sec": round(steps / (max(ends) - began), 1),
        "worker_cpu_ms": round(cost["worker"] / steps * 1000, 2),
        "database_cpu_ms": round(cost["database"] / steps * 1000, 2),
        "start_cpu_ms": round(own / done * 1000, 2),
        "log_bytes_per_run": round(cost["log"] / done),
        "bytes_per_run": round(cost["size"] / done),
    }


def _plain(site: Site, chains: int) -> dict[str, float]:
    before = _cpu_secs(_processes(site))
    rate = chains_per_sec(site, chains)
    spent = _cpu_secs(_processes(site)) - before
    return {"chain_tasks_per_sec": round(rate, 1), "chain_cpu_ms": round(spent / (chains * STEPS) * 1000, 2)}


# Processes that start runs


@contextmanager
def _starters(number: int) -> Iterator[list[ProcessPoolExecutor]]:
    """Return processes that start runs."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        yield [stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for _ in range(number)]


def _each(pools: Sequence[ProcessPoolExecutor], acts: Sequence[Callable[[], T]]) -> list[T]:
    """Make one call in each process, side by side, and return their results."""
    return [future.result() for future in [pool.submit(act) for pool, act in zip(pools, acts, strict=True)]]


def _start(urls: tuple[str, str, str], runs: int) -> list[str]:
    """Start runs in this process, and return their ids."""
    engine = _engines.get(urls)
    if engine is None:
        database_url, broker_url, public_url = urls
        engine = _engines[urls] = Durable(
            Celery("bench-starter", set_as_current=False),
            database_url=database_url,
            broker_url=broker_url,
            public_url=public_url,
            max_events=0,
        )
    return [engine.start(sequence, STEPS).id for _ in range(runs)]


#: The engines of this process, by their URLs.
_engines: dict[tuple[str, str, str], Durable] = {}


def _urls(site: Site) -> tuple[str, str, str]:
    environment = site.environment
    return environment["BENCH_ROWS_URL"], environment["DURABLE_BROKER_URL"], environment["DURABLE_PUBLIC_URL"]


# What the others have used


def _counts(sites: Sequence[Site]) -> dict[str, float]:
    """CPU seconds of the workers and of PostgreSQL, and its bytes, up to now."""
    counts = {"worker": 0.0, "database": _cpu_secs(_backends()), "log": 0.0, "size": 0.0}
    for number, site in enumerate(sites):
        counts["worker"] += _cpu_secs(_processes(site))
        with site.engine.store.read() as tx:
            counts["size"] += tx.execute(_SIZE).scalar_one()
            if number == 0:
                counts["log"] += int(tx.execute(_LOG_AT).scalar_one())
    return counts


def _processes(site: Site) -> list[int]:
    return [worker.pid for worker in site.workers] + site.children()


def _backends() -> list[int]:
    """The processes of PostgreSQL."""
    found = []
    for each in Path("/proc").glob("[0-9]*/comm"):
        try:
            found += [int(each.parent.name)] if each.read_text().startswith("postgres") else []
        except OSError:
            continue  # it has ended meanwhile
    return found


def _cpu_secs(pids: Iterable[int]) -> float:
    total = 0.0
    for pid in pids:
        try:
            total += procfs.cpu_secs(pid)
        except OSError:
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
