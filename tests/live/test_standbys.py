"""A PostgreSQL primary and its standby, of the test's own: what the doctor says, and a failover."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from celery import Celery
from eventually import eventually
from live_flows import many_short, naps
from processes import Deployment, deployed
from servers import absent, new_broker

from chaos.servers import PostgreSQL, find_program
from durable import Durable, doctor

pytestmark = pytest.mark.live


class Standby(PostgreSQL):
    """A copy of a primary, which follows it."""

    name = "standby"

    def __init__(self, folder: Path, primary: PostgreSQL) -> None:
        super().__init__(folder)
        shutil.rmtree(self._data)
        source = f"postgresql://postgres@127.0.0.1:{primary.port}/?application_name=standby"
        found = find_program("pg_basebackup")
        if found is None:
            absent("pg_basebackup", "it is not installed")
        copy = [found, "-D", str(self._data), "-R", "--no-sync", "-c", "fast", "-d", source]
        if self._launch(copy, self._user).wait(60):
            raise RuntimeError((self.folder / "log").read_text())

    def promote(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")


@pytest.fixture
def pair() -> Iterator[tuple[PostgreSQL, Standby]]:
    """A primary and a standby that follows it."""
    with tempfile.TemporaryDirectory(prefix="durable-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        primary = PostgreSQL(folder)
        with running(primary):
            standby = Standby(folder, primary)
            with running(standby):
                eventually(lambda: ask(primary, "SELECT state FROM pg_stat_replication") == "streaming")
                yield primary, standby


@contextmanager
def running(server: PostgreSQL) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.stop(signal.SIGKILL)


def ask(server: PostgreSQL, query: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return row and row[0]


def wait_for_standby(primary: PostgreSQL) -> None:
    """Have the primary's commits wait for its standby."""
    with psycopg.connect(primary.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        connection.execute("SELECT pg_reload_conf()")
    eventually(lambda: ask(primary, "SELECT sync_state FROM pg_stat_replication") == "sync")


def test_the_doctor_warns_of_standbys_that_no_commit_waits_for(pair):
    """It is advice, and gone once the primary waits."""
    primary, _ = pair
    celery = Celery("standbys", broker="memory://")
    celery.conf.worker_enable_remote_control = False
    with closing(Durable(celery, database_url=primary.url)) as engine:
        engine.migrate()

        def said() -> tuple[bool, str]:
            (found,) = [each for each in doctor.examine(engine) if each.name == "standbys"]
            return found.ok, found.fix

        ok, fix = said()
        assert ok
        assert "Set synchronous_standby_names" in fix
        wait_for_standby(primary)
        assert said() == (True, "")


def test_runs_go_on_with_the_promoted_synchronous_standby(tmp_path, pair):
    """The primary is killed amid runs: all of them end, each step once in the log, through a URL with both hosts."""
    primary, standby = pair
    wait_for_standby(primary)
    hosts = f"host=127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = f"postgresql+psycopg://postgres@/postgres?{hosts.replace(',', '&host=')}&target_session_attrs=read-write"
    with new_broker("redis", tmp_path) as broker_url:
        described = Deployment(tmp_path, url, broker_url, "live_app", "", {"DURABLE_RESEND_AFTER": "1"})
        with deployed(described) as site:
            worker = site.start_worker()
            runs = [site.engine.start(many_short, 10) for _ in range(10)]
            sleeps = [site.engine.start(naps, "5s") for _ in range(5)]
            eventually(lambda: any(run.status == "completed" for run in runs), 60, "one run has ended")

            primary.stop(signal.SIGKILL)
            standby.promote()

            site.engine.store.close()
            assert [run.result(timeout="60s") for run in runs] == [10] * 10
            assert [run.result(timeout="60s") for run in sleeps] == ["awake"] * 5
            for run in runs:
                assert [event.kind for event in run.events()].count("step_completed") == 10
            assert worker.running
