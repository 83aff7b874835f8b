"""Workers that do not all have the key: real ones, beside each other."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from eventually import eventually
from live_flows import works
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import Durable
from durable.cipher import aes_gcm

pytestmark = pytest.mark.live

KEY = os.urandom(32)


@pytest.fixture
def site(tmp_path: Any) -> Iterator[Deployment]:
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        described = Deployment(
            tmp_path, database_url, broker_url, "live_app", "live_app:create_app()", {"DURABLE_RESEND_AFTER": "1"}
        )
        with deployed(described) as made:
            yield made


def test_a_run_waits_for_the_worker_that_has_the_key(site, tmp_path):
    """The one without says so and changes nothing; with one that has it, the run ends though both take messages."""
    engine = Durable(
        Celery("starter"),
        database_url=site.database_url,
        broker_url=site.broker_url,
        cipher=aes_gcm({"k1": KEY}),
    )
    unable = site.start_worker("unable")
    run = engine.start(works, str(tmp_path), 0)
    eventually(lambda: "is left for a worker that can read it" in unable.log.read_text(), 20, "it was left")
    assert "'k1'" in unable.log.read_text()
    assert "DURABLE_CIPHER" in unable.log.read_text()
    assert run.status == "pending"

    keys = f"k1:{base64.b64encode(KEY).decode()}"
    site.start_worker("able", environment={"DURABLE_CIPHER": "aes-gcm:env:THE_KEYS", "THE_KEYS": keys})
    run.result(timeout="60s")

    assert unable.running
    assert [event.attempt for event in run.events() if event.kind == "step_completed"] == [1]
    engine.celery.close()
    engine.close()
