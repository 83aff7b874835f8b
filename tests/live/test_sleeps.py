"""Sleeps under brokers that deliver again, workers whose clocks are wrong, and very many of them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from eventually import eventually
from live_flows import naps
from processes import Deployment, deployed
from servers import absent, new_broker, new_database

from durable import Run
from durable.events import WaitCompleted, WaitCreated

pytestmark = pytest.mark.live

SECOND = 1_000_000
#: How many seconds a sleep may be late if its ETA message is lost: one until the sweep looks for it, the sweep's
#: interval, and what a busy machine adds.
LATE = 8


@pytest.fixture(params=["redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A database and a broker, and no process yet."""
    with new_database("postgresql", tmp_path) as database_url, new_broker(request.param, tmp_path) as broker_url:
        one = ("--pool", "prefork", "--concurrency", "1")
        described = Deployment(tmp_path, database_url, broker_url, "live_app", "live_app:create_app()", {}, one)
        with deployed(described) as made:
            yield made


def lateness(run: Run[Any]) -> float:
    """Seconds from the time at which the run's only sleep was due until it was over; it was over once."""
    (due_at,) = [event.due_at for event in run.events() if isinstance(event, WaitCreated)]
    (over_at,) = [event.at for event in run.events() if isinstance(event, WaitCompleted)]
    return (over_at - due_at) / SECOND


def test_a_message_that_the_broker_delivers_again_and_again_wakes_once_and_in_time(site):
    """The ETA horizon (120 s) is above Redis's visibility timeout (1 s): the held message comes again, and no harm."""
    worker = site.start_worker(environment={"VISIBILITY_TIMEOUT": "1"})
    slept = [site.engine.start(naps, "5s") for _ in range(3)]

    assert [run.result(timeout="20s") for run in slept] == ["awake"] * 3
    assert [late for late in map(lateness, slept) if not 0 <= late < LATE] == []
    assert len(re.findall(r"Task durable\.wake\[\S+\] received", worker.log.read_text())) > 3


def wrong_clock(hours: int) -> dict[str, str]:
    """The environment of a process whose clock is so many hours ahead."""
    pattern = "/usr/lib/*/faketime/libfaketimeMT.so.1"
    found = glob.glob(pattern)
    if not found:
        absent("libfaketime", f"no {pattern}")
    # The clock that people set, not the one that only counts.
    return {"LD_PRELOAD": found[0], "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.mark.parametrize("site", ["redis", "rabbitmq"], indirect=True)
def test_workers_whose_clocks_are_off_by_an_hour_are_at_most_late(site):
    """Whichever worker sends or holds an ETA message, each sleep ends in time, and no worker is taken for dead."""
    site.start_worker("right", ready=False)
    site.start_worker("ahead", ready=False, environment=wrong_clock(1))
    site.start_worker("behind", ready=False, environment=wrong_clock(-1))
    site.wait_for("right", "ahead", "behind")
    slept = [site.engine.start(naps, "2s") for _ in range(12)]

    assert [run.result(timeout="20s") for run in slept] == ["awake"] * 12
    assert [late for late in map(lateness, slept) if not 0 <= late < LATE] == []
    ahead = {round(worker.clock_ahead / SECOND / 3600) for worker in site.workers() if worker.clock_ahead is not None}
    assert ahead == {-1, 0, 1}
    assert not [name for name, said in site.log_tails().items() if "attempts are given up" in said]


def test_very_many_sleeping_runs_take_no_memory_of_a_worker(site):
    """100,000 sleeps that end in a month: no message, and a worker as large after some sweeps as before."""
    worker = site.start_worker()
    site.engine.start(naps, "1ms").result(timeout="20s")
    before = resident(worker.popen.pid)
    now = site.engine.now()
    insert_sleeping(site, 100_000, due_at=now + 30 * 86400 * SECOND)

    swept = sweeps(site)
    eventually(lambda: sweeps(site) >= swept + 3, 20, "three more sweeps")

    assert resident(worker.popen.pid) - before < 8 * 1024 * 1024
    with redis.Redis.from_url(site.broker_url) as client:
        assert client.llen("celery") == client.hlen("unacked") == 0


def insert_sleeping(site: Deployment, count: int, due_at: int) -> None:
    """Rows as a turn leaves them, all at once."""
    known = {"count": count, "now": site.engine.now(), "due_at": due_at, "next": due_at - 120 * SECOND}
    with site.engine.store.begin() as tx:
        tx.execute(
            sa.text(
                "INSERT INTO durable_runs (id, name, status, turn, seq, last_at, digest, created_at)"
                " SELECT 'sleeping-' || n, 'live_flows.naps', 'running', 1, 3, :now, '0', :now"
                " FROM generate_series(1, :count) AS n"
            ),
            known,
        )
        tx.execute(
            sa.text(
                "INSERT INTO durable_waits (run_id, op_id, due_at, next_send_at, sends)"
                " SELECT 'sleeping-' || n, 'r#1', :due_at, :next, 0 FROM generate_series(1, :count) AS n"
            ),
            known,
        )


def sweeps(site: Deployment) -> int:
    """How often the lease of the sweep has been renewed."""
    with site.engine.store.read() as tx:
        return int(tx.execute(sa.text("SELECT token FROM durable_leases WHERE name = 'sweep'")).scalar_one())


def resident(pid: int) -> int:
    """Bytes of memory of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in (pid, *children)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")
