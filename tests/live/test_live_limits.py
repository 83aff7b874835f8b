"""A limit of steps on real workers, one of which dies: never more run than it says, and none is left behind."""

from __future__ import annotations

import signal

import pytest
import sqlalchemy as sa
from live_flows import many_limited
from processes import Deployment, deployed, eventually
from servers import new_broker, new_database

from durable.store import schema

pytestmark = pytest.mark.live


def test_a_limit_holds_while_a_worker_is_killed(tmp_path):
    """Four children, and a limit of two: 30 calls, and one worker is killed while both slots are in use."""
    seen: list[int] = []

    def count() -> int:
        with site.engine.store.read() as tx:
            claimed = sa.select(sa.func.count()).where(
                schema.steps.c.name == "live.limited", schema.steps.c.status == "claimed"
            )
            seen.append(tx.execute(claimed).scalar_one())
        return seen[-1]

    with (
        new_database("postgresql", tmp_path) as database_url,
        new_broker("redis", tmp_path) as broker_url,
        deployed(Deployment(tmp_path, database_url, broker_url, "live_app", "")) as site,
    ):
        for number in range(2):
            site.start_worker(f"worker-{number}", "--concurrency", "2")
        eventually(lambda: len(site.workers()) >= 4, 30, "all children beat")
        run = site.engine.start(many_limited, 30, 0.1)
        eventually(lambda: len(run.events()) > 40 and count() == 2, 30, "some have ended, and two run")
        site.stop("worker-0", signal.SIGKILL)
        eventually(lambda: count() >= 0 and run.status == "completed", 60, "the run ends")

        assert run.result(timeout=0) == 30
        assert max(seen) == 2
        with site.engine.store.read() as tx:
            assert tx.execute(sa.select(schema.step_limits)).all() == []
