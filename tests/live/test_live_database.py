"""A database that takes no writes for a while, under running processes: nobody has to restart them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from eventually import eventually
from live_flows import answers_late, naps
from processes import Deployment, deployed, fetch
from servers import ADMIN, new_broker, new_database

from durable import Run, resume_hook

pytestmark = pytest.mark.live


@contextmanager
def read_only(site: Deployment) -> Iterator[None]:
    """As a provider does it when the disk is full: a setting of the database, and all sessions are ended."""
    name = site.engine.store.url.database
    admin = sa.create_engine(ADMIN["postgresql"], isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        yield
        # Sessions that have begun meanwhile go on, and stay read-only.
        connection.exec_driver_sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def test_processes_go_on_after_their_database_was_read_only(tmp_path: Path) -> None:
    """Senders get 503 meanwhile, starts the database's error; then what was due, and what comes, is done."""
    with new_database("postgresql", tmp_path) as database_url, new_broker("redis", tmp_path) as broker_url:
        described = Deployment(tmp_path, database_url, broker_url, "live_app", "live_app:create_app()")
        with deployed(described) as site:
            worker, web = site.start_worker(ready=False), site.start_web(ready=False)
            site.wait_for("worker", "web")
            waits = site.engine.start(answers_late, "go")
            url = url_of(waits)
            sleeps = site.engine.start(naps, "2s")
            eventually(lambda: sleeps.status == "running", 20, "the sleep has begun")

            with read_only(site):
                site.engine.store.close()
                refused = fetch("POST", url, b"now?")
                with pytest.raises(sa.exc.DBAPIError, match="read-only transaction"):
                    site.engine.start(naps, "1ms")
                eventually(lambda: "The database cannot be used now" in worker.tail(), 20, "the worker has noticed")
                assert sleeps.status == "running"

            assert (refused.status, bool(refused.headers["Retry-After"])) == (503, True)
            assert sleeps.result(timeout="20s") == "awake"
            assert fetch("POST", url, b"now").status == 202
            # A session that was begun meanwhile is refused once more, and then replaced.
            with suppress(sa.exc.DBAPIError):
                resume_hook("go", None)
            resume_hook("go", None, wait="10s")
            assert waits.result(timeout="10s") == "now"
            assert worker.running
            assert web.running


def url_of(run: Run[str]) -> str:
    return str(eventually(run.hooks, 20, "the webhook is open")[0]["url"])
