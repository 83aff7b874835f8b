"""
How long the dashboard's pages take on many runs: ``python -m bench.dashboard [RUNS]``.

On a PostgreSQL database of its own, filled with RUNS runs (a million if not given), and one run of 20,000 events.
Each page is requested ``BENCH_N`` times through Flask's test client, so a figure is the server's time: queries and
rendering.  Prints one line of JSON for each page.

A page is slow when the 95th percentile of its *work* is over its goal: the CPU time of this process and of its
PostgreSQL process.  On a quiet machine with a warm cache that is the time that a request takes; on a busy one a request
takes longer, because it waits for a CPU, and says nothing of the pages.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

import flask
import sqlalchemy as sa
from celery import Celery
from flask.testing import FlaskClient

from durable import Durable, Request, Response
from durable.dashboard import create_dashboard, views_workflows

from . import procfs, servers

TIMES = int(os.environ.get("BENCH_N", "40"))

#: The goals, in milliseconds for the 95th percentile.
LIST_MS, RUN_MS = 50, 500

_DAY = 86_400_000_000

#: Runs over the last thirty days, the newest with the highest number, in the shares that a busy shop has.
_FILL = (
    "INSERT INTO durable_runs (id, name, status, turn, seq, last_at, digest, created_at, started_at, completed_at,"
    " blocked) SELECT 'run' || lpad(i::text, 9, '0'),"
    " CASE WHEN i % 100 < 60 THEN 'shop.order' WHEN i % 100 < 90 THEN 'shop.reminder'"
    " WHEN i % 100 < 99 THEN 'shop.payment' ELSE 'shop.rare' END, s, 3, 6, at, 'd', at, at + 20000,"
    " CASE WHEN s IN ('completed', 'failed', 'cancelled') THEN at + 20000 + (i::bigint * 7919 % 60000) * 1000 END,"
    " CASE WHEN s = 'blocked' THEN 'recorded: step a, asked: step b' END"
    " FROM (SELECT i, {start} + i::bigint * {each} AS at, CASE WHEN i % 1000 < 25 THEN 'failed'"
    " WHEN i % 1000 < 35 THEN 'cancelled' WHEN i % 1000 = 500 THEN 'blocked' WHEN i % 1000 = 501 THEN 'pending'"
    " WHEN i % 1000 BETWEEN 502 AND 504 THEN 'running' ELSE 'completed' END AS s"
    " FROM generate_series(1, {runs}) AS n(i)) AS m",
    "INSERT INTO durable_events (run_id, seq, at, kind, op_id, phase, data, value)"
    " SELECT id, 1, created_at, 'run_created', 'r', 'created', '{{\"name\":\"x\"}}', '{{\"order\":1}}'"
    " FROM durable_runs",
    "INSERT INTO durable_events (run_id, seq, at, kind, op_id, phase, data, value)"
    " SELECT id, 6, completed_at, 'run_' || status, 'r', 'ended', '{{}}', CASE WHEN status = 'failed' THEN"
    ' \'{{"$":"exception","type":"Declined","message":"card \' || id || \' declined","args":[],'
    "\"traceback\":\"' || repeat('  File app.py, line 1, in pay', 60) || '\"}}' ELSE '1' END"
    " FROM durable_runs WHERE completed_at IS NOT NULL",
    "INSERT INTO durable_attributes (run_id, created_at, name, value)"
    " SELECT id, created_at, n, CASE n WHEN 'env' THEN"
    " CASE WHEN i % 2 = 0 THEN 'production' ELSE 'staging' END"
    " WHEN 'customer' THEN 'customer-' || i % 20000 ELSE 'plan-' || i % 100 END"
    " FROM (SELECT id, created_at, substr(id, 4)::bigint AS i FROM durable_runs) AS m,"
    " (VALUES ('env'), ('customer'), ('plan')) AS a(n)",
    "INSERT INTO durable_steps (run_id, op_id, name, attempt, status, not_before, cancelled, next_send_at, sends)"
    " SELECT id, 'r#1', 'shop.charge', 1, 'pending', 0, false, created_at, 0 FROM durable_runs"
    " WHERE status = 'running'",
    "INSERT INTO durable_hooks (run_id, op_id, name, token, token_hash, created_at)"
    " SELECT id, 'r#2', '', id, id, created_at FROM durable_runs WHERE status = 'running'",
    "INSERT INTO durable_requests (id, run_id, op_id, received_at, head, body, answered_at, answer_head,"
    " answer_body)"
    " SELECT 'q' || id, id, 'r#2', created_at, '{head}',"
    " '', created_at + 9000, '{answer}', '' FROM durable_runs WHERE substr(id, 4)::bigint % 10 = 0",
)

#: One run whose 9,999 steps completed one after the other.
_LONG = (
    "INSERT INTO durable_runs (id, name, status, turn, seq, last_at, digest, created_at, started_at, completed_at)"
    " VALUES ('long', 'shop.import', 'completed', 9, 20000, {now}, 'd', {now} - 10000000, {now} - 10000000, {now})",
    "INSERT INTO durable_events (run_id, seq, at, kind, op_id, phase, data, value) VALUES"
    " ('long', 1, {now} - 10000000, 'run_created', 'r', 'created', '{{\"name\":\"shop.import\"}}', '{{}}'),"
    " ('long', 20000, {now}, 'run_completed', 'r', 'ended', '{{}}', '1')",
    "INSERT INTO durable_events (run_id, seq, at, kind, op_id, phase, data, value)"
    " SELECT 'long', 2 * i, {now} - 10000000 + i * 1000, 'step_created', 'r#' || i, 'created',"
    ' \'{{"name":"shop.row","digest":"d"}}\', \'{{"row":1}}\' FROM generate_series(1, 9999) AS n(i) UNION ALL'
    " SELECT 'long', 2 * i + 1, {now} - 10000000 + i * 1000 + 900, 'step_completed', 'r#' || i, 'ended',"
    ' \'{{"attempt":1,"worker":"host:1","started_at":\' || {now} - 10000000 + i * 1000 + 300 || \'}}\', \'1\''
    " FROM generate_series(1, 9999) AS n(i)",
    "ANALYZE",
)

LISTS = {
    "list": "/runs",
    "list_status_common": "/runs?status=completed",
    "list_status_rare": "/runs?status=blocked",
    "list_name_common": "/runs?name=shop.order",
    "list_name_rare": "/runs?name=shop.rare",
    "list_name_and_status": "/runs?name=shop.rare&status=failed",
    "list_name_and_no_status": "/runs?name=shop.rare&status=blocked",
    "list_attribute_common": "/runs?attribute=env%3Dproduction",
    "list_attribute_one_percent": "/runs?attribute=plan%3Dplan-7",
    "list_attribute_rare": "/runs?attribute=customer%3Dcustomer-77",
    "list_two_attributes": "/runs?attribute=env%3Dstaging&attribute=plan%3Dplan-7",
    "list_attribute_and_status": "/runs?attribute=env%3Dproduction&status=running",
    "list_attribute_and_no_status": "/runs?attribute=env%3Dstaging&status=blocked",
    "list_unknown_attribute": "/runs?attribute=env%3Dnothing",
    "list_id": "/runs?id=run{number}000",
    "list_time": "/runs?since=20d&until=10d",
    "list_time_and_status": "/runs?since=20d&until=19d&status=failed",
    "list_deep_page": "/runs?before={middle}.run{number}000",
    "list_error": "/runs?error=declined",
    "list_error_without_match": "/runs?error=nothing+like+this",
    "list_error_and_name": "/runs?error=declined&name=shop.rare",
}
OTHERS = {
    "run": "/run/run{number}000",
    "run_open": "/run/run{number}503",
    "run_20000_events": "/run/long",
    "run_20000_events_middle": "/run/long?first=10000&log=9000",
    "run_20000_events_1000_rows": "/run/long?rows=1000",
    "webhooks": "/webhooks",
    "workflows_hour": "/workflows?window=hour",
    "workflows_day": "/workflows?window=day",
    "workflows_week": "/workflows?window=week",
    "workers": "/workers",
}


def main() -> int:
    """Fill the database, and time each page."""
    runs = int(sys.argv[1]) if sys.argv[1:] else 1_000_000
    # Each request reads the numbers anew.
    views_workflows._KEPT_SECS = 0.0
    with servers.database() as url:
        engine = Durable(Celery("bench-dashboard", broker="memory://"), database_url=url)
        engine.migrate()
        middle = fill(engine, runs)
        app = flask.Flask("bench")
        app.register_blueprint(create_dashboard(engine, authorize=lambda action, run_id: True), url_prefix="/durable")
        client, clock = app.test_client(), SqlClock(engine)
        slow = []
        for name, path in (LISTS | OTHERS).items():
            figures = measure(client, path.format(middle=middle, number=f"{runs // 2 // 1000 * 1000:09}"[:6]), clock)
            goal = LIST_MS if name in LISTS else RUN_MS
            print(json.dumps({"page": name, "runs": runs, **figures, "goal_ms": goal}), flush=True)
            slow += [name] if figures["work_p95_ms"] > goal else []
        engine.close()
    if slow:
        print(f"Slower than their goal: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


def fill(engine: Durable, runs: int) -> int:
    """Put the runs into the database; return the time at which the middle one was created."""
    now = engine.now()
    head = Request(method="POST", url="http://x/").head_json()
    answer = Response.empty(202).head_json()
    start, each = now - 30 * _DAY, 30 * _DAY // (runs + 1)
    for statement in (*_FILL, *_LONG):
        with engine.store.begin() as tx:
            tx.exec_driver_sql(
                statement.format(runs=runs, start=start, each=each, now=now, head=head, answer=answer).replace(
                    "%", "%%"
                )
            )
    with engine.store.read() as tx:
        tx.exec_driver_sql("VACUUM ANALYZE")
    return start + runs // 2 * each


class SqlClock:
    """Adds up the seconds that statements take as this process sees them, and the CPU time of PostgreSQL's process."""

    def __init__(self, engine: Durable) -> None:
        self.spent = self.cpu = 0.0
        self._began, self._cpu_began = 0.0, 0
        sa.event.listen(engine.store.engine, "before_cursor_execute", self._begin)
        sa.event.listen(engine.store.engine, "after_cursor_execute", self._end)

    def _begin(self, _connection: object, cursor: Any, *_: object) -> None:
        self._cpu_began = procfs.cpu_nanos(cursor.connection.info.backend_pid)
        self._began = time.perf_counter()

    def _end(self, _connection: object, cursor: Any, *_: object) -> None:
        self.spent += time.perf_counter() - self._began
        self.cpu += (procfs.cpu_nanos(cursor.connection.info.backend_pid) - self._cpu_began) / 1e9


