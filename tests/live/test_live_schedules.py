"""Schedules with real workers: on time, once, through the death of the process that fires, and as each deploy says."""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from eventually import eventually
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import ScheduleNotFound, get_schedule
from durable.store.schema import leases, runs, workers

pytestmark = pytest.mark.live

SECOND = 1_000_000


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, own_registry: None) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("schedules")
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(folder, database_url, broker_url, "scheduled_app", "no web app")
        with deployed(described) as made:
            yield made


def rows(site: Deployment) -> list[sa.Row]:
    """The runs of schedules, by planned time."""
    with site.engine.store.read() as tx:
        query = sa.select(runs).where(runs.c.scheduled_for.is_not(None)).order_by(runs.c.scheduled_for)
        return list(tx.execute(query))


def pid_that_fires(site: Deployment) -> int:
    """The process that has the sweep's lease."""
    with site.engine.store.read() as tx:
        query = sa.select(workers.c.pid).join(leases, leases.c.owner == workers.c.id)
        return int(tx.execute(query).scalar_one())


def test_each_second_has_one_run_though_the_process_that_fires_is_killed(site):
    """A run starts within a moment of its planned time; after the kill, none is missing and none is double."""
    for name in ("first", "second"):
        site.start_worker(name, ready=False, environment={"DECLARED": "ticks"})
    site.wait_for("first", "second")
    eventually(lambda: len(rows(site)) >= 5, 20, "five runs")
    on_time = [row.created_at - row.scheduled_for for row in rows(site)]
    os.kill(pid_that_fires(site), signal.SIGKILL)
    killed_at = site.engine.now()
    eventually(lambda: [row for row in rows(site) if row.scheduled_for > killed_at + 6 * SECOND], 30, "it goes on")

    get_schedule("ticks").pause()
    found = rows(site)
    planned = [row.scheduled_for for row in found]
    assert planned == list(range(planned[0], planned[-1] + SECOND, SECOND))
    assert statistics.median(on_time) < SECOND
    eventually(lambda: all(row.completed_at for row in rows(site)), 20, "all runs have ended")


def test_a_deploy_adds_and_removes_schedules(site):
    """The next worker's code declares another schedule: the first one ends with the last worker that declares it."""
    site.start_worker("one", environment={"DECLARED": "one"})
    eventually(lambda: fires("one"), 20, "one fires")
    site.start_worker("two", environment={"DECLARED": "two"})
    eventually(lambda: fires("two"), 20, "two fires")
    assert fires("one")
    # Celery may take 30 seconds for a warm shutdown when messages come all the time.
    site.stop("one", signal.SIGKILL)
    eventually(lambda: is_gone("one"), 20, "one is removed")
    latest = get_schedule("two").latest()[0].planned_at
    eventually(lambda: get_schedule("two").latest()[0].planned_at > latest, 10, "two goes on")


def fires(name: str) -> bool:
    return not is_gone(name) and bool(get_schedule(name).latest())


def is_gone(name: str) -> bool:
    try:
        get_schedule(name)
    except ScheduleNotFound:
        return True
    return False
