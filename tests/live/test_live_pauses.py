"""Pauses on real workers: a paused workflow or queue begins nothing, also after a restart, and goes on whole."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from live_flows import noted, pausable
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import Run

pytestmark = pytest.mark.live

ROUNDS = 30


@contextmanager
def site_of(folder: Path, database: str, broker: str) -> Iterator[Deployment]:
    with (
        new_database(database, folder) as database_url,
        new_broker(broker, folder) as broker_url,
        deployed(Deployment(folder, database_url, broker_url, "live_app", "", {})) as site,
    ):
        yield site


def shape(run: Run[Any]) -> int:
    """How many events the run has that a turn has written."""
    return len(run.events())


def other_work_is_done(site: Deployment) -> None:
    """Another workflow has run from its start to its end: what could have begun meanwhile has."""
    other = site.engine.start(noted, "other work")
    eventually(lambda: other.status == "completed", 30, "the other workflow runs")


@pytest.mark.parametrize(("database", "broker"), [("postgresql", "redis"), ("mariadb", "rabbitmq")])
@pytest.mark.timeout(240)
def test_a_paused_workflow_begins_nothing_until_it_is_resumed(tmp_path, database, broker):
    """Its runs stand still from the moment at which the call returns, and after the worker was killed."""
    with site_of(tmp_path, database, broker) as site:
        site.start_worker("worker-0", "--concurrency", "2")
        runs = [site.engine.start(pausable, ROUNDS) for _ in range(6)]
        eventually(lambda: all(shape(run) > 5 for run in runs), 30, "all have begun")
        site.engine.pause(workflow=pausable, reason="a live test")
        before = [shape(run) for run in runs]
        late = site.engine.start(pausable, ROUNDS)
        eventually(lambda: late.paused, 30, "a run that starts later is paused")
        stood = shape(late)

        other_work_is_done(site)
        site.stop("worker-0", signal.SIGKILL)
        site.start_worker("worker-0", "--concurrency", "2")
        other_work_is_done(site)
        assert [shape(run) for run in runs] == before
        assert shape(late) == stood
        assert all(run.paused for run in [*runs, late])

        site.engine.resume(workflow=pausable)
        eventually(lambda: all(run.status == "completed" for run in [*runs, late]), 90, "all go on to their end")
        for run in [*runs, late]:
            ended = Counter(event.op_id for event in run.events() if event.kind == "step_completed")
            assert run.result(timeout=0) == ROUNDS
            assert len(ended) == 2 * ROUNDS
            assert set(ended.values()) == {1}
        eventually(lambda: not site.engine.list_pauses(), 20, "the pause is over")


@pytest.mark.timeout(120)
def test_a_paused_queue_begins_nothing_until_it_is_resumed(tmp_path):
    """Turns and steps of the default queue wait, and go on."""
    with site_of(tmp_path, "postgresql", "redis") as site:
        site.start_worker("worker-0", "--concurrency", "2")
        run = site.engine.start(pausable, ROUNDS)
        eventually(lambda: shape(run) > 5, 30, "it has begun")
        site.engine.pause(queue="celery")
        before = shape(run)
        late = site.engine.start(pausable, ROUNDS)
        eventually(lambda: late.paused, 30, "the worker knows of the pause")
        assert (run.paused, shape(run)) == (True, before)
        site.engine.resume(queue="celery")
        eventually(lambda: run.status == late.status == "completed", 60, "both go on to their end")
        assert run.result(timeout=0) == ROUNDS
