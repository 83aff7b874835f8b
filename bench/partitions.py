"""
What partitions of the log cost: ``python -m bench.partitions``.

The same runs on three databases: with the table as the migration makes it, with a partition for each month, and with
eight partitions by hash, as docs/how-to/partitions.md makes them.  The three take turns.  One process plays the worker,
and the figures are the CPU time of this process and of its sessions of PostgreSQL, for each step.

With ``--upkeep 100000``: the log of so many runs, of twelve events each, over twelve months.  What vacuum costs after
the runs of one month were deleted, how large the log then is, and how long the conversion of the table takes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import psycopg
import sqlalchemy as sa
from celery import Celery

from durable import Durable
from durable.attempts.attempt import StepBody, attempt, run_claimed
from durable.attempts.claim import Address
from durable.registry import Workflow
from durable.store.schema import steps
from durable.turns.conclude import conclude
from durable.turns.continuation import Continuation
from durable.turns.drive import drive

from . import procfs, servers
from .generations import AloneEngine
from .workflows import fan_out, sequence, stamp

PAGE = servers.ROOT / "docs" / "how-to" / "partitions.md"
STEPS = 5
NOW = " from now on"

_SESSIONS = sa.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")


def main() -> int:
    """Measure, and print a line of JSON for each way of a run and each table."""
    parser = argparse.ArgumentParser(prog="python -m bench.partitions", description="What partitions of the log cost.")
    parser.add_argument("--rounds", type=int, default=20, help="how often each table takes its turn")
    parser.add_argument("--runs", type=int, default=20, help="how many runs of five steps in each turn")
    parser.add_argument("--upkeep", type=int, metavar="RUNS", help="measure the upkeep of a table with so many runs")
    options = parser.parse_args()
    if options.upkeep:
        for name in ("plain", "months"):
            print(json.dumps({"table": name} | _upkeep(TABLES[name], options.upkeep)), flush=True)
        for name in ("other", "hash"):
            secs = _conversion_secs(TABLES[name], options.upkeep)
            print(json.dumps({"converted to": name, "secs": secs}), flush=True)
        return 0
    with ExitStack() as stack:
        engines = {name: stack.enter_context(_engine(blocks)) for name, blocks in TABLES.items()}
        for way, act in WAYS.items():
            for engine in engines.values():
                _measured(engine, act, options.runs)
            rounds = [
                {name: _measured(engine, act, options.runs) for name, engine in engines.items()}
                for _ in range(options.rounds)
            ]
            for name in engines:
                own, database = (statistics.median(each[name][side] for each in rounds) for side in (0, 1))
                figures = {"worker_cpu_ms": round(own, 3), "database_cpu_ms": round(database, 3)}
                print(json.dumps({"way": way, "table": name, **figures}), flush=True)
    return 0


#: By the name of a table: the blocks of the page that make it.
TABLES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "months": ("functions", "months from now on"),
    "other": ("functions", "months"),
    "hash": ("functions", "hash"),
}


@contextmanager
def _engine(blocks: tuple[str, ...]) -> Iterator[Durable]:
    """An engine on a database of its own, whose log those blocks of the page have partitioned."""
    with servers.database() as url:
        engine = AloneEngine(Celery("partitions", broker="memory://"), database_url=url, continuation="60s")
        try:
            engine.migrate()
            with _session(engine) as session:
                for block in blocks:
                    session.execute(sql(block))
            yield engine
        finally:
            engine.close()


@contextmanager
def _session(engine: Durable) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session that executes SQL as psql does."""
    url = engine.store.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as session:
        yield session


def sql(title: str) -> str:
    """The block of the page with this title."""
    found = re.search(rf'^```sql title="{title.removesuffix(NOW)}"\n(.*?)^```$', PAGE.read_text(), re.M | re.S)
    assert found is not None, title
    # The table is empty.  Otherwise the page does not begin with a month whose runs have events.
    return found[1].replace("current_date + interval '1 month'", "current_date") if NOW in title else found[1]


def _measured(engine: Durable, act: Callable[[Durable], object], runs: int) -> tuple[float, float]:
    """CPU time for each step of so many runs, in milliseconds: of this process, and of its sessions."""
    own, database = time.process_time(), _database_nanos(engine)
    for _ in range(runs):
        act(engine)
    each = 1 / (runs * STEPS)
    return (time.process_time() - own) * 1e3 * each, (_database_nanos(engine) - database) / 1e6 * each


