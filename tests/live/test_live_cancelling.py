"""A step that a real worker runs for a call that was given up: told within seconds, and never tried again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from eventually import eventually
from live_flows import long_job
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import Run, RunCancelled, resume_hook
from durable.store.schema import steps

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=["postgresql-redis-prefork", "sqlite-rabbitmq-threads"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One worker with two slots: the step that runs leaves one for what comes after it."""
    database, broker, pool = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    with new_database(database, folder) as database_url, new_broker(broker, folder) as broker_url:
        described = Deployment(
            folder,
            database_url,
            broker_url,
            "live_app",
            "live_app:create_app()",
            worker_options=("--pool", pool, "--concurrency", "2"),
        )
        with deployed(described) as made:
            made.start_worker()
            yield made


@pytest.mark.parametrize("kind", ["async", "def"])
def test_c83_a_running_step_learns_that_its_run_was_cancelled(site, kind, tmp_path):
    """The run undoes what it did and ends without waiting for the step, which stops within a few seconds."""
    run = site.engine.start(long_job, kind, str(tmp_path), secrets.token_hex(8))
    eventually((tmp_path / "begun").exists)

    assert run.cancel("by hand") is True
    with pytest.raises(RunCancelled, match="by hand"):
        run.result(timeout="10s")
    eventually((tmp_path / "tidied up").exists, 5)

    told = [event.kind for event in run.events()]
    assert told.count("step_completed") == 1, told
    assert told[-1] == "run_cancelled"


@pytest.mark.parametrize("kind", ["async", "def"])
def test_c83_a_running_step_that_lost_a_race_stops(site, kind, tmp_path):
    """A caller resumes the hook: the run completes at once, and the step stops within a few seconds."""
    stop = secrets.token_hex(8)
    run = site.engine.start(long_job, kind, str(tmp_path), stop)
    eventually((tmp_path / "begun").exists)

    resume_hook(stop, "stopped by token")

    assert run.result(timeout="10s") == "stopped by token"
    eventually((tmp_path / "tidied up").exists, 5)
    eventually(lambda: rows_of(site, run) == [])
    assert "step_retrying" not in [event.kind for event in run.events()]


def rows_of(site: Deployment, run: Run[str]) -> list[Any]:
    """The run's steps that are to run, or run."""
    with site.engine.store.read() as tx:
        return list(tx.execute(sa.select(steps).where(steps.c.run_id == run.id)))
