"""Child runs and attributes with real workers: nobody holds a worker while waiting, and others see at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eventually import eventually
from live_flows import fibonacci, tells_how_far
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable.client import describe

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One worker with a single process for the runs, and one for a queue of its own."""
    folder = tmp_path_factory.mktemp("children")
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(folder, database_url, broker_url, "live_app", "live_app:create_app()")
        with deployed(described) as made:
            made.start_worker("runs", "--pool", "prefork", "--concurrency", "1", ready=False)
            made.start_worker("gated", "--pool", "prefork", "--concurrency", "1", "-Q", "gated", ready=False)
            made.wait_for("runs", "gated")
            yield made


def test_c73_recursive_children_do_not_run_out_of_workers(site):
    """Fibonacci(7), 41 runs that wait for each other, on one worker with one process."""
    run = site.engine.start(fibonacci, 7)

    assert run.result(timeout=60) == 13


def test_c75_what_a_step_sets_is_seen_while_it_runs(site, tmp_path):
    """The run is found by it before the step has ended."""
    run = site.engine.start(tells_how_far, str(tmp_path))
    eventually(lambda: run.attributes == {"phase": "working"}, 10, "the attribute is there")
    found = describe.list_runs(site.engine, attributes={"phase": "working"})

    assert [row["id"] for row in found] == [run.id]
    assert run.status == "running"
    (tmp_path / "open").touch()
    assert run.result(timeout=20) == "done"
    assert run.attributes == {"phase": "done"}
