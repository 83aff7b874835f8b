"""Failed and blocked runs are told by real workers: one log record each, and the handlers, also after a crash."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from eventually import eventually
from processes import Deployment, deployed
from reported_app import declined, mistaken, refused
from servers import new_broker, new_database

from durable.store.schema import run_calls

pytestmark = pytest.mark.live

POOLS = {
    "prefork, by messages": ("prefork", "0"),
    "prefork, in place": ("prefork", "5s"),
    "threads": ("threads", "5s"),
    "solo": ("solo", "0"),
    "gevent": ("gevent", "5s"),
}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """What the processes find in their environment; a test may change it between two starts."""
    return {"NOTED": str(tmp_path / "noted"), "DURABLE_RESEND_AFTER": "1"}


@pytest.fixture
def site(settings: dict[str, str], tmp_path: Path) -> Iterator[Deployment]:
    """A deployment without processes."""
    with new_database("sqlite", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        described = Deployment(tmp_path, database_url, broker_url, "reported_app", "", settings)
        with deployed(described) as made:
            yield made


def noted(site: Deployment) -> list[str]:
    """The lines that the handlers have written."""
    file = site.folder / "noted"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("manner", POOLS)
def test_each_pool_tells_a_failure_and_a_mistake_once(site, settings, manner):
    """The worker's log has one record for each run, and each handler is called once, with the committed status."""
    pool, settings["DURABLE_CONTINUATION"] = POOLS[manner]
    worker = site.start_worker("worker", "--pool", pool, "--concurrency", "2")
    lost, stuck = site.engine.start(declined, "c1"), site.engine.start(mistaken, "c2")

    wanted = [f"blocked {stuck.id} blocked", f"failed {lost.id} failed"]
    eventually(lambda: len(noted(site)) == len(wanted), 30, "the handlers were called")
    eventually(lambda: due(site) == [], 10, "no call is due")
    assert sorted(noted(site)) == wanted
    log = worker.log.read_text()
    failure = rf"ERROR.*Run {lost.id} of reported_app\.declined failed at step reported_app\.decline "
    assert len(re.findall(failure, log)) == 1
    assert len(re.findall(rf"WARNING.*Run {stuck.id} is blocked", log)) == 1
    assert "name 'acept' is not defined" in log


def test_a_worker_that_is_killed_before_the_call_is_followed_by_another(site, settings):
    """The first worker dies between the commit and the call; another worker has the handler called."""
    settings["DURABLE_FAILPOINTS"] = "turn.committed=crash@1"
    worker = site.start_worker("first", "--pool", "solo")
    run = site.engine.start(refused)
    eventually(lambda: not worker.running, 20, "the worker has crashed")
    assert (run.status, noted(site), due(site)) == ("failed", [], [run.id])

    del settings["DURABLE_FAILPOINTS"]
    with site.engine.store.begin() as tx:
        tx.execute(sa.update(run_calls).values(next_send_at=0))
    site.start_worker("second", "--pool", "solo")
    eventually(lambda: noted(site) == [f"failed {run.id} failed"], 30, "the handler was called")
    eventually(lambda: due(site) == [], 10, "no call is due")


def due(site: Deployment) -> list[str]:
    """The runs for which a call is due."""
    with site.engine.store.read() as tx:
        return list(tx.execute(sa.select(run_calls.c.run_id)).scalars())
