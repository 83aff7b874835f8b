"""``durable health`` tells a probe whether the database, or the worker of this host, is well."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery

from durable import Durable
from durable.doctor import health
from durable.engine import identify
from durable.store import schema, workers


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Durable]:
    """An engine with a database of its own, on which no worker has been."""
    celery = Celery(f"health-{secrets.token_hex(4)}", broker="memory://")
    made = Durable(celery, database_url=f"sqlite:///{tmp_path}/health.db")
    made.migrate()
    yield made
    made.close()


def beat(engine: Durable, **changes: Any) -> None:
    """Let a worker process of this host have sent a heartbeat just now, but for *changes*."""
    row = {"id": "one", "started_at": 0, "beat_at": 0, "names": "[]", **asdict(identify())}
    with engine.store.begin() as tx:
        workers.beat(tx, replace(workers.Worker(**row)), engine.store.sql_now)
        if changes:
            tx.execute(sa.update(schema.workers).values(**changes))


def test_a_process_that_beats_is_well(here):
    beat(here)
    assert health.of_worker(here).ok


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beat_at": 1}, "has sent a heartbeat for 10s"),
        ({"host": "elsewhere"}, "has sent a heartbeat for 10s"),
        ({"deaf_since": 1}, "takes no messages"),
    ],
    ids=["silent", "of another host", "deaf"],
)
def test_a_worker_that_does_no_work_is_unwell(here, changes, said):
    """Silent for ``dead_after``, of another host, or deaf."""
    beat(here, **changes)

    found = health.of_worker(here)
    assert (found.ok, said in found.detail) == (False, True), found.detail


def test_a_worker_is_well_while_the_database_is_away():
    """A restart would not help."""
    celery = Celery(f"health-{secrets.token_hex(4)}", broker="memory://")
    away = Durable(celery, database_url="postgresql+psycopg://postgres@127.0.0.1:1/none")
    found = health.of_worker(away)
    away.close()

    assert found.ok
    assert found.detail.startswith("not known: the database is away (")
    assert not health.of_database(away).ok


def test_the_exit_code_is_what_a_probe_reads(yard):
    """0 when it is well, 1 when not, with the reason."""
    assert yard.durable("health").returncode == 0
    asked = yard.durable("health", "--worker", "--json")
    assert asked.returncode == 1
    assert json.loads(asked.stdout)["ok"] is False