def measure(client: FlaskClient, path: str, clock: SqlClock) -> dict[str, float]:
    """
    The server's time for a page, in milliseconds; the first request is not counted.

    ``least_ms`` is that of the least disturbed request.  ``cpu_ms`` is what this process computes, ``sql_ms`` what it
    waits for statements, ``sql_cpu_ms`` what PostgreSQL computes: medians.  ``work_ms`` is what both compute.
    """
    took, cpu, sql, sql_cpu, work = [], [], [], [], []
    for number in range(TIMES + 1):
        began, cpu_began, sql_began, sql_cpu_began = time.perf_counter(), time.process_time(), clock.spent, clock.cpu
        answer = client.get(f"/durable{path}")
        spent, computed = time.perf_counter() - began, time.process_time() - cpu_began
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        if number:
            took.append(spent * 1000)
            cpu.append(computed * 1000)
            sql.append((clock.spent - sql_began) * 1000)
            sql_cpu.append((clock.cpu - sql_cpu_began) * 1000)
            work.append(cpu[-1] + sql_cpu[-1])
    return {
        "n": TIMES,
        "least_ms": round(min(took), 1),
        "p50_ms": round(statistics.median(took), 1),
        "p95_ms": round(statistics.quantiles(took, n=20)[-1], 1),
        "cpu_ms": round(statistics.median(cpu), 1),
        "sql_ms": round(statistics.median(sql), 1),
        "sql_cpu_ms": round(statistics.median(sql_cpu), 1),
        "work_ms": round(statistics.median(work), 1),
        "work_p95_ms": round(statistics.quantiles(work, n=20)[-1], 1),
    }


if __name__ == "__main__":
    sys.exit(main())
