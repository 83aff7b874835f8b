"""DURABLE_FAILPOINTS in real processes: a worker crashes at a named place, a message is lost; the run goes on."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import noted
from pools import own_flows
from processes import Deployment, deployed
from servers import new_broker, new_database

pytestmark = pytest.mark.live


@pytest.fixture
def settings() -> dict[str, str]:
    """What the processes find in their environment; a test may change it between two starts."""
    return {"DURABLE_RESEND_AFTER": "1"}


@pytest.fixture
def site(settings: dict[str, str], tmp_path: Path) -> Iterator[Deployment]:
    """A deployment without processes, whose workers run everything in one process."""
    with new_database("sqlite", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        described = Deployment(
            tmp_path, database_url, broker_url, "live_app", "", settings, worker_options=("--pool", "solo")
        )
        with deployed(described) as made:
            yield made


def test_a_worker_crashes_where_it_is_told_to(site, settings):
    """Killed between a step's function and its record, a worker leaves an attempt that the next worker runs again."""
    settings["DURABLE_FAILPOINTS"] = "step.finished=crash@1"
    worker = site.start_worker()
    run = site.engine.start(noted, "heard")

    eventually(lambda: not worker.running, 20, "the worker has crashed")
    assert worker.popen.returncode == -signal.SIGKILL
    assert "failpoint step.finished, hit 1: crash" in worker.tail()
    del settings["DURABLE_FAILPOINTS"]
    site.start_worker("second")

    assert run.result(timeout=20) == "heard"
    assert [event.kind for event in run.events()].count("step_retrying") == 1


def test_a_lost_message_is_sent_again(site, settings):
    """The message of a step that its sender believes sent is sent again by the sweep, without a second attempt."""
    settings["DURABLE_FAILPOINTS"] = "publish.step=lose@1"
    settings["DURABLE_CONTINUATION"] = "0"
    worker = site.start_worker()
    run = site.engine.start(noted, "heard")

    assert run.result(timeout=20) == "heard"
    assert "failpoint publish.step, hit 1: lose" in worker.tail()
    assert "step_retrying" not in [event.kind for event in run.events()]


@pytest.mark.parametrize(
    ("failpoint", "is_started"),
    [
        ("commit.before=crash@1", False),
        ("start.committed=crash@1", True),
        ("publish.step=crash@1", True),
        ("publish.step=lose@1", True),
    ],
    ids=lambda value: str(value).partition("@")[0],
)
def test_a_starter_is_killed_while_it_takes_the_first_turn(site, settings, failpoint, is_started):
    """Either nothing of the run is there, and the same start begins it; or its first step runs in any case."""
    site.start_worker()
    settings |= {"DURABLE_FIRST_TURN_BUDGET": "5", "DURABLE_FAILPOINTS": failpoint}
    starter = site.start_program("starter", "starting_app", "killed")
    eventually(lambda: not starter.running, 20, "the starter has ended")
    assert starter.popen.returncode == (-signal.SIGKILL if "crash" in failpoint else 0), starter.tail()
    del settings["DURABLE_FAILPOINTS"]

    run = site.engine.get_run("killed")
    assert run.exists == is_started
    if not is_started:
        again = site.start_program("again", "starting_app", "killed")
        eventually(lambda: not again.running, 20, "the second starter has ended")

    assert run.result(timeout=20) == "heard"
    kinds = [event.kind for event in run.events()]
    assert kinds == ["run_created", "run_started", "step_created", "step_completed", "run_completed"]


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("step.recorded=crash@1", id="retry"),
        pytest.param("publish.drive=crash@3", id="last-attempt"),
        pytest.param("publish.drive=crash@4", id="adopted-task"),
    ],
)
def test_a_worker_crashes_after_it_has_recorded_a_failure(site, settings, tmp_path, point):
    """Celery sends no turn after a failure; a worker that is killed before it sends one itself loses nothing."""
    settings |= {"DURABLE_CONTINUATION": "0", "DURABLE_FAILPOINTS": point, "OBSERVED": str(tmp_path / "observed")}
    with own_flows("observed_flows") as flows:
        worker = site.start_worker(app="observed_app")
        run = site.engine.start(flows.orders, "A-1")

        eventually(lambda: not worker.running, 40, "the worker has crashed")
        assert worker.popen.returncode == -signal.SIGKILL
        recorded = Counter(event.kind.value for event in run.events())
        del settings["DURABLE_FAILPOINTS"]
        site.start_worker("second", app="observed_app")

        assert run.result(timeout=60) == "A-1 again"
        kinds = Counter(event.kind.value for event in run.events())
        assert recorded["run_completed"] == 0
        # As often as without a crash: what was recorded is not run again.
        assert (kinds["step_retrying"], kinds["step_failed"], kinds["step_completed"]) == (3, 2, 2)


@pytest.mark.parametrize(
    ("point", "most_again"),
    [
        pytest.param("turn.read=crash@1", 0, id="before-runs-begin-together"),
        pytest.param("turn.committed=crash@1", 4, id="after-the-first-has-begun"),
        pytest.param("turn.committed=crash@4", 4, id="after-all-have-begun"),
        pytest.param("step.finished=crash@30", 8, id="while-outcomes-are-gathered"),
    ],
)
def test_a_worker_crashes_while_it_has_several_runs_in_hand(site, settings, point, most_again):
    """Every run ends, and no more steps run again than the worker had claimed, or had ended and not recorded."""
    settings["DURABLE_FAILPOINTS"] = point
    worker = site.start_worker()
    runs = site.engine.start_many(noted, [(f"run {number}",) for number in range(64)])

    eventually(lambda: not worker.running, 40, "the worker has crashed")
    assert worker.popen.returncode == -signal.SIGKILL
    del settings["DURABLE_FAILPOINTS"]
    site.start_worker("second")

    assert [run.result(timeout=60) for run in runs] == [f"run {number}" for number in range(64)]
    kinds = Counter(event.kind.value for run in runs for event in run.events())
    assert kinds["step_retrying"] <= most_again
    assert kinds["step_completed"] == kinds["step_created"] == 64
