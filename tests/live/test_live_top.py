"""What real workers report of themselves to ``durable top``, by pool."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from click.testing import CliRunner
from eventually import eventually
from live_flows import naps
from processes import Deployment, deployed
from servers import new_broker, new_database

from durable.cli import main

pytestmark = pytest.mark.live


@pytest.mark.parametrize(("pool", "shown"), [("prefork", "prefork"), ("threads", "thread"), ("solo", "solo")])
def test_a_worker_reports_its_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str, shown: str) -> None:
    """Each process that takes messages has a row with its pool and its queues."""
    with new_database("sqlite", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        options = ("--pool", pool, "--concurrency", "1")
        described = Deployment(
            tmp_path, database_url, broker_url, "live_app", "live_app:create_app()", {}, worker_options=options
        )
        with deployed(described) as site:
            site.start_worker()
            run = site.engine.start(naps, "1h")
            eventually(lambda: run.status == "running", what="the worker has had the turn")
            module = types.ModuleType("top_app")
            vars(module)["engine"] = site.engine
            monkeypatch.setitem(sys.modules, "top_app", module)
            printed = CliRunner().invoke(main, ["--app", "top_app", "top"], prog_name="durable").stdout

    (worker,) = site_rows(printed)
    assert worker[1:3] == [shown, "celery"]


def site_rows(printed: str) -> list[list[str]]:
    """The rows of the table of workers."""
    table = printed.partition("\nworkers\n")[2].partition("\n\n")[0]
    return [line.split() for line in table.splitlines()[1:]]
