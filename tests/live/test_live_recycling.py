"""A worker whose children end after each task: ``--max-tasks-per-child 1``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import counts, looks_at_child, many_short
from processes import Deployment, Process, deployed
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


def start_worker(site: Deployment, children: int) -> Process:
    options = ("--concurrency", str(children), "--max-tasks-per-child", "1")
    return site.start_worker("worker", "--pool", "prefork", *options)


def test_no_task_waits_for_a_child_that_has_ended(site):
    """One child at a time: each message is received once, so none has waited until it was sent again."""
    worker = start_worker(site, 1)

    run = site.engine.start(counts, STEPS)
    assert run.result(timeout="60s") == STEPS

    received = Counter(re.findall(r"Task (\S+)\[\S+\] received", worker.log.read_text()))
    assert received == {"live_flows.count_on": STEPS, "durable.drive": STEPS + 1}


def test_runs_side_by_side_end_and_repeat_no_step(site):
    """Two runs on two children end within a minute, each step at its first attempt."""
    start_worker(site, 2)

    runs = [site.engine.start(counts, STEPS) for _ in range(2)]
    assert [run.result(timeout="60s") for run in runs] == [STEPS] * 2

    attempts = [event.attempt for run in runs for event in run.events() if event.kind == "step_completed"]
    assert attempts == [1] * (2 * STEPS)
    assert not [event for run in runs for event in run.events() if event.kind == "step_retrying"]


def test_a_child_that_ends_after_its_task_is_worth_its_start(tmp_path):
    """A run of 24 steps goes on in a child for a multiple of the child's start, however short ``continuation`` is."""
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        settings = {"DURABLE_CONTINUATION": "1ms"}
        with deployed(Deployment(tmp_path, database_url, broker_url, "live_app", "", settings)) as site:
            worker = start_worker(site, 1)
            frozen = site.engine.start(looks_at_child)
            run = site.engine.start(counts, 24)

            assert frozen.result(timeout="60s") > 100_000, "the parent's objects, which no fork collects again"
            assert run.result(timeout="60s") == 24

            received = re.findall(r"Task live_flows.count_on\[\S+\] received", worker.log.read_text())
            assert len(received) < 12, "without it, one child for each step"


def test_children_that_autoscale_adds_and_ends_repeat_no_step_and_leave_no_row(tmp_path):
    """A backlog brings more children, which end again once they are idle: each step ran once, and one process beats."""
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        # How soon Celery ends an idle child, in seconds.
        settings = {"AUTOSCALE_KEEPALIVE": "1"}
        with deployed(Deployment(tmp_path, database_url, broker_url, "live_app", "", settings)) as site:
            site.start_worker("worker", "--pool", "prefork", "--autoscale", "3,1")
            runs = [site.engine.start(many_short, 40) for _ in range(6)]

            eventually(lambda: len(site.workers()) > 1, 60, "children were added")
            assert [run.result(timeout="60s") for run in runs] == [40] * 6
            eventually(lambda: len(site.workers()) == 1, 60, "the added children have ended, and no row is left")

            attempts = [event.attempt for run in runs for event in run.events() if event.kind == "step_completed"]
            assert attempts == [1] * (6 * 40)
