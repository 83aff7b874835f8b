"""One application with two databases: the program of examples/shards/, with a web process and a worker for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from eventually import eventually
from processes import ROOT, Deployment, deployed, fetch, post_json
from servers import new_broker, new_database

from durable import Durable

pytestmark = pytest.mark.live

NAMES = ("north", "south")
#: A customer of each database, by the checksum of the name.
CUSTOMERS = {"north": "al", "south": "bo"}


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[dict[str, str]]:
    with new_database("postgresql", tmp_path) as north, new_database("postgresql", tmp_path) as south:
        yield dict(zip(NAMES, (north, south), strict=True))


@pytest.fixture
def site(databases: dict[str, str], tmp_path: Path) -> Iterator[Deployment]:
    """The web process and both workers."""
    with new_broker("redis", tmp_path) as broker_url:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "examples" / "shards")])
        settings = {f"{name.upper()}_DATABASE_URL": url for name, url in databases.items()}
        made = Deployment(
            tmp_path,
            databases["north"],
            broker_url,
            "shards:north",
            "shards:create_app()",
            {"PYTHONPATH": paths, **settings},
            ("--concurrency", "1"),
        )
        made.settings = {**made.settings, "SHOP_URL": made.url}
        other = Durable(Celery("observer"), database_url=databases["south"], broker_url=broker_url)
        other.migrate()
        other.celery.close()
        other.close()
        with deployed(made):
            made.start_worker("worker-north", app="shards:north")
            made.start_worker("worker-south", app="shards:south", ready=False)
            made.start_web(ready=False)
            eventually(lambda: is_healthy(f"{made.url}/north") and is_healthy(f"{made.url}/south"), 60)
            yield made


def is_healthy(url: str) -> bool:
    """Whether a blueprint answers; not so while its server is being started."""
    try:
        return fetch("GET", f"{url}/.well-known/workflow/v1/health").status == 200
    except OSError:
        return False


def ids_of_runs(url: str) -> list[str]:
    """The ids of all runs of a database."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as tx:
        return list(tx.execute(sa.text("SELECT id FROM durable_runs")).scalars())


def test_each_customer_s_run_and_webhook_are_those_of_one_database(site, databases):
    """The URL of a webhook leads to the database that has its run, and each worker runs the steps of its own."""
    for name, customer in CUSTOMERS.items():
        placed = fetch("POST", f"{site.url}/customers/{customer}/orders").json()
        page = f"{site.url}/customers/{customer}/orders/{placed['run_id']}"
        (url,) = eventually(lambda page=page: fetch("GET", page).json()["webhooks"], 60)

        assert placed["shard"] == name
        assert url.startswith(f"{site.url}/{name}/")
        assert post_json(url, {"state": "paid"}).json() == {"received": True}
        ended = eventually(lambda page=page: fetch("GET", page).json()["result"])
        assert ended == f"{customer}: paid"
        assert ids_of_runs(databases[name]) == [placed["run_id"]]
