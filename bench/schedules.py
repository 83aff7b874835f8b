"""
How long until the runs of many schedules with one planned time have started: ``python -m bench.schedules``.

PostgreSQL or SQLite, Redis or RabbitMQ, two workers as in the benchmark.  1,000 schedules ("midnight") have their
planned time a few seconds ahead.  Then nothing is planned for an hour, and the statements of an idle round are counted.

Prints one line of JSON.  Exit code 1: not all runs had their first turn within the target.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from typing import Any

from . import servers

COUNT = int(os.environ.get("BENCH_N", "1000"))
#: Seconds within which all runs have had their first turn.
TARGET = 10.0
#: Seconds until the planned time, so that the workers are up and idle.
_AHEAD_SECS = 15
_DEADLINE_SECS = 120


def main() -> int:
    """Measure; the exit code."""
    database = os.environ.get("BENCH_DATABASE", "postgresql")
    with ExitStack() as stack:
        url = stack.enter_context(servers.database(database))
        broker = stack.enter_context(servers.redis_database())
        environment = {"DURABLE_DATABASE_URL": url, "DURABLE_BROKER_URL": broker}
        os.environ.update(environment)
        # Only now: the application's settings come from the environment.
        from .application import engine

        stack.callback(engine.close)
        engine.migrate()
        planned = _make_schedules(engine)
        arguments = ["celery", "-A", "bench.application", "worker", "--pool", "prefork", "-c", "1", "-l", "WARNING"]
        for number in (1, 2):
            name = f"worker {number}"
            stack.enter_context(servers.process(name, [*arguments, "-n", f"bench{number}@%h"], environment))
        figures = _measure(engine, planned)
    print(json.dumps({"schedules": COUNT, "database": database, **figures, "target_secs": TARGET}), flush=True)
    return 0 if figures["all_started_secs"] < TARGET else 1


def _make_schedules(engine: Any) -> int:
    """Schedules of one workflow, all at one moment, and no other time for an hour; the planned time."""
    import sqlalchemy as sa

    from durable import create_schedule
    from durable.store.schema import schedules

    from .workflows import sequence

    began = time.monotonic()
    for number in range(COUNT):
        create_schedule(f"midnight-{number:04}", sequence, (1,), cron="0 0 1 1 *")
    print(f"{COUNT} schedules made in {time.monotonic() - began:.1f} s", file=sys.stderr)
    planned = int(engine.now()) + _AHEAD_SECS * 1_000_000
    with engine.store.begin() as tx:
        tx.execute(sa.update(schedules).values(planned_at=planned, fire_at=planned))
    return planned


def _measure(engine: Any, planned: int) -> dict[str, Any]:
    """When the runs were created, had their first turn and ended, in seconds after the planned time."""
    import sqlalchemy as sa

    from durable.store.schema import runs

    query = sa.select(
        sa.func.count(runs.c.started_at),
        sa.func.count(runs.c.completed_at),
        sa.func.max(runs.c.created_at),
        sa.func.max(runs.c.started_at),
        sa.func.max(runs.c.completed_at),
        sa.func.min(runs.c.started_at),
    )
    deadline = time.monotonic() + _AHEAD_SECS + _DEADLINE_SECS
    while True:
        time.sleep(0.5)
        with engine.store.read() as tx:
            started, ended, *moments = tx.execute(query).one()
        if ended == COUNT or time.monotonic() > deadline:
            break
    secs = [None if each is None else round((each - planned) / 1_000_000, 2) for each in moments]
    names = ("all_created_secs", "all_started_secs", "all_ended_secs", "first_started_secs")
    return {"started": started, **dict(zip(names, secs, strict=True))}


if __name__ == "__main__":
    sys.exit(main())
