"""A team's existing Celery tasks as steps, on real workers: queues, retries, application contexts, kills."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from eventually import eventually
from processes import Deployment, deployed
from registries import own_definitions
from servers import new_broker, new_database

from durable import Run, RunFailed, StepFailed

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def flows() -> Iterator[Any]:
    """The workflows, forgotten afterwards: shared tasks would become tasks of every app of this process."""
    with own_definitions():
        yield importlib.import_module("adopted_flows")


@pytest.fixture(scope="module", params=["postgresql-redis-prefork", "sqlite-rabbitmq-threads"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flows: Any) -> Iterator[Deployment]:
    """A worker for the default queue and the tasks' own, and no web process."""
    database, broker, pool = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    with new_database(database, folder) as database_url, new_broker(broker, folder) as broker_url:
        described = Deployment(
            folder,
            database_url,
            broker_url,
            "adopted_app",
            "",
            {"DURABLE_RESEND_AFTER": "1"},
            worker_options=("--pool", pool, "--concurrency", "2", "-Q", "celery,ledger"),
        )
        with deployed(described) as made:
            made.start_worker()
            yield made


def steps_of(run: Run[Any]) -> list[str]:
    return [event.kind for event in run.events() if event.kind.startswith("step_")]


def test_tasks_run_as_they_did(site, flows, tmp_path):
    """Their own retries, their own queue, their application context; results are the workflow's."""
    run = site.engine.start(flows.sells, "o-1", str(tmp_path))

    assert run.result(timeout=30) == [
        {"order": "o-1", "cents": 1200, "retries": 2},
        {"line": "one", "queue": "ledger", "shop": "shop"},
        {"line": "two", "queue": "ledger", "shop": "shop"},
    ]
    assert steps_of(run)[:4] == ["step_created", "step_retrying", "step_retrying", "step_completed"]


def test_other_callers_call_on(site, flows, tmp_path):
    """A message with arguments, as `.delay()` sends it, runs the task beside the runs."""
    site.engine.celery.send_task("adopted_flows.book", (str(tmp_path), "by hand"), queue="ledger")

    eventually((tmp_path / "by hand").exists)


def test_a_task_that_asks_to_come_again_does(site, flows, tmp_path):
    """`self.retry(countdown=…)` without an end goes on until the task is content."""
    run = site.engine.start(flows.asks, str(tmp_path))
    eventually((tmp_path / "asked").exists)
    eventually(lambda: "step_retrying" in steps_of(run))
    (tmp_path / "answer").touch()

    assert run.result(timeout=20) == steps_of(run).count("step_retrying") >= 1


@pytest.mark.parametrize(
    ("how", "said"),
    [("Ignore", "Ignore: .*nobody at home"), ("Reject", "Reject: .*wrong address"), ("replace", "Ignore: .*Replaced")],
)
def test_a_task_without_an_outcome_fails_its_step(site, flows, tmp_path, how, said):
    """The run learns which of Celery's ways it took."""
    run = site.engine.start(flows.is_refused, how, str(tmp_path))

    with pytest.raises(RunFailed, match=said) as raised:
        run.result(timeout=20)
    assert isinstance(raised.value.__cause__, StepFailed)
    assert steps_of(run) == ["step_created", "step_failed"]


@pytest.mark.parametrize("acks", ["early", "late"])
def test_a_task_whose_worker_is_killed_is_run_again(site, flows, tmp_path, acks):
    """kill -9 amid the task, whose message is gone or comes again: the next attempt's result is recorded, once."""
    run = site.engine.start(flows.holds, str(tmp_path), acks)
    eventually((tmp_path / "begun").exists)
    site.stop("worker", signal.SIGKILL)
    (tmp_path / "begun").unlink()
    site.start_worker()

    eventually((tmp_path / "begun").exists, 30)
    (tmp_path / "open").touch()

    assert run.result(timeout=30) == "held"
    assert steps_of(run) == ["step_created", "step_retrying", "step_completed"]
    assert [event.attempt for event in run.events() if event.kind == "step_completed"] == [2]