def _database_nanos(engine: Durable) -> int:
    with engine.store.read() as tx:
        pids = tx.execute(_SESSIONS).scalars().all()
    return sum(procfs.cpu_nanos(pid) for pid in pids)


#: The log of runs of twelve events, in the twelve months from this one on; the ids are those of runs.
_FILL = """
INSERT INTO durable_events (run_id, seq, at, kind, op_id, phase, data, value)
SELECT lpad(to_hex(floor(extract(epoch FROM date_trunc('month', now()) + run * interval '12 months' / {runs}) * 1000)
    ::bigint), 12, '0') || left(md5(run::text), 20), seq, 1, 'step_completed', 'r#' || seq,
    CASE seq % 2 WHEN 0 THEN 'ended' ELSE 'created' END, '{{"name":"bench.stamp"}}', repeat('x', 120)
FROM generate_series(0, {runs} - 1) AS runs(run), generate_series(1, 12) AS events(seq)
"""
_MONTH = "SELECT to_hex((extract(epoch FROM date_trunc('month', now()) + interval '1 month') * 1000)::bigint)"
_SIZE = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ '^durable_events' AND relkind = 'r'"


def _upkeep(blocks: tuple[str, ...], runs: int) -> dict[str, float]:
    """Delete the runs of the first month, vacuum their table, and drop it if it is a partition."""
    with _engine(blocks) as engine, _session(engine) as session:

        def megabytes() -> float:
            return round(float(session.execute(_SIZE).fetchall()[0][0]) / 1e6, 1)

        session.execute(_FILL.format(runs=runs))
        session.execute("VACUUM ANALYZE durable_events")
        found = {"mb": megabytes()}
        [(end,)] = session.execute(_MONTH).fetchall()
        [(table,)] = session.execute("SELECT min(tableoid::regclass::text) FROM durable_events").fetchall()
        session.execute("DELETE FROM durable_events WHERE run_id < %s", (end.rjust(12, "0"),))
        before = procfs.cpu_nanos(session.info.backend_pid)
        session.execute(f"VACUUM {table}")
        found["vacuum_cpu_ms"] = round((procfs.cpu_nanos(session.info.backend_pid) - before) / 1e6)
        if table != "durable_events":
            session.execute(f"DROP TABLE {table}")
        return found | {"mb_after": megabytes()}


def _conversion_secs(blocks: tuple[str, ...], runs: int) -> float:
    """How long the conversion takes of a table whose runs are older than the months that it makes."""
    with _engine(()) as engine, _session(engine) as session:
        session.execute(_FILL.format(runs=runs).replace("now())", "now() - interval '1 year')"))
        began = time.monotonic()
        for block in blocks:
            session.execute(sql(block))
        return round(time.monotonic() - began, 1)


def _run(engine: Durable, workflow: Workflow[..., Any], *, in_place: bool) -> None:
    """Play the worker for one run: by continuing it in place where a worker does, or with a message for each part."""
    run = engine.start(workflow, STEPS)
    while True:
        continuation = Continuation(engine, "celery") if in_place else None
        conclusion = None if continuation is None else partial(conclude, engine, continuation)
        drive(engine, run.id, continuation=continuation)
        while continuation is not None and (held := continuation.begin()) is not None:
            run_claimed(engine, held, StepBody(stamp), conclusion)
            if not continuation.has_turned:
                drive(engine, run.id, continuation=continuation)
        with engine.store.read() as tx:
            due = tx.execute(sa.select(steps.c.op_id, steps.c.attempt).where(steps.c.run_id == run.id)).first()
        if due is None:
            break
        attempt(engine, stamp, Address(run.id, *due), None)
    assert run.result(0) is not None


WAYS: dict[str, Callable[[Durable], object]] = {
    "steps in place": partial(_run, workflow=sequence, in_place=True),
    "parallel steps": partial(_run, workflow=fan_out, in_place=True),
    "by messages": partial(_run, workflow=sequence, in_place=False),
}

if __name__ == "__main__":
    sys.exit(main())
