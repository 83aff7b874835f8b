"""
What a million finished runs cost those that go on: ``python -m bench.history [RUNS]``.

On a PostgreSQL database of its own, in one process, without a broker: how long a beat with its sweep takes, and a run
of one step from its start to its result, on an empty database and on one with RUNS finished runs of four events each.
Prints one line of JSON per workload; ``ratio`` is full by empty.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from celery import Celery

from durable import Durable, step, workflow
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.recovery.housekeeping import Housekeeping
from durable.turns.drive import drive

from . import servers

TIMES = int(os.environ.get("BENCH_N", "100"))

_FILL = (
    "INSERT INTO durable_runs (id, name, status, turn, seq, last_at, digest, created_at, started_at, completed_at)"
    " SELECT 'old' || i, 'bench.history', 'completed', 3, 4, i, 'd', i, i, i FROM generate_series(1, {runs}) AS n(i)",
    "INSERT INTO durable_events (run_id, seq, at, kind, op_id, phase, data, value)"
    " SELECT 'old' || i, s, i, k, o, p, '{{}}', '{{}}' FROM generate_series(1, {runs}) AS n(i), (VALUES"
    " (1, 'run_created', 'r', 'created'), (2, 'step_created', 'r#1', 'created'),"
    " (3, 'step_completed', 'r#1', 'ended'), (4, 'run_completed', 'r', 'ended')) AS e(s, k, o, p)",
    "ANALYZE",
)


@step(name="bench.noop")
def noop() -> int:
    """Nothing."""
    return 1


@workflow(name="bench.history")
async def one() -> int:
    """One step."""
    return await noop()


def main() -> int:
    """Measure on the empty database, fill it, measure again."""
    runs = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    with servers.database() as url:
        engine = Durable(Celery("bench-history", broker="memory://"), database_url=url)
        engine.migrate()
        keeper = Housekeeping(engine)
        keeper.tick()
        workloads: dict[str, Callable[[], object]] = {"sweep": keeper.tick, "run": lambda: _run(engine)}
        empty = {name: _median(work) for name, work in workloads.items()}
        fill(engine, runs)
        for name, work in workloads.items():
            full = _median(work)
            print(json.dumps(_figures(name, runs, empty[name], full)), flush=True)
        keeper._unregister()
        engine.close()
    return 0


def fill(engine: Durable, runs: int) -> None:
    """Put so many finished runs into the engine's database."""
    with engine.store.begin() as tx:
        for statement in _FILL:
            tx.exec_driver_sql(statement.format(runs=runs))


def _run(engine: Durable) -> None:
    # In a worker's place: the turn, the attempt, the turn.
    run = engine.start(one)
    drive(engine, run.id)
    attempt(engine, noop, Address(run.id, "r#1", 1), None)
    drive(engine, run.id)
    assert run.result(timeout=1) == 1


def _median(work: Callable[[], object]) -> float:
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _figures(name: str, runs: int, empty: float, full: float) -> dict[str, Any]:
    return {
        "workload": f"history_{name}",
        "runs": runs,
        "n": TIMES,
        "empty_median_ms": round(empty * 1000, 2),
        "full_median_ms": round(full * 1000, 2),
        "ratio": round(full / empty, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
