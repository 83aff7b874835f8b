"""Databases whose settings cut, limit and reinterpret: runs end as they should; the doctor names what cannot work."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from live_flows import counts, fibonacci, many_short, naps
from processes import Deployment, Process, deployed
from servers import OwnMariaDB, new_broker, new_database

from durable import Durable, Run, doctor, migrations
from durable.store import Store, session_settings

pytestmark = pytest.mark.live


@contextmanager
def hostile_role(folder: Path, limit: int = -1, **settings: str) -> Iterator[tuple[str, sa.Engine]]:
    """The URL of a database for a role with these settings, whose tables are in a schema of its own; and an admin."""
    role = f"durable_hostile_{secrets.token_hex(4)}"
    with new_database("postgresql", folder) as url:
        owner = sa.make_url(url).set(drivername="postgresql+psycopg")
        admin = sa.create_engine(owner, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with admin.connect() as tx:
            tx.exec_driver_sql(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT {limit}")
            tx.exec_driver_sql(f"CREATE SCHEMA elsewhere AUTHORIZATION {role}")
            for name, value in {"search_path": "elsewhere", **settings}.items():
                tx.exec_driver_sql(f"ALTER ROLE {role} SET {name} = '{value}'")
        try:
            yield sa.make_url(url).set(username=role).render_as_string(hide_password=False), admin
        finally:
            with admin.connect() as tx:
                tx.exec_driver_sql(f"DROP OWNED BY {role} CASCADE")
                tx.exec_driver_sql(f"DROP ROLE {role}")


@contextmanager
def cut_each_second(admin: sa.Engine, url: str) -> Iterator[None]:
    """End all sessions of the URL's role once a second."""
    cut = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role")
    ending = threading.Event()

    def run() -> None:
        while not ending.wait(1):
            with admin.connect() as tx:
                tx.execute(cut, {"role": sa.make_url(url).username})

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def until_it_answers(ask: Callable[[], object]) -> object:
    """What *ask* returns, once its own connection was not the one that was cut."""
    for _ in range(100):
        with suppress(sa.exc.DBAPIError):
            return ask()
    raise AssertionError("the database has cut each of 100 connections")


def check_runs(site: Deployment) -> None:
    """Chains, sleeps, child runs and fan-outs end with the right results."""
    programs = [(counts, (8,), 8), (naps, ("300ms",), "awake"), (fibonacci, (4,), 3), (many_short, (30,), 30)]
    started: list[tuple[Run, object]] = []
    for number in range(8):
        function, args, result = programs[number % 4]
        # A start whose acknowledgement was cut is found by its key.
        keyed = function.with_options(idempotency_key=f"hostile-{number}")
        run = until_it_answers(lambda keyed=keyed, args=args: keyed.start(*args))
        started.append((run, result))  # type: ignore[arg-type]
    for run, result in started:
        assert until_it_answers(lambda run=run: run.result(timeout="60s")) == result
        repeated = until_it_answers(lambda run=run: [each for each in run.events() if each.kind == "step_retrying"])
        assert repeated == []


def errors_of(worker: Process) -> list[str]:
    """What a worker has logged as an error, but for SQLAlchemy's word that a session was cut as it was put back."""
    lines = worker.log.read_text().splitlines()
    return [line for line in lines if ": ERROR/" in line and "Exception during reset or similar" not in line]


def deployment(folder: Path, database_url: str, broker_url: str) -> Deployment:
    return Deployment(folder, database_url, broker_url, "live_app", "")


def examine(database_url: str, name: str) -> doctor.Finding:
    """The doctor's finding of that name; no worker is asked."""
    celery = Celery("hostile", broker="memory://", set_as_current=False)
    celery.conf.worker_enable_remote_control = False
    with closing(Durable(celery, database_url=database_url)) as engine:
        engine.migrate()
        return next(each for each in doctor.examine(engine) if each.name == name)


def test_runs_end_on_postgresql_that_times_out_and_cuts_every_session(tmp_path: Path) -> None:
    """Serializable, short timeouts, another schema, all sessions cut each second: and no attempt is repeated."""
    settings = {
        "default_transaction_isolation": "serializable",
        "statement_timeout": "2s",
        "lock_timeout": "500ms",
        "idle_in_transaction_session_timeout": "1s",
    }
    with (
        hostile_role(tmp_path, **settings) as (url, admin),
        new_broker("redis", tmp_path) as broker_url,
        deployed(deployment(tmp_path, url, broker_url)) as site,
    ):
        worker = site.start_worker()
        with cut_each_second(admin, url):
            check_runs(site)
        assert errors_of(worker) == []


def test_runs_end_on_mariadb_with_short_timeouts_and_ansi_quotes(tmp_path: Path) -> None:
    """And the doctor says that a packet of 1 MiB is too small."""
    options = (
        "--innodb-lock-wait-timeout=1",
        "--wait-timeout=5",
        "--max-allowed-packet=1M",
        "--sql-mode=ANSI,TRADITIONAL",
    )
    with OwnMariaDB(tmp_path, *options) as server, new_broker("redis", tmp_path) as broker_url:
        with deployed(deployment(tmp_path, server.url, broker_url)) as site:
            worker = site.start_worker()
            check_runs(site)
            assert errors_of(worker) == []
        found = examine(server.url, "settings")

    assert not found.ok
    assert "max_allowed_packet is 1048576 bytes" in found.detail


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, ""),
        ({"idle_in_transaction_session_timeout": "1s", "statement_timeout": "1s", "lock_timeout": "1ms"}, ""),
        ({"statement_timeout": "100ms"}, "statement_timeout is 100 ms"),
        ({"idle_in_transaction_session_timeout": "200ms"}, "idle_in_transaction_session_timeout is 200 ms"),
    ],
)
def test_the_doctor_names_a_setting_that_cannot_work(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    with hostile_role(tmp_path, **settings) as (url, _):
        found = examine(url, "settings")

    assert found.ok == (not named)
    assert named in found.detail


def test_a_migration_is_not_cut_by_the_timeouts_of_its_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it does nothing for three times as long as the role's sessions may be idle."""
    find_encoding = migrations.unfit_encoding

    def find_it_late(tx: sa.Connection) -> str | None:
        time.sleep(0.3)
        return find_encoding(tx)

    monkeypatch.setattr(migrations, "unfit_encoding", find_it_late)
    with (
        hostile_role(tmp_path, idle_in_transaction_session_timeout="100ms") as (url, _),
        closing(Store(url, 1)) as store,
        store.begin() as tx,
    ):
        assert not migrations.upgrade(tx)


def test_a_connection_limit_has_to_fit_the_worker_processes(tmp_path: Path) -> None:
    """Two connections for each: five are enough for two processes, and not for three."""
    with hostile_role(tmp_path, limit=5) as (url, _), closing(Store(url, 1)) as store, store.read() as tx:
        assert session_settings.unfit(tx, processes=2, max_body=1) == []
        (found,) = session_settings.unfit(tx, processes=3, max_body=1)

    assert (found.value, found.consequence[:45]) == ("5", "3 worker processes need 6 connections, and we")
