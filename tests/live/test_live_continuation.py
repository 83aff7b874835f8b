"""A worker that goes on with its run: what an observer of Celery sees, and what a crash in the middle leaves."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventually import eventually
from live_flows import counts, dies_after_a_step, wide
from processes import Deployment, deployed
from servers import new_broker, new_database
from task_events import events_of

pytestmark = pytest.mark.live

STEP = "live_flows.count_on"


@pytest.fixture(scope="module")
def signalled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker's tasks note their signals."""
    return tmp_path_factory.mktemp("signals") / "noted"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, signalled: Path) -> Iterator[Deployment]:
    """One prefork worker that sends task events, and may go on with a run for a minute."""
    folder = tmp_path_factory.mktemp("continuation")
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        settings = {"DURABLE_CONTINUATION": "60", "NOTE_SIGNALS": str(signalled)}
        options = ("--pool", "prefork", "--concurrency", "2", "-E")
        described = Deployment(
            folder, database_url, broker_url, "live_app", "live_app:create_app()", settings, worker_options=options
        )
        with deployed(described) as made:
            made.start_worker()
            yield made


def test_no_outcome_of_a_large_fan_out_is_left_waiting(site):
    """Two children run the steps, whose outcomes wait for each other; none waits until the sweep finds it."""
    run = site.engine.start(wide, 100)
    assert run.result(timeout="30s") == 100

    ended = [event.at for event in run.events() if event.kind in ("step_completed", "run_completed")]
    assert max(later - earlier for earlier, later in itertools.pairwise(ended)) < 4_000_000


def test_steps_in_place_are_celery_tasks_to_an_observer(site, signalled):
    """Each fires its signals once, with a request of its own that is not eager, and sends its events."""
    with events_of(site) as heard:
        run = site.engine.start(counts, 5)
        assert run.result(timeout="20s") == 5
        succeeded = lambda: [e for e in heard if e["type"] == "task-succeeded" and e["uuid"].startswith(run.id)]  # noqa: E731
        eventually(lambda: len(succeeded()) == 5, 20, "each step has said that it succeeded")

    told = Counter((e["type"], e["uuid"]) for e in heard if str(e.get("uuid")).startswith(run.id))
    kinds = Counter(kind for kind, _ in told)
    assert kinds == {"task-received": 5, "task-started": 5, "task-succeeded": 5}
    assert set(told.values()) == {1}
    noted = [line.split() for line in signalled.read_text().splitlines()]
    mine = [line for line in noted if line[1] == STEP and line[2].startswith(run.id)]
    assert Counter(line[0] for line in mine) == {"task_prerun": 5, "task_postrun": 5, "task_success": 5}
    assert {line[3] for line in mine} == {"False"}
    # One after the other, none within another.
    assert [line[0] for line in mine[::3]] == ["task_prerun"] * 5


def test_steps_in_place_come_by_no_message(site):
    """The first turn's message takes the worker to the end: it is the only one there was."""
    run = site.engine.start(counts, 5)
    assert run.result(timeout="20s") == 5

    workers = {event.worker for event in run.events() if event.kind == "step_completed"}
    assert len(workers) == 1


def test_a_child_killed_in_a_step_in_place_is_found_at_once(site, tmp_path):
    """The carrying message comes again: the attempt that died is repeated, those before are not."""
    run = site.engine.start(counts, 4, str(tmp_path))

    assert run.result(timeout="20s") == 4
    told = Counter(event.kind for event in run.events())
    assert (told["step_completed"], told["step_retrying"]) == (4, 1)
    (retried,) = [event for event in run.events() if event.kind == "step_retrying"]
    assert "WorkerLost" in retried.error


def test_a_turn_that_kills_its_process_costs_the_step_before_it_nothing(site, tmp_path):
    """The outcome is lost with the first such turn, and safe from then on: it is the workflow that is blocked."""
    run = site.engine.start(dies_after_a_step, str(tmp_path))
    eventually(lambda: run.status in ("blocked", "failed"), 40, "the run has come to a stop")

    assert run.status == "blocked"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempt-1", "attempt-2"]
