"""A worker whose consumer is dead, on real brokers: it is named, and ends if it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import flask
import pytest
from eventually import eventually
from live_flows import noted
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import doctor
from durable.dashboard import create_dashboard
from durable.metrics import snapshot

pytestmark = pytest.mark.live


@pytest.fixture
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment whose workers look at themselves each second."""
    with new_database("postgresql", tmp_path) as database_url, new_broker(request.param, tmp_path) as broker_url:
        settings = {"DURABLE_DEAD_AFTER": "1s", "DURABLE_BEAT_INTERVAL": "200ms"}
        described = Deployment(tmp_path, database_url, broker_url, "deaf_app", "", settings)
        with deployed(described) as made:
            yield made


def tell(site: Deployment, command: str) -> None:
    site.engine.celery.control.broadcast(command)


def are_deaf(site: Deployment) -> set[bool]:
    """Whether the processes of the workers are marked as deaf."""
    return {worker.deaf_since is not None for worker in site.workers()}


def find(site: Deployment) -> doctor.Finding:
    return next(each for each in doctor.examine(site.engine) if each.name == "deaf")


def workers_page(site: Deployment) -> str:
    app = flask.Flask("deaf")
    app.register_blueprint(create_dashboard(site.engine, authorize=lambda action, run_id: True), url_prefix="/ops")
    return app.test_client().get("/ops/workers").get_data(as_text=True)


@pytest.mark.parametrize("site", ["redis"], indirect=True)
def test_a_worker_whose_consumer_is_dead_is_named_until_it_hears_again(site: Deployment) -> None:
    """An idle worker is not deaf; one that leaves messages is, in the doctor, the dashboard and the metrics."""
    worker = site.start_worker()
    assert site.engine.start(noted, "before").result(timeout="30s") == "before"
    assert find(site).ok
    tell(site, "go_deaf")
    run = site.engine.start(noted, "after")

    eventually(lambda: are_deaf(site) == {True}, 60, "both children are marked")

    found = find(site)
    assert not found.ok
    assert all(str(each.pid) in found.detail for each in site.workers())
    assert snapshot.read(site.engine).gauges[snapshot.DEAF] == {(): 2.0}
    assert "it takes no messages" in workers_page(site)
    assert worker.log.read_text().count("its consumer is dead") == 1
    assert worker.running
    assert run.status == "pending"

    tell(site, "hear_again")
    assert run.result(timeout="60s") == "after"
    eventually(lambda: are_deaf(site) == {False}, 60, "no child is marked")
    assert find(site).ok


@pytest.mark.parametrize("site", ["rabbitmq"], indirect=True)
def test_a_deaf_worker_ends_if_it_is_told_to(site: Deployment) -> None:
    """With status 1, so that a supervisor starts it again; the next one takes what waits."""
    worker = site.start_worker(environment={"DURABLE_ON_DEAF_WORKER": "exit"})
    assert site.engine.start(noted, "before").result(timeout="30s") == "before"
    tell(site, "go_deaf")
    run = site.engine.start(noted, "waits")

    eventually(lambda: not worker.running, 60, "the worker ends")

    assert worker.popen.returncode == 1
    assert "It ends now" in worker.log.read_text()
    site.start_worker("next")
    assert run.result(timeout="60s") == "waits"
