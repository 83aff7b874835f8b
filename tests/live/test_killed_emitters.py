"""A worker that is killed while its step emits: what is in the stream is in order, once, and says whose it is."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from processes import Deployment, deployed
from registries import own_definitions
from servers import new_broker, new_database

pytestmark = pytest.mark.live


@pytest.fixture
def flows() -> Iterator[Any]:
    """The workflow, forgotten afterwards."""
    with own_definitions():
        yield importlib.import_module("emitting_flows")


@pytest.fixture(params=["postgresql", "mariadb"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    with new_database(request.param, tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        settings = {"DURABLE_DEAD_AFTER": "2s", "DURABLE_BEAT_INTERVAL": "500ms", "DURABLE_RESEND_AFTER": "1s"}
        with deployed(Deployment(tmp_path, database_url, broker_url, "emitting_app", "", settings)) as made:
            yield made


def test_a_killed_attempt_leaves_a_prefix_and_the_next_one_everything(site, flows):
    """A reader that has followed all the time has seen the same as one that comes later."""
    site.start_worker()
    run = site.engine.start(flows.counting)
    seen = []
    for item in run.stream("numbers", timeout="60s").items():
        seen.append((item.number, item.attempt, item.value))
        if item.value == 100 and item.attempt == 1:
            site.stop("worker", signal.SIGKILL)
            site.start_worker()
    assert run.result(timeout="10s") == flows.ITEMS
    assert [number for number, _, _ in seen] == list(range(len(seen)))
    by_attempt = {attempt: [value for _, _, value in items] for attempt, items in groupby(seen, lambda each: each[1])}
    assert list(by_attempt) == [1, 2]
    assert 100 < len(by_attempt[1]) < flows.ITEMS
    assert by_attempt[1] == list(range(len(by_attempt[1])))
    assert by_attempt[2] == list(range(flows.ITEMS))
    assert [(each.number, each.attempt, each.value) for each in run.stream("numbers").items()] == seen
