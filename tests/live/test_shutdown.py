"""SIGTERM with Celery's soft shutdown, and signals that hit less than a whole worker: what ran goes on elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import works
from processes import Deployment, Process, deployed
from servers import new_broker, new_database

from durable.events import StepRetrying

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two workers of one child each, which SIGTERM gives a second to come to an end."""
    folder = tmp_path_factory.mktemp(request.param)
    with new_database("postgresql", folder) as database_url, new_broker(request.param, folder) as broker_url:
        described = Deployment(
            folder,
            database_url,
            broker_url,
            "live_app",
            "live_app:create_app()",
            {
                "REMAP_SIGTERM": "SIGQUIT",
                "SOFT_SHUTDOWN": "1",
                # Each attempt by a message of its own: what becomes of that message is the matter here.
                "DURABLE_CONTINUATION": "0",
                "DURABLE_DEAD_AFTER": "2",
                "DURABLE_BEAT_INTERVAL": "500ms",
            },
            worker_options=("--pool", "prefork", "--concurrency", "1", "--prefetch-multiplier", "1"),
        )
        with deployed(described) as made:
            yield made


@pytest.fixture
def two(site: Deployment) -> Deployment:
    for name in {"one", "two"} - set(site.processes):
        site.start_worker(name, ready=False)
    site.wait_for("one", "two")
    return site


def notes(folder: Path, name: str) -> list[tuple[int, int]]:
    """What a step has noted: attempt and pid."""
    path = folder / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(attempt), int(pid)) for attempt, pid in (line.split() for line in lines)]


def begun(folder: Path, times: int = 1) -> tuple[int, int]:
    """The latest beginning, once there are so many."""
    eventually(lambda: len(notes(folder, "begun")) >= times, 20, f"{times} attempts have begun")
    return notes(folder, "begun")[-1]


def worker_of(site: Deployment, pid: int) -> Process:
    """The worker that has this child."""
    return next(each for each in site.processes.values() if each.popen.pid == os.getpgid(pid))


def test_what_a_soft_shutdown_interrupts_runs_elsewhere_uncounted(two, tmp_path):
    """The worker releases the attempt when its time is over; the other worker begins the same attempt within 3 s."""
    run = two.engine.start(works, str(tmp_path), 60)
    attempt, pid = begun(tmp_path)
    worker = worker_of(two, pid)

    asked = time.monotonic()
    worker.popen.send_signal(signal.SIGTERM)
    other_attempt, other = begun(tmp_path, 2)
    took = time.monotonic() - asked

    assert (attempt, other_attempt) == (1, 1)
    assert other != pid
    assert 1 <= took < 1 + 3
    two.stop(worker.name, signal.SIGTERM)
    (tmp_path / "open").touch()
    assert run.result(timeout="10s") == other
    assert not [event for event in run.events() if isinstance(event, StepRetrying)]
    assert notes(tmp_path, "ended") == [(1, other)]


def test_what_ends_within_a_soft_shutdown_is_recorded(two, tmp_path):
    """It runs once, and the run goes on with its result."""
    run = two.engine.start(works, str(tmp_path), 0.6)
    _, pid = begun(tmp_path)
    two.stop(worker_of(two, pid).name, signal.SIGTERM)

    assert run.result(timeout="10s") == pid
    assert notes(tmp_path, "begun") == notes(tmp_path, "ended") == [(1, pid)]


def test_a_killed_child_costs_its_attempt_and_the_next_begins_at_once(two, tmp_path):
    """SIGKILL to the child alone, as by the kernel when memory is short: the next attempt begins within 2 s."""
    run = two.engine.start(works, str(tmp_path), 60)
    attempt, pid = begun(tmp_path)

    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    next_attempt, other = begun(tmp_path, 2)
    took = time.monotonic() - killed

    assert (attempt, next_attempt) == (1, 2)
    assert took < 2
    (tmp_path / "open").touch()
    assert run.result(timeout="10s") == other
    (lost,) = [event for event in run.events() if isinstance(event, StepRetrying)]
    assert "WorkerLost" in lost.error
    assert lost.worker == f"{socket.gethostname()}:{pid}"


def test_a_worker_that_wakes_up_after_its_lease_records_nothing(two, tmp_path):
    """Paused for longer than dead_after: its attempt is given up and done elsewhere, and its own outcome refused."""
    run = two.engine.start(works, str(tmp_path), 60)
    _, pid = begun(tmp_path)
    paused = worker_of(two, pid)

    os.killpg(paused.popen.pid, signal.SIGSTOP)
    try:
        attempt, other = begun(tmp_path, 2)
        (tmp_path / "open").touch()
        assert run.result(timeout="10s") == other
        before = run.events()
    finally:
        os.killpg(paused.popen.pid, signal.SIGCONT)
    eventually(lambda: "its outcome is not recorded" in paused.log.read_text(), 10, "the outcome is refused")

    assert attempt == 2
    assert {pid, other} == {each for _, each in notes(tmp_path, "ended")}
    assert run.events() == before
    # It lives, and is one of the workers again.
    eventually(lambda: pid in {worker.pid for worker in two.workers()}, 10, "it beats again")
