"""A limit of runs on real workers, one of which dies: never more go on than it says, and none is left behind."""

from __future__ import annotations

import signal
from typing import Any

import pytest
import sqlalchemy as sa
from eventually import eventually
from live_flows import limited_run
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable.store import schema

pytestmark = pytest.mark.live


def test_a_limit_of_runs_holds_while_a_worker_is_killed(tmp_path):
    """Four children, and two runs at once: 20 runs, and one worker is killed while both slots are in use."""
    seen: list[int] = []

    def count() -> int:
        with site.engine.store.read() as tx:
            going_on = sa.select(sa.func.count()).where(schema.runs.c.status == "running")
            seen.append(tx.execute(going_on).scalar_one())
        return seen[-1]

    def rows() -> list[Any]:
        with site.engine.store.read() as tx:
            return list(tx.execute(sa.select(schema.run_limits)))

    with (
        new_database("postgresql", tmp_path) as database_url,
        new_broker("redis", tmp_path) as broker_url,
        deployed(Deployment(tmp_path, database_url, broker_url, "live_app", "")) as site,
    ):
        for number in range(2):
            site.start_worker(f"worker-{number}", "--concurrency", "2")
        eventually(lambda: len(site.workers()) >= 4, 30, "all children beat")
        runs = site.engine.start_many(limited_run, [(0.1,)] * 20)
        eventually(lambda: runs[3].status == "completed" and count() == 2, 30, "some have ended, and two go on")
        site.stop("worker-0", signal.SIGKILL)
        eventually(lambda: count() >= 0 and all(run.status == "completed" for run in runs), 60, "all runs end")

        assert max(seen) == 2
        eventually(lambda: rows() == [], 10, "no row is left, after the admission that follows on the last run")
