"""Bodies that burn CPU, hang, or end their process, in real workers."""

from __future__ import annotations

from pathlib import Path

import pytest
from eventually import eventually
from live_flows import dies, hangs, naps, spins
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable import Run
from durable.client import describe

pytestmark = pytest.mark.live


def described(folder: Path, database_url: str, broker_url: str, *options: str, **settings: str) -> Deployment:
    return Deployment(
        folder,
        database_url,
        broker_url,
        "live_app",
        "live_app:create_app()",
        {"DURABLE_RESEND_AFTER": "500ms", **settings},
        worker_options=options,
    )


def reason(site: Deployment, run: Run[None]) -> str:
    eventually(lambda: run.status == "blocked", 30, "the run is blocked")
    return str(describe.describe(site.engine, run.id)["error"])


def test_a_spinning_body_blocks_its_run_and_its_process_goes_on(tmp_path: Path) -> None:
    """The only child of a prefork worker: it stops the body, blocks the run, says why, and runs the next."""
    with new_database("sqlite", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        alone = ("--pool", "prefork", "--concurrency", "1")
        with deployed(described(tmp_path, database_url, broker_url, *alone, DURABLE_TURN_CPU_LIMIT="500ms")) as site:
            site.start_worker()
            run = site.engine.start(spins)
            told = reason(site, run)
            after = site.engine.start(naps, "10ms")

            assert after.result(timeout=20) == "awake"
            assert run.status == "blocked"
            assert "0.5 s of CPU time" in told
            assert "live_flows.py:" in told
            assert "exited" not in site.processes["worker"].tail()


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_body_that_kills_or_hangs_its_process_is_blocked_after_three_tries(broker: str, tmp_path: Path) -> None:
    """Under prefork: three children die, other runs go on meanwhile, and the worker lives; so with one that hangs."""
    with new_database("postgresql", tmp_path) as database_url:
        two = ("--pool", "prefork", "--concurrency", "2")
        with deployed(described(tmp_path, database_url, broker, *two, DURABLE_TURN_TIMEOUT="500ms")) as site:
            worker = site.start_worker()
            poison = [site.engine.start(dies), site.engine.start(hangs)]
            others = [site.engine.start(naps, "300ms") for _ in range(5)]

            killed, hung = (reason(site, run) for run in poison)
            assert [run.result(timeout=20) for run in others] == ["awake"] * 5
            assert site.engine.start(naps, "10ms").result(timeout=20) == "awake"

            assert "3 times in a row (killed" in killed
            assert hung.count("hung, in ") == 3
            assert worker.running
            # Two copies of one message, the broker's and the sweep's, may be tried at once: they count once.
            # Of two children that end at once Celery reports one.
            assert worker.log.read_text().count("WorkerLostError: ") <= 4
