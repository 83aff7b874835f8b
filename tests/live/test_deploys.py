"""An old and a new worker on one queue: what only the new one knows does not wait for a sweep."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_flows import loads, ships
from eventually import eventually
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import measures
from durable.store import totals

pytestmark = pytest.mark.live

RUNS, STEPS = 10, 4
#: More than a busy machine needs for ten runs with their hops.  It was 50 to 90 s when messages waited for the sweep.
AT_ONCE_SECS = 15.0


@pytest.fixture(params=["postgresql-redis", "sqlite-rabbitmq"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment with default settings, and no processes yet."""
    database, broker = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    with new_database(database, folder) as database_url, new_broker(broker, folder) as broker_url:
        described = Deployment(folder, database_url, broker_url, "deploy_app", "deploy_app")
        with deployed(described) as made:
            yield made


def forwarded(site: Deployment) -> int:
    """How often workers have sent a message on; those that have stopped, too."""
    with site.engine.store.read() as tx:
        found = totals.read(tx)
    return sum(value for (name, *_), value in found.items() if name == measures.MESSAGES_FORWARDED.name)


def test_ten_runs_of_a_new_workflow_end_at_once_beside_an_old_worker(site: Deployment) -> None:
    """Turns and steps that reach the old worker go on to the new one, within a few hops."""
    site.start_worker("old", app="stranger_app")
    site.start_worker("new")
    began = time.monotonic()
    runs = [site.engine.start(ships, STEPS) for _ in range(RUNS)]
    eventually(lambda: all(run.status == "completed" for run in runs), 60, "all runs end")

    assert time.monotonic() - began < AT_ONCE_SECS
    assert "Received unregistered task" not in site.processes["old"].tail()
    for name in ("new", "old"):
        site.processes[name].signal(signal.SIGTERM)
    assert 0 < forwarded(site) <= 5 * RUNS * (1 + STEPS)


def test_a_message_does_not_circle_while_the_worker_that_knows_it_is_busy(site: Deployment, tmp_path: Path) -> None:
    """It is sent on with growing pauses of at most a second, and the worker has it within a second once it is free."""
    site.start_worker("new", "--pool", "solo", "--prefetch-multiplier", "1")
    busy = site.engine.start(loads, str(tmp_path))
    eventually((tmp_path / "loading").exists, what="the new worker is busy")
    site.start_worker("old", app="stranger_app")
    waiting = site.engine.start(ships, 1)
    eventually(lambda: forwarded(site) >= 5, what="the message goes round")
    before, began = forwarded(site), time.monotonic()
    eventually(lambda: time.monotonic() - began > 5, what="five seconds pass")
    assert forwarded(site) - before <= 20

    (tmp_path / "go").touch()
    eventually(lambda: busy.status == "completed", what="the new worker is free")
    freed = time.monotonic()
    eventually(lambda: waiting.status == "completed", what="the message reaches it")
    assert time.monotonic() - freed < 2.5
