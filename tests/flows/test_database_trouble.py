"""A database that refuses, is full, or does what it is told and does not say so: nothing is lost or done twice."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, kinds, settle
from trouble import read_only, refused, unacknowledged

from chaos.servers import MariaDB, PostgreSQL, Server
from durable import Durable, Request, Run, RunCancelled, create_webhook, resume_hook, step, workflow
from durable.events import HookReceived
from durable.store import is_unavailable
from durable.turns.drive import drive
from durable.web import record_request

# What is done, in the order in which a run does it.


@step(name="trouble.shout", max_retries=0)
def shout(text: str) -> str:
    """One attempt only: whatever costs one, fails the run."""
    return text.upper()


@workflow(name="trouble.shouts")
async def shouts(text: str) -> list[str]:
    """A request, and a step with what it said."""
    request = await create_webhook()
    return [await shout(text), request.text()]


def deliver(engine: Durable, run: Run[Any]) -> None:
    """One request to the run's webhook."""
    row = record_request.find_webhook(engine, run.hooks()[0]["token"])
    assert row is not None
    request = Request("POST", "/x", data=b"heard", id=secrets.token_hex(9))
    record_request.accept_request(engine, row, request, holder=None)


def is_whole(run: Run[Any]) -> bool:
    """Whether the run has had its request once, and ended with its result at the first attempt."""
    told = kinds(run)
    once = ("hook_received", "step_created", "step_completed", "run_completed")
    return run.result() == ["QUIET", "heard"] and all(told.count(kind) == 1 for kind in once)


#: What is done, and the statement of it, or on PostgreSQL the part of a statement, that the database refuses.
STAGES = {
    "start": "INSERT INTO durable_runs",
    "turn": "UPDATE durable_runs",
    "accept": "INSERT INTO durable_requests",
    "claim": "UPDATE durable_steps",
    "record": "DELETE FROM durable_steps",
}


@pytest.fixture
def manner(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Message by message, where each stage has a statement of its own; else in place."""
    return {"continuation": 0} if "stage" in request.fixturenames else {"continuation": "60s"}


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("how", ["deadlock", "serialization"])
@pytest.mark.parametrize("stage", STAGES)
def test_what_the_database_undid_for_another_is_done_again(engine, stage, how):
    """A deadlock or a serialization failure, wherever it hits: nobody sees an error, and all is done once."""
    with refused(engine, STAGES[stage], how) as hit:
        run = shouts.start("quiet")
        settle(engine, run)
        deliver(engine, run)
        settle(engine, run)

    assert len(hit) == 1
    assert is_whole(run)


def persistently(act: Callable[[], Any]) -> None:
    """As a worker or a sender does: again, when the database could not be used."""
    try:
        act()
    except sa.exc.OperationalError:
        act()


@all_databases()
@pytest.mark.parametrize("number", range(1, 8))
def test_a_commit_that_was_not_acknowledged_is_neither_lost_nor_done_twice(engine, number):
    """Whichever commit of a run it is: the start's, a turn's, a claim's or an outcome's."""
    with unacknowledged(engine, number) as lost:
        run = shouts.start("quiet")
        persistently(lambda: settle(engine, run))
        row = record_request.find_webhook(engine, run.hooks()[0]["token"])
        request = Request("POST", "/x", data=b"heard", id=secrets.token_hex(9))
        with suppress(sa.exc.OperationalError):
            record_request.accept_request(engine, row, request, holder=None)
        persistently(lambda: settle(engine, run))

    settle(engine, run)
    assert is_whole(run)
    assert lost or number > 5


@all_databases()
def test_a_resume_that_was_not_acknowledged_is_in_the_inbox(engine):
    """Who resumes gets the database's error, and the payload has been committed: it is delivered."""
    run = shouts.start("quiet")
    settle(engine, run)
    with unacknowledged(engine) as lost, pytest.raises(sa.exc.OperationalError):
        resume_hook(run.hooks()[0]["token"], Request("POST", "/x", data=b"heard"))

    settle(engine, run)
    assert lost
    assert len([event for event in run.events() if isinstance(event, HookReceived)]) == 1
    assert run.result() == ["QUIET", "heard"]


@all_databases()
def test_a_cancel_that_was_not_acknowledged_cancels_and_may_be_repeated(engine):
    """Who cancels gets the database's error; asked again or not, the run is cancelled once."""
    run = shouts.start("quiet")
    settle(engine, run)
    with unacknowledged(engine) as lost, pytest.raises(sa.exc.OperationalError):
        run.cancel("enough")
    run.cancel("enough")

    settle(engine, run)
    assert lost
    assert kinds(run).count("run_cancelled") == 1
    with pytest.raises(RunCancelled, match="enough"):
        run.result()


@all_databases()
def test_a_database_that_is_read_only_for_a_while_loses_nothing(engine):
    """Starts, requests and turns are refused as by a database that is away, and work when it takes writes again."""
    run = shouts.start("quiet")
    settle(engine, run)
    with read_only(engine):
        for act in (lambda: shouts.start("quiet"), lambda: deliver(engine, run), lambda: run.cancel()):
            with pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.?only") as refusal:
                act()
            assert is_unavailable(refusal.value)

    deliver(engine, run)
    with read_only(engine), pytest.raises(sa.exc.DBAPIError) as refusal:
        drive(engine, run.id)
    assert is_unavailable(refusal.value)
    settle(engine, run)
    assert is_whole(run)


# No connection left.

#: A user who may have two connections, and what is left of him.
FEW = {
    "postgresql": (
        "CREATE ROLE {user} LOGIN CONNECTION LIMIT 2",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}",
        "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {user}",
    ),
    "mysql": (
        "CREATE USER {user}@'127.0.0.1' WITH MAX_USER_CONNECTIONS 2",
        "GRANT ALL ON {database}.* TO {user}@'127.0.0.1'",
    ),
}
NO_MORE = {
    "postgresql": ("DROP OWNED BY {user}", "DROP ROLE {user}"),
    "mysql": ("DROP USER {user}@'127.0.0.1'",),
}


