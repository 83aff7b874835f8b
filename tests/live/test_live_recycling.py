"""A worker whose children end after each task: ``--max-tasks-per-child 1``, message by message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_flows import counts
from processes import Deployment, deployed
from servers import new_broker, new_database

pytestmark = pytest.mark.live

STEPS = 4


@pytest.fixture(params=["redis", "rabbitmq"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment that goes on with a run by messages only."""
    with new_database("postgresql", tmp_path) as database_url, new_broker(request.param, tmp_path) as broker_url:
        settings = {"DURABLE_CONTINUATION": "0"}
        with deployed(
            Deployment(tmp_path, database_url, broker_url, "live_app", "live_app:create_app()", settings)
        ) as made:
            yield made


@pytest.mark.parametrize("children", [1, 2])
def test_no_task_is_left_with_a_child_that_has_ended(site, children):
    """As many runs as children: each message is received once, so none has waited until it was sent again."""
    worker = site.start_worker(
        "worker", "--pool", "prefork", "--concurrency", str(children), "--max-tasks-per-child", "1"
    )
    runs = [site.engine.start(counts, STEPS) for _ in range(children)]

    assert [run.result(timeout="60s") for run in runs] == [STEPS] * children

    attempts = [event.attempt for run in runs for event in run.events() if event.kind == "step_completed"]
    assert attempts == [1] * (children * STEPS)
    received = Counter(re.findall(r"Task (\S+)\[\S+\] received", worker.log.read_text()))
    assert received == {"live_flows.count_on": children * STEPS, "durable.drive": children * (STEPS + 1)}
