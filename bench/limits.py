"""
How exact rates are, and what a waiting step costs: ``python -m bench.limits``.

PostgreSQL or SQLite, and Redis, as in the benchmark.

- Rates: steps with ``rate(…, 20, per="1s")`` on four workers of one child each, for a minute.  Beside it, a plain
  Celery task with ``rate_limit="5/s"`` on the same workers: Celery counts in each worker.
- Cost: how long the transaction takes that follows on the end of a step with a limit and sends the next one, while 100
  steps of 100 keys wait, and while 10,000 do.

Prints one line of JSON.  Exit code 1: a rate is more than 5 % from what it says, or the cost grows.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from . import servers

SECS = int(os.environ.get("BENCH_SECS", "60"))
#: Attempts in a second; of plain Celery, a quarter in each of four workers.
RATE = 20
WORKERS = 4
#: How far the rate may be from that.
TOLERANCE = 0.05
#: How much more a dispatched step may cost with 10,000 waiting steps, for noise.
COST_GATE = 1.5
KEYS = 100
_TIMES = 100
_DEADLINE_SECS = 120


def main() -> int:
    """Measure; the exit code."""
    database = os.environ.get("BENCH_DATABASE", "postgresql")
    with ExitStack() as stack:
        url = stack.enter_context(servers.database(database))
        broker = stack.enter_context(servers.redis_database())
        side = stack.enter_context(servers.redis_database())
        environment = {"DURABLE_DATABASE_URL": url, "DURABLE_BROKER_URL": broker, "BENCH_SIDE_URL": side}
        os.environ.update(environment)
        # Only now: the application's settings come from the environment.
        from .application import engine

        stack.callback(engine.close)
        engine.migrate()
        costs = {f"dispatch_ms_{count}": _measure_cost(engine, count) for count in (KEYS, 100 * KEYS)}
        arguments = ["celery", "-A", "bench.application", "worker", "--pool", "prefork", "-c", "1", "-l", "WARNING"]
        for number in range(WORKERS):
            name = f"worker {number}"
            stack.enter_context(servers.process(name, [*arguments, "-n", f"bench{number}@%h"], environment))
        _wait_for_workers(engine)
        rates = {"durable": _measure_rate(engine), "plain": _measure_plain_rate()}
    shown = {f"rate_{name}": round(found, 2) for name, found in rates.items()}
    print(json.dumps({"database": database, "secs": SECS, "rate": RATE, **shown, **costs}), flush=True)
    few, many = costs.values()
    return 0 if abs(rates["durable"] / RATE - 1) <= TOLERANCE and many <= COST_GATE * few else 1


def _wait_for_workers(engine: Any) -> None:
    from durable.store import workers

    deadline = time.monotonic() + _DEADLINE_SECS
    while time.monotonic() < deadline:
        with engine.store.read() as tx:
            if len(workers.alive(tx)) >= WORKERS:
                return
        time.sleep(0.2)
    raise SystemExit(f"Not all {WORKERS} workers have started within {_DEADLINE_SECS} s.")


def _measure_rate(engine: Any) -> float:
    """The attempts that begin in a second, after the first second, in which the burst begins too."""
    from .workflows import rated

    run = engine.start(rated, RATE * (SECS + 1))
    return _per_second(run.result(timeout=SECS + _DEADLINE_SECS))


def _measure_plain_rate() -> float:
    """The same of plain Celery tasks."""
    import redis

    from .plain import limited

    inbox = "limited"
    for _ in range(RATE * (SECS + 1)):
        limited.delay(inbox)
    began: list[float] = []
    deadline = time.monotonic() + SECS + _DEADLINE_SECS
    with redis.Redis.from_url(os.environ["BENCH_SIDE_URL"]) as client:
        while len(began) < RATE * (SECS + 1) and time.monotonic() < deadline:
            found: Any = client.blpop([inbox], timeout=1)
            began += [] if found is None else [float(found[1])]
    return _per_second(began)


def _per_second(began: Sequence[float]) -> float:
    steady = sorted(at for at in began if at >= min(began) + 1)
    return (len(steady) - 1) / (steady[-1] - steady[0])


def _measure_cost(engine: Any, count: int) -> float:
    """The median time of an admission in milliseconds, while *count* steps of a hundred keys wait."""
    import sqlalchemy as sa

    from durable.store import admit_steps, limits
    from durable.store.outbox import SendTimes
    from durable.store.schema import limit_keys, runs, step_limits, steps

    name, run_id = "bench.cost", f"bench-{count}"
    # One step of each key runs, and ends.
    rows = [(f"r#{n:06}", f"key {n % KEYS}", n // KEYS) for n in range(count + KEYS)]
    in_line = {"run_id": run_id, "name": name, "level": 9, "owner": run_id}
    pending = {"run_id": run_id, "name": "s", "attempt": 1, "not_before": 0, "cancelled": False, "sends": 0}
    with engine.store.begin() as tx:
        tx.execute(sa.delete(limit_keys).where(limit_keys.c.name == name))
        limits.declare(tx, name, limits.Numbers(1, None, None))
        run = {"id": run_id, "name": "w", "status": "running", "turn": 1, "seq": 1, "last_at": 1, "digest": "d"}
        tx.execute(sa.insert(runs).values(**run, created_at=1))
        tx.execute(sa.insert(steps), [pending | {"op_id": op_id, "status": "pending"} for op_id, _, p in rows if p])
        states = ("admitted", "waiting")
        tx.execute(
            sa.insert(step_limits),
            [
                in_line | {"op_id": op_id, "key": key, "place": place, "ready_at": place, "state": states[place > 0]}
                for op_id, key, place in rows
            ],
        )
        keys = {"name": name, "recovers_at": 0, "next_check_at": 2**60}
        tx.execute(sa.insert(limit_keys), [keys | {"key": f"key {number}"} for number in range(KEYS)])
    if engine.store.dialect != "mysql":
        with engine.store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
    took = []
    for number in range(min(_TIMES, KEYS)):
        began = time.perf_counter()
        with engine.store.begin() as tx:
            admission, _ = admit_steps.admit_after(tx, run_id, f"r#{number:06}", 10**6, SendTimes(2**60, 10**6))
        took.append(time.perf_counter() - began)
        assert len(admission.rows) == 1, admission
    with engine.store.begin() as tx:
        for table in (steps, step_limits):
            tx.execute(sa.delete(table).where(table.c.run_id == run_id))
        tx.execute(sa.delete(limit_keys).where(limit_keys.c.name == name))
        tx.execute(sa.delete(runs).where(runs.c.id == run_id))
    return round(statistics.median(took) * 1000, 2)


if __name__ == "__main__":
    sys.exit(main())
