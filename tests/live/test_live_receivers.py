"""A receiver in real processes: the web process is killed between the commit and the answer."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import pytest
import sqlalchemy as sa
from eventually import eventually
from processes import Deployment, deployed, post_json
from servers import new_broker, new_database

from durable.store.schema import received, runs

pytestmark = pytest.mark.live


@pytest.mark.parametrize(("database", "broker"), [("postgresql", "redis"), ("mariadb", "rabbitmq")])
def test_a_request_is_sent_again_after_its_web_process_was_killed(database: str, broker: str, tmp_path: Path) -> None:
    """Its copy finds the run that the first one has started, and gets the answer of that run's step."""
    settings = {"DURABLE_FAILPOINTS": "request.recorded=crash@1"}
    with new_database(database, tmp_path) as database_url, new_broker(broker, tmp_path) as broker_url:
        described = Deployment(tmp_path, database_url, broker_url, "live_app", "received_app:create_app()", settings)
        with deployed(described) as site:
            url = f"{site.url}/.well-known/workflow/v1/receive/live.desk"
            site.start_web()
            with pytest.raises((OSError, HTTPException)):
                post_json(url, {"id": "evt_1"})
            site.stop("web", 9)
            settings.clear()
            site.start_web(ready=False)
            site.start_worker(ready=False)
            site.wait_for("web", "worker")

            answer = post_json(url, {"id": "evt_1"})

            assert (answer.status, answer.data) == (200, b'answer to {"id": "evt_1"}')
            with site.engine.store.read() as tx:
                (row,) = tx.execute(sa.select(received)).all()
                (run_id,) = tx.execute(sa.select(runs.c.id)).scalars()
            assert (row.outcome, row.run_id) == ("started", run_id)
            run = site.engine.get_run(run_id)
            eventually(lambda: run.status == "completed", 15, "the run ends")