@pytest.fixture
def few(engine: Durable) -> Iterator[Durable]:
    """An engine whose user may have two connections."""
    known = {"user": f"durable_few_{secrets.token_hex(4)}", "database": engine.store.url.database}
    with engine.store.engine.begin() as tx:
        for statement in FEW[engine.store.dialect]:
            tx.exec_driver_sql(statement.format(**known))
    plain = engine.store.url.set(username=known["user"], drivername=engine.store.dialect)
    url = plain.render_as_string(hide_password=False)
    made = Durable(Celery("few", broker="memory://"), database_url=url, public_url="https://hooks.test")
    yield made
    made.close()
    with engine.store.engine.begin() as tx:
        for statement in NO_MORE[engine.store.dialect]:
            tx.exec_driver_sql(statement.format(**known))


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_a_connection_limit_that_is_reached_is_told_and_passes(few):
    """While all connections are taken, starting says so; once they are free the same engine goes on."""
    others = sa.create_engine(few.store.url, poolclass=sa.NullPool)
    said = r"too many connections|has exceeded the 'max_user_connections' resource"
    with others.connect(), others.connect(), pytest.raises(sa.exc.OperationalError, match=said) as full:
        few.start(shouts, "quiet")
    assert is_unavailable(full.value)

    run = few.start(shouts, "quiet")
    settle(few, run)
    deliver(few, run)
    settle(few, run)
    assert is_whole(run)


# No room left.


