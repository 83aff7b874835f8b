"""A worker that is behind is sent nothing twice."""

from __future__ import annotations

import re

import pytest
from eventually import eventually
from live_flows import many_short
from processes import Deployment, deployed
from servers import new_broker, new_database

pytestmark = pytest.mark.live

STEPS = 60


def test_each_step_of_a_backlog_is_sent_once(tmp_path):
    """60 steps wait for one worker many times longer than a lost message would: it receives each of them once."""
    solo = ("--pool", "solo", "--prefetch-multiplier", "1")
    settings = {"DURABLE_RESEND_AFTER": "500ms", "DURABLE_SWEEP_INTERVAL": "100ms", "DURABLE_BEAT_INTERVAL": "100ms"}
    # No step is offered: each has a message.
    settings["DURABLE_CONTINUATION"] = "0"
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        described = Deployment(tmp_path, database_url, broker_url, "live_app", "", settings, solo)
        with deployed(described) as site:
            run = site.engine.start(many_short, STEPS)
            # Its steps stand behind those, so that the queue is not empty while the last of them is on its way.
            behind = site.engine.start(many_short, 5)
            worker = site.start_worker()

            assert (run.result(timeout="120s"), behind.result(timeout="60s")) == (STEPS, 5)
            eventually(lambda: site.engine.dispatch.broker.length("celery") == 0, 10, "an empty queue")
            received = re.compile(rf"Task live_flows\.short\[{run.id}:\S+\] received")
            assert len(received.findall(worker.log.read_text())) == STEPS
