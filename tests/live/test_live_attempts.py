"""Attempts whose process is killed or hangs, in real workers: what is repeated, what is not, and what becomes free."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from eventually import eventually
from live_flows import books_it, hurries, pays
from processes import Deployment, deployed
from servers import new_broker, new_database

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One prefork worker with a single child: what does not free its slot is seen at once."""
    folder = tmp_path_factory.mktemp("attempts")
    with new_database("postgresql", folder) as database_url, new_broker("redis", folder) as broker_url:
        described = Deployment(
            folder,
            database_url,
            broker_url,
            "live_app",
            "live_app:create_app()",
            {"DURABLE_RESEND_AFTER": "1"},
            worker_options=("--pool", "prefork", "--concurrency", "1"),
        )
        with deployed(described) as made:
            made.start_worker()
            yield made


def pid_of(folder: Path, attempt: int) -> int:
    """The process that ran an attempt, once it has begun."""
    noted = folder / f"attempt-{attempt}"
    return int(eventually(lambda: noted.exists() and noted.read_text(), 20, f"attempt {attempt} has begun"))


def test_a_child_killed_in_an_at_most_once_step_blocks_the_run_until_it_is_resolved(site, tmp_path):
    """The body ran once; the reason says where; after `resolve` the run completes on the next child."""
    run = site.engine.start(pays, str(tmp_path))
    eventually((tmp_path / "paid").exists)
    with site.engine.store.read() as tx:
        pid = tx.execute(
            sa.text(
                "SELECT w.pid FROM durable_workers w JOIN durable_steps s ON s.worker_id = w.id WHERE s.run_id = :run"
            ),
            {"run": run.id},
        ).scalar_one()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: run.status == "blocked", 20, "the run is blocked")

    assert (tmp_path / "paid").read_text() == "paid\n"
    run.resolve(result="by transfer")
    assert run.result(timeout="20s") == "by transfer"
    assert (tmp_path / "paid").read_text() == "paid\n"


def test_a_transactional_step_that_is_killed_leaves_one_row(site, tmp_path):
    """Killed before its commit and about when it commits: result and row are both there, once."""
    with site.engine.store.begin() as tx:
        tx.execute(sa.text("CREATE TABLE live_ledger (id serial PRIMARY KEY, run text)"))
    run = site.engine.start(books_it, str(tmp_path))

    assert run.result(timeout="40s") in (2, 3)
    assert (tmp_path / "attempt-2").exists()
    with site.engine.store.read() as tx:
        count = tx.execute(sa.text("SELECT count(*) FROM live_ledger WHERE run = :run"), {"run": run.id}).scalar_one()
    assert count == 1


@pytest.mark.parametrize("how", ["asleep", "deaf"])
def test_a_step_that_takes_too_long_frees_its_slot(site, tmp_path, how):
    """Asleep, it is interrupted at its deadline in the same child; deaf, its child is killed a second later."""
    began = time.monotonic()
    run = site.engine.start(hurries, how, str(tmp_path))

    assert run.result(timeout="30s") == "attempt 2"
    assert time.monotonic() - began < 12
    same = pid_of(tmp_path, 1) == pid_of(tmp_path, 2)
    assert same == (how == "asleep")
    (retried,) = [event for event in run.events() if event.kind == "step_retrying"]
    assert "StepTimeout" in retried.error