def start_many(engine: Durable) -> None:
    """More runs than there is room for."""
    for _ in range(5000):
        engine.start(shouts, "quiet" * 100)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may look into, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="durable-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, open_folder: Path) -> Iterator[Path]:
    """A file system of 6 MiB, or as many as the test says."""
    folder = open_folder / "small"
    folder.mkdir()
    options = f"size={getattr(request, 'param', 6)}m,mode=777"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def test_a_full_disk_is_told_and_passes_on_sqlite(small_disk):
    """What cannot be written is refused with the database's words; once there is room the same engine goes on."""
    url = f"sqlite:///{small_disk}/durable.db"
    engine = Durable(Celery("full", broker="memory://"), database_url=url, public_url="https://hooks.test")
    engine.migrate()
    run = engine.start(shouts, "quiet")
    settle(engine, run)
    filler = fill(small_disk)

    with pytest.raises(sa.exc.OperationalError, match=r"full|disk I/O error") as full:
        start_many(engine)
    assert is_unavailable(full.value)
    with pytest.raises(sa.exc.OperationalError):
        deliver(engine, run)

    filler.unlink()
    deliver(engine, run)
    settle(engine, run)
    assert is_whole(run)
    engine.close()


@pytest.mark.live
def test_a_full_disk_is_told_and_passes_on_postgresql(small_disk, open_folder):
    """The same with PostgreSQL, whose tables are on a file system without room."""
    with running(PostgreSQL(open_folder)) as private:
        shutil.chown(small_disk, "postgres")
        with psycopg.connect(private.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        options = f"{private.url}?options=-c%20default_tablespace%3Dsmall"
        engine = Durable(Celery("full", broker="memory://"), database_url=options, public_url="https://hooks.test")
        engine.migrate()
        run = engine.start(shouts, "quiet")
        settle(engine, run)
        filler = fill(small_disk)

        with pytest.raises(sa.exc.OperationalError, match="No space left on device") as full:
            start_many(engine)
        assert is_unavailable(full.value)

        filler.unlink()
        deliver(engine, run)
        settle(engine, run)
        assert is_whole(run)
        engine.close()


@pytest.mark.live
@pytest.mark.parametrize("small_disk", [120], indirect=True)
def test_a_full_disk_and_a_read_only_server_are_told_and_pass_on_mariadb(small_disk, open_folder):
    """The same with MariaDB; then the whole server is read-only for a while, as a replica is."""
    with running(MariaDB(open_folder, small_disk)) as private:
        server = sa.create_engine(f"mysql+pymysql://root@127.0.0.1:{private.port}", isolation_level="AUTOCOMMIT")
        with server.connect() as admin:
            private.create()
            admin.exec_driver_sql("CREATE USER app@'127.0.0.1'")
            admin.exec_driver_sql("GRANT ALL ON durable.* TO app@'127.0.0.1'")
            # root writes to a read-only server, an application does not.
            url = private.url.replace("root@", "app@")
            engine = Durable(Celery("full", broker="memory://"), database_url=url, public_url="https://hooks.test")
            engine.migrate()
            run = engine.start(shouts, "quiet")
            settle(engine, run)
            filler = fill(small_disk)

            with pytest.raises(sa.exc.OperationalError, match=r"is full|No space left") as full:
                start_many(engine)
            assert is_unavailable(full.value)

            filler.unlink()
            deliver(engine, run)
            admin.exec_driver_sql("SET GLOBAL read_only = 1")
            with pytest.raises(sa.exc.DBAPIError, match="--read-only option") as refusal:
                drive(engine, run.id)
            assert is_unavailable(refusal.value)

            admin.exec_driver_sql("SET GLOBAL read_only = 0")
            settle(engine, run)
            assert is_whole(run)
            engine.close()
        server.dispose()


def test_what_is_committed_does_not_fail_because_its_turn_cannot_be_sent(engine, monkeypatch, caplog):
    """The sweep sends it.  One line says which run waits, or how many do."""
    run = engine.start(shouts, "quiet")

    def fail(*_: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, OSError("the database is gone"))

    with monkeypatch.context() as patched:
        patched.setattr("durable.store.due_turns.drives", fail)
        engine.send_turns(run.id)
        engine.send_turns(run.id, "another")

    said = [each.message for each in caplog.records if each.name == "durable"]
    assert [text.partition(" (")[0] for text in said] == [
        f"No turn is sent to run {run.id}",
        f"No turn is sent to 2 runs, {run.id} among them",
    ]


@contextmanager
def running(server: Server) -> Iterator[Any]:
    """A server of the test's own."""
    server.start()
    try:
        yield server
    finally:
        server.stop()
