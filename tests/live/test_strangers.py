"""Workers of different programs on one broker, and how doctor sees them: nothing is lost on those that do not know."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
from eventually import eventually
from live_flows import naps
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import Run, doctor
from durable.client import describe
from durable.doctor import Finding
from durable.turns.drive import drive
from durable.worker import versions as health

pytestmark = pytest.mark.live


@pytest.fixture(params=["postgresql-redis", "sqlite-rabbitmq"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment without processes."""
    database, broker = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    with new_database(database, folder) as database_url, new_broker(broker, folder) as broker_url:
        settings = {"DURABLE_RESEND_AFTER": "1"}
        described = Deployment(folder, database_url, broker_url, "live_app", "live_app:create_app()", settings)
        with deployed(described) as made:
            yield made


def findings(site: Deployment) -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.examine(site.engine)}


def waiting(site: Deployment, run: Run[Any]) -> list[tuple[str, str]]:
    shown = describe.describe(site.engine, run.id)["waiting_for"]
    return [(entry["kind"], entry.get("state", "")) for entry in shown]


def test_c05_a_step_unknown_to_the_worker_waits_for_one_that_knows_it(site: Deployment) -> None:
    """The worker puts its message aside; the run stays running, says why, and goes on once such a worker is there."""
    stranger = site.start_worker("stranger", app="stranger_app")
    run = site.engine.start(naps, "0s")
    drive(site.engine, run.id)
    drive(site.engine, run.id)
    eventually(lambda: "knows no step" in stranger.tail(), what="the stranger has had the step")

    assert (run.status, waiting(site, run)) == ("running", [("step", "unknown")])
    assert "live_flows.note (1 waiting" in findings(site)["names"].detail
    site.stop("stranger", signal.SIGTERM)
    site.start_worker()
    assert eventually(lambda: run.status == "completed", 10, "the run ends within seconds of the worker's first beat")
    assert run.result() == "awake"


def test_c06_a_workflow_unknown_to_the_worker_waits_for_one_that_knows_it(site: Deployment) -> None:
    """A worker that does not know the workflow leaves the run as it is, and the next one ends it."""
    stranger = site.start_worker("stranger", app="stranger_app")
    run = site.engine.start(naps, "0s")
    eventually(lambda: "knows no workflow" in stranger.tail(), what="the stranger has had the turn")

    assert (run.status, waiting(site, run)) == ("pending", [("turn", "unknown")])
    assert "live_flows.naps (1 waiting" in findings(site)["names"].detail
    site.stop("stranger", signal.SIGTERM)
    site.start_worker()
    assert run.result(timeout=10) == "awake"


def test_c103_workers_report_healthy_with_their_versions_through_the_broker(site: Deployment) -> None:
    """All checks are well, and each worker's answer has come through the broker with what it runs."""
    site.start_worker()
    site.start_web()
    found = findings(site)
    versions = health.versions()

    assert [finding for finding in found.values() if not finding.ok] == []
    assert found["answers"].detail.startswith("worker@")
    for name in ("durable", "python", "celery"):
        assert f"{name.capitalize() if name != 'durable' else name} {versions[name]}" in found["answers"].detail


def test_queues_that_a_worker_was_started_with_are_told_by_its_children(site: Deployment) -> None:
    """-Q slow, other: a run on the default queue has no worker, one on slow has."""
    site.start_worker("worker", "--pool", "prefork", "--concurrency", "1", "-Q", "slow,other")
    slow = naps.with_options(queue="slow").start("1h")
    eventually(lambda: slow.status == "running", what="the worker takes from slow")
    assert findings(site)["queues"].ok

    site.engine.start(naps, "1h")
    assert findings(site)["queues"].detail == "No live worker takes from celery."
