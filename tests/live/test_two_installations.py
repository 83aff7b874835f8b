"""Two applications with different databases on one queue: each runs its own work, and both are told."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from eventually import eventually
from live_flows import noted
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import doctor

pytestmark = pytest.mark.live


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_each_runs_its_own_and_gives_back_what_is_the_others(tmp_path, broker):
    """Nothing is lost, each step runs once, the log says it once in each process, and so does the doctor."""
    with ExitStack() as stack:
        broker_url = stack.enter_context(new_broker(broker, tmp_path))
        sites = []
        for name, kind in (("first", "postgresql"), ("second", "sqlite")):
            folder = tmp_path / name
            folder.mkdir()
            database_url = stack.enter_context(new_database(kind, folder))
            options = ("--pool", "threads", "--concurrency", "2")
            # The sweep sends nothing again meanwhile.
            settings = {"DURABLE_RESEND_AFTER": "60", "DURABLE_CONTINUATION": "0"}
            site = Deployment(folder, database_url, broker_url, "live_app", "", settings, worker_options=options)
            sites.append(stack.enter_context(deployed(site)))
        workers = [site.start_worker(site.folder.name) for site in sites]

        runs = [[site.engine.start(noted, str(number)) for number in range(8)] for site in sites]

        for own in runs:
            assert [run.result(timeout="60s") for run in own] == [str(number) for number in range(8)]
            assert all([event.kind for event in run.events()].count("step_completed") == 1 for run in own)
        for site, worker in zip(sites, workers, strict=True):
            eventually(lambda worker=worker: "A message of another installation" in worker.log.read_text())
            assert worker.log.read_text().count("A message of another installation") == 1
            site.engine.celery.conf.worker_enable_remote_control = False
            (told,) = [found for found in doctor.examine(site.engine) if found.name == "strangers"]
            assert not told.ok
            assert "queue 'celery'" in told.detail
