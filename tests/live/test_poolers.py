"""PostgreSQL behind a real PgBouncer in transaction mode, which keeps no prepared statements."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from eventually import eventually
from live_flows import deadline, fibonacci, many_short
from processes import Deployment, deployed, fetch
from servers import OwnPgBouncer, new_broker, new_database

from durable import Durable, doctor
from durable.store import Store, is_unavailable

pytestmark = pytest.mark.live


@pytest.fixture
def database_url(tmp_path: Path) -> Iterator[str]:
    with new_database("postgresql", tmp_path) as url:
        yield url


@pytest.fixture
def pooler(tmp_path: Path) -> Iterator[OwnPgBouncer]:
    with OwnPgBouncer(tmp_path) as made:
        yield made


def prepared_in(store: Store) -> int:
    """How many statements the sessions behind this store's connection have prepared."""
    with store.read() as tx:
        return int(tx.execute(sa.text("SELECT count(*) FROM pg_prepared_statements")).scalar_one())


def ask_often(store: Store) -> None:
    """The same statement, more often than psycopg waits before it prepares one."""
    for _ in range(20):
        with store.read() as tx:
            tx.execute(sa.text("SELECT 1 + 1"))


def test_the_doctor_tells_of_a_pooler(database_url, pooler):
    """It is no fault."""
    celery = Celery("pooled", broker="memory://")
    celery.conf.worker_enable_remote_control = False
    with closing(Durable(celery, database_url=pooler.url(database_url))) as engine:
        engine.migrate()
        found = next(each for each in doctor.examine(engine) if each.name == "database")

    assert found.ok
    assert "behind a pooler" in found.detail
    assert "DURABLE_PREPARED_STATEMENTS" in found.fix


@pytest.mark.parametrize(
    ("query", "setting", "prepares"),
    [
        ("", "auto", True),
        ("", "on", True),
        ("", "off", False),
        ("?prepare_threshold=3", "off", True),
        ("?prepare_threshold=none", "on", False),
    ],
)
def test_a_direct_connection_prepares_unless_it_is_told_not_to(database_url, query, setting, prepares):
    """The URL counts more than the setting."""
    store = Store(database_url + query, 1, setting)
    ask_often(store)

    assert (prepared_in(store) > 0) == prepares
    assert store.preparing.is_off != prepares
    assert store.preparing.has_pooler is False
    store.close()


def test_a_pooler_is_found_and_nothing_is_prepared(database_url, pooler, caplog):
    """It is said once, with the setting to choose."""
    caplog.set_level("INFO")
    store = Store(pooler.url(database_url), 5)
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda _: ask_often(store), range(5)))

    assert prepared_in(store) == 0
    assert (store.preparing.has_pooler, store.preparing.is_off) == (True, True)
    assert caplog.text.count("DURABLE_PREPARED_STATEMENTS") == 1
    store.close()


def test_the_first_statement_that_was_lost_switches_preparing_off(database_url, pooler, caplog):
    """Where the setting says on, and the pooler keeps none: the error is one of an outage, and there is no second."""
    store = Store(pooler.url(database_url), 5, "on")
    errors = []

    def ask(number: int) -> None:
        try:
            for _ in range(20):
                with store.read() as tx:
                    tx.execute(sa.text(f"SELECT {number} + 1"))
        except sa.exc.DBAPIError as error:
            errors.append(error)

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(ask, range(5)))
        assert errors
        assert all(map(is_unavailable, errors))
        errors.clear()
        list(threads.map(ask, range(5)))

    assert errors == []
    assert "A prepared statement was lost" in caplog.text
    store.close()


def test_runs_go_on_behind_a_pooler_that_restarts(tmp_path, database_url, pooler):
    """Runs end as they should; while it is away, a sender gets 503, and afterwards the answer."""
    # The observer asks the database itself, since a cut connection raises in the process that asks.
    settings = {"DURABLE_RESEND_AFTER": "1", "DURABLE_DATABASE_URL": pooler.url(database_url)}
    with new_broker("redis", tmp_path) as broker_url:
        described = Deployment(tmp_path, database_url, broker_url, "live_app", "live_app:create_app()", settings)
        with deployed(described) as site:
            worker = site.start_worker()
            site.start_web()
            waiting = site.engine.start(deadline, "60s")
            hooks = eventually(waiting.hooks, what="the webhook is open")
            runs = [site.engine.start(many_short, 20) for _ in range(20)]
            tree = site.engine.start(fibonacci, 6)

            pooler.kill()
            refused = fetch("POST", hooks[0]["url"], b"while it is away")
            pooler.start()

            assert (refused.status, refused.headers["Retry-After"] is not None) == (503, True)
            assert [run.result(timeout="60s") for run in runs] == [20] * 20
            assert tree.result(timeout="60s") == 8
            assert fetch("POST", hooks[0]["url"], b"here").data == b"answer to here"
            assert waiting.result(timeout="20s") == {"status": "verified", "body": "here"}
            log = worker.log.read_text()
            assert "was lost" not in log
            assert "Traceback" not in log
