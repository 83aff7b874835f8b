"""Limits of steps on real workers: never more run than they say, whatever dies, and no slot is left behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from eventually import eventually
from live_flows import many_keyed, many_limited, many_rated
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable.store import limit_faults, schema

pytestmark = pytest.mark.live


@contextmanager
def site_of(folder: Path, **settings: str) -> Iterator[Deployment]:
    with (
        new_database("postgresql", folder) as database_url,
        new_broker("redis", folder) as broker_url,
        deployed(Deployment(folder, database_url, broker_url, "live_app", "", settings)) as site,
    ):
        yield site


def claimed(site: Deployment, name: str) -> int:
    """How many attempts of a step run."""
    with site.engine.store.read() as tx:
        of_step = (schema.steps.c.name == name, schema.steps.c.status == "claimed")
        return int(tx.execute(sa.select(sa.func.count()).where(*of_step)).scalar_one())


def rows(site: Deployment, table: sa.Table) -> int:
    with site.engine.store.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_a_limit_holds_while_a_worker_is_killed(tmp_path):
    """Four children, and a limit of two: 30 calls, and one worker is killed while both slots are in use."""
    seen: list[int] = []

    def count() -> int:
        seen.append(claimed(site, "live.limited"))
        return seen[-1]

    with site_of(tmp_path) as site:
        for number in range(2):
            site.start_worker(f"worker-{number}", "--concurrency", "2")
        eventually(lambda: len(site.workers()) >= 4, 30, "all children beat")
        run = site.engine.start(many_limited, 30, 0.1)
        eventually(lambda: len(run.events()) > 40 and count() == 2, 30, "some have ended, and two run")
        site.stop("worker-0", signal.SIGKILL)
        eventually(lambda: count() >= 0 and run.status == "completed", 60, "the run ends")

        assert run.result(timeout=0) == 30
        assert max(seen) == 2
        eventually(lambda: rows(site, schema.step_limits) == 0, 30, "no row is left")


@pytest.mark.timeout(200)
def test_no_slot_leaks_when_workers_are_killed_again_and_again(tmp_path):
    """Six times a worker is killed while all slots are in use; then every slot is free, and no row is left."""
    seen: list[int] = []

    def are_full() -> bool:
        seen.append(claimed(site, "live.keyed"))
        return seen[-1] == 3

    with site_of(tmp_path, DURABLE_BEAT_INTERVAL="0.3", DURABLE_DEAD_AFTER="2") as site:
        for number in range(3):
            site.start_worker(f"worker-{number}", "--concurrency", "2")
        run = site.engine.start(many_keyed, 120, 0.3)
        for number in range(6):
            eventually(are_full, 60, "three attempts run")
            site.stop(f"worker-{number % 3}", signal.SIGKILL)
            site.start_worker(f"worker-{number % 3}", "--concurrency", "2", ready=False)
        eventually(lambda: not are_full() and run.status == "completed", 90, "the run ends")
        assert run.result(timeout=0) == 120
        assert max(seen) == 3
        eventually(lambda: rows(site, schema.step_limits) == 0, 30, "no row is left")

        again = site.engine.start(many_keyed, 12, 0.5)
        eventually(are_full, 30, "all slots can be used")
        now = site.engine.now()
        with site.engine.store.read() as tx:
            assert limit_faults.wrong_slots(tx, now, now - 10_000_000) == []
            assert sum(each.in_use for each in limit_faults.key_states(tx, now) if each.name == "live.all") <= 3
        assert again.result(timeout=60) == 12
        eventually(lambda: rows(site, schema.step_limits) == 0, 30, "no row is left")


@pytest.mark.timeout(120)
def test_a_rate_holds_over_four_workers(tmp_path):
    """Twenty a second for twenty seconds: within 10 %.  ``python -m bench.limits`` measures a minute, and 5 %."""
    with site_of(tmp_path) as site:
        for number in range(4):
            site.start_worker(f"worker-{number}", "--concurrency", "1")
        run = site.engine.start(many_rated, 400)
        began = sorted(run.result(timeout=80))

    assert len(began) == 400
    # Without the burst at the beginning.
    steady = [at for at in began if at >= began[0] + 1]
    assert (len(steady) - 1) / (steady[-1] - steady[0]) == pytest.approx(20, rel=0.1)
