"""A broker that goes away, or is full: the worker's process goes on, and so do its runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from live_flows import naps, noted, works
from processes import Deployment, deployed, eventually
from servers import OwnRedis, new_database

pytestmark = pytest.mark.live

#: How long Redis is away: longer than a reconnect takes, and shorter than the step that runs.
AWAY_SECS = 4.0
STEP_SECS = 6.0


def deployment(folder: Path, database_url: str, broker_url: str, pool: str = "prefork") -> Deployment:
    options = ("--pool", pool, "--concurrency", "2")
    settings = {"DURABLE_RESEND_AFTER": "1"}
    return Deployment(folder, database_url, broker_url, "live_app", "", settings, worker_options=options)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent", "prefork-data", "gevent-data"])
def test_a_worker_goes_on_when_redis_was_away(tmp_path, pool):
    """A step runs meanwhile, and the worker holds the alarm of a sleep: each message is unacknowledged."""
    pool, _, keeps = pool.partition("-")
    kept = ("--appendonly", "yes", "--appendfsync", "always") if keeps else ()
    with (
        new_database("postgresql", tmp_path) as database_url,
        OwnRedis(tmp_path, *kept) as server,
        deployed(deployment(tmp_path, database_url, server.url, pool)) as site,
    ):
        worker = site.start_worker()
        sleeps = site.engine.start(naps, "12s")
        eventually(lambda: server.client.hlen("unacked"), what="the worker holds the alarm")
        running = site.engine.start(works, str(tmp_path), STEP_SECS)
        eventually((tmp_path / "begun").exists)

        server.kill()
        threading.Event().wait(AWAY_SECS)
        assert not (tmp_path / "ended").exists()
        server.start()

        # The step's own process gave the result, in its first attempt.
        pid = running.result(timeout="40s")
        assert sleeps.result(timeout="40s") == "awake"
        assert site.engine.start(noted, "later").result(timeout="20s") == "later"
        assert worker.running, worker.tail()
        assert lines(tmp_path / "begun") == lines(tmp_path / "ended") == [f"1 {pid}"]
        for run in (running, sleeps):
            assert [event.kind for event in run.events()].count("step_completed") == 1
        # Nothing waits for the visibility timeout, which is six hours.
        eventually(lambda: not server.client.hlen("unacked"), what="all messages are acknowledged")
        # Celery's greenlet for remote control writes its own.
        assert pool == "gevent" or "Traceback" not in worker.log.read_text(), worker.tail()


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_a_worker_goes_on_when_redis_was_full(tmp_path, pool):
    """Redis refuses each command that needs memory, while a step runs and messages wait in the queue."""
    with (
        new_database("postgresql", tmp_path) as database_url,
        OwnRedis(tmp_path) as server,
        deployed(deployment(tmp_path, database_url, server.url, pool)) as site,
    ):
        worker = site.start_worker()
        running = site.engine.start(works, str(tmp_path), STEP_SECS)
        eventually((tmp_path / "begun").exists)
        queued = [site.engine.start(noted, str(number)) for number in range(20)]

        server.client.config_set("maxmemory", 1)
        refused = site.engine.start(noted, "in the meantime")
        eventually((tmp_path / "ended").exists)
        assert refused.status == "pending"
        server.client.config_set("maxmemory", 0)

        assert running.result(timeout="40s") == int(lines(tmp_path / "ended")[0].split()[1])
        assert [run.result(timeout="20s") for run in queued] == [str(number) for number in range(20)]
        assert refused.result(timeout="20s") == "in the meantime"
        assert worker.running, worker.tail()
        assert len(lines(tmp_path / "begun")) == 1
