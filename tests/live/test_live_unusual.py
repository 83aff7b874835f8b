"""What steps and workflows may raise, in real workers of each pool: it is an outcome, and the worker lives on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from processes import Deployment, deployed
from registries import own_definitions
from servers import new_broker, new_database

from durable import RunFailed, codec

pytestmark = [pytest.mark.live, pytest.mark.untimed]

ERRORS = ["Odd", "BaseExceptionGroup", "Timeout", "SystemExit", "KeyboardInterrupt", "ValueError"]


@pytest.fixture(scope="module")
def flows() -> Iterator[Any]:
    """The workflows, forgotten afterwards: a shared task would become one of every app of this process."""
    with own_definitions():
        yield importlib.import_module("unusual_flows")


@pytest.fixture(scope="module", params=["prefork", "solo", "threads"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flows: Any) -> Iterator[Deployment]:
    """One worker."""
    folder = tmp_path_factory.mktemp(request.param)
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(
            folder,
            database_url,
            broker_url,
            "unusual_app",
            "",
            {"DURABLE_RESEND_AFTER": "1"},
            worker_options=("--pool", request.param, "--concurrency", "4"),
        )
        with deployed(described) as made:
            made.start_worker()
            yield made


@pytest.mark.parametrize("kind", ["def", "async def", "adopted"])
def test_whatever_a_step_raises_is_recorded_once(site, flows, tmp_path, kind):
    """Also where a filter of the application's raises on each record with an exception; the worker lives on."""
    runs = {how: site.engine.start(flows.fails, kind, str(tmp_path), how) for how in ERRORS}

    for how, run in runs.items():
        with pytest.raises(RunFailed):
            run.result(timeout=30)
        (event,) = [event for event in run.events() if event.kind == "step_failed"]
        assert codec.error_summary(event.error).error_type == how
        assert "in raise_it" in codec.error_summary(event.error).traceback
        assert (tmp_path / how).read_text() == "1\n"
    assert site.processes["worker"].running


def test_whatever_a_workflow_raises_fails_its_run(site, flows):
    """With the error and the author's line, in the process that drove the run, which lives on."""
    before = {worker.pid for worker in site.workers()}
    runs = {how: site.engine.start(flows.fails_itself, how) for how in ERRORS}

    for how, run in runs.items():
        with pytest.raises(RunFailed) as failed:
            run.result(timeout=30)
        assert failed.value.error_type == how
        assert "in raise_it" in failed.value.traceback
    assert before <= {worker.pid for worker in site.workers()}


def test_async_steps_see_their_celery_task(site, flows):
    """As `def` steps do, each its own, also where several run at once."""
    run = site.engine.start(flows.asks_which)
    (own, *others) = run.result(timeout=30)

    assert own[0] == flows.which_task.name
    assert {name for name, _ in others} == {flows.which_task_async.name}
    assert len({task_id for _, task_id in [own, *others]}) == 7
