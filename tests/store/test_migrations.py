"""The schema and its history."""

import subprocess
import sys
import threading

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from celery import Celery
from eventually import eventually
from revisions import differences, upgrade_to
from servers import DATABASES, new_database

from durable import ConfigurationError, Durable, SchemaOutOfDate, doctor, migrations, set_attributes, workflow
from durable.store import broker_sentinel
from durable.store.schema import REVISION, VERSION_TABLE, leases, metadata
from durable.turns.drive import drive


@pytest.fixture
def fresh(database):
    """An engine whose database has not been migrated."""
    made = Durable(Celery("test", broker="memory://"), database_url=database)
    with made.store.begin() as tx:
        metadata.drop_all(tx)
        tx.exec_driver_sql(f"DROP TABLE IF EXISTS {VERSION_TABLE}")
    yield made
    made.close()


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_all_revisions_in_order_come_to_the_schema(fresh):
    """A migrated database has the tables of store/schema, and migrating again changes nothing."""
    fresh.migrate()
    fresh.migrate()

    with fresh.store.read() as tx:
        assert differences(tx, lambda name: name.startswith("durable_")) == []


@pytest.mark.parametrize("database", DATABASES, indirect=True)
@pytest.mark.parametrize(("expires_at", "lost_at"), [(2**62, None), (1_700_000_000_000_000, 1_700_000_000_000_000)])
def test_the_brokers_sentinel_moves_from_the_leases(fresh, expires_at, lost_at):
    """What revision 0009 has of it is read, and both places are written: a process of that release may still run."""
    with fresh.store.begin() as tx:
        upgrade_to(tx, "0009")
        row = {"name": "sentinel", "owner": "abc", "token": 1, "expires_at": expires_at}
        tx.execute(sa.insert(leases), [row, {"name": "sweep", "owner": "w", "token": 7, "expires_at": 9}])
    fresh.migrate()

    with fresh.store.begin() as tx:
        assert broker_sentinel.read(tx) == broker_sentinel.BrokerSentinel("abc", lost_at)
        broker_sentinel.write(tx, broker_sentinel.BrokerSentinel("def", None))
        assert broker_sentinel.read(tx) == broker_sentinel.BrokerSentinel("def", None)
        old = tx.execute(sa.select(leases.c.owner, leases.c.expires_at).where(leases.c.name == "sentinel")).one()
    assert tuple(old) == ("def", 2**62)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_tables_whose_rows_change_are_vacuumed_early(fresh):
    """After 1 or 2 % of dead rows, and not after 20 %."""
    fresh.migrate()

    query = sa.text("SELECT relname, reloptions FROM pg_class WHERE relname = ANY (:names) AND relkind = 'r'")
    names = ["durable_runs", "durable_steps", "durable_waits", "durable_inbox"]
    with fresh.store.read() as tx:
        found = {
            row.relname: dict(each.split("=") for each in row.reloptions) for row in tx.execute(query, {"names": names})
        }
    assert {name: options["autovacuum_vacuum_scale_factor"] for name, options in found.items()} == {
        "durable_runs": "0.02",
        "durable_steps": "0.01",
        "durable_waits": "0.01",
        "durable_inbox": "0.01",
    }
    assert {options["autovacuum_vacuum_threshold"] for options in found.values()} == {"1000"}


@pytest.mark.parametrize("database", [d for d in DATABASES if d != "sqlite"], indirect=True)
def test_a_server_database_is_never_migrated_silently(fresh):
    """The error names the command that does it."""
    with pytest.raises(SchemaOutOfDate, match="durable migrate") as caught:
        fresh.check_schema()

    assert (caught.value.found, caught.value.needed) == (None, REVISION)


def test_the_embedded_default_migrates_itself(fresh):
    """SQLite needs no command."""
    fresh.check_schema()

    with fresh.store.read() as tx:
        assert MigrationContext.configure(tx, opts={"version_table": VERSION_TABLE}).get_current_revision() == REVISION


#: Text beyond LATIN1, and beyond MySQL's three-byte utf8.
BEYOND = "日本 😀"


@workflow(name=f"migrations.{BEYOND}")
async def beyond(text: str) -> str:
    set_attributes(text=text)
    return text


def holds_every_text(url):
    """Whether a run on this database keeps a name, an attribute and a result beyond LATIN1."""
    engine = Durable(Celery("test", broker="memory://"), database_url=url)
    try:
        engine.migrate()
        run = engine.start(beyond, BEYOND)
        drive(engine, run.id)
        return (run.name, run.attributes, run.result(timeout=0)) == (beyond.name, {"text": BEYOND}, BEYOND)
    finally:
        engine.close()


def in_encoding(name):
    return f"ENCODING '{name}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_postgresql_database_that_is_not_utf8_is_refused(tmp_path, encoding):
    """The migration makes nothing, and it and `doctor` name the encoding, the database and what to create instead."""
    with new_database("postgresql", tmp_path, in_encoding(encoding)) as url:
        engine = Durable(Celery("test", broker="memory://"), database_url=url)
        try:
            with pytest.raises(ConfigurationError, match=rf"{encoding}.*ENCODING 'UTF8'"):
                engine.migrate()
            with engine.store.read() as tx:
                tables = tx.exec_driver_sql("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'durable%%'")
                assert tables.scalar_one() == 0
            found = next(finding for finding in doctor.examine(engine) if finding.name == "database")
        finally:
            engine.close()

    assert not found.ok
    assert encoding in found.detail
    assert "ENCODING 'UTF8'" in found.fix


@pytest.mark.parametrize("where", ["url", "environment", "database"])
def test_text_is_sent_to_postgresql_as_utf8(tmp_path, monkeypatch, where):
    """Whatever client encoding the URL, the environment or the database itself asks for."""
    with new_database("postgresql", tmp_path) as url:
        if where == "environment":
            monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        elif where == "database":
            with sa.create_engine(url.replace("://", "+psycopg://"), poolclass=sa.NullPool).begin() as tx:
                tx.exec_driver_sql(f"ALTER DATABASE {sa.make_url(url).database} SET client_encoding = 'LATIN1'")

        assert holds_every_text(f"{url}?client_encoding=latin1" if where == "url" else url)


@pytest.mark.parametrize("options", ["", "CHARACTER SET latin1", "CHARACTER SET utf8mb3"])
@pytest.mark.parametrize("query", ["", "?charset=latin1"])
def test_text_is_kept_by_mariadb_as_utf8mb4(tmp_path, options, query):
    """Our columns name their character set, so that of the database is no matter, nor is that of the URL."""
    with new_database("mariadb", tmp_path, options) as url:
        assert holds_every_text(f"{url}{query}")


def test_only_a_migration_loads_alembic():
    """Alembic would be a seventh of what a worker or a web process loads at its start."""
    loaded = subprocess.check_output(
        [sys.executable, "-c", "from durable import Durable; import sys; print(*sys.modules)"], text=True
    ).split()

    assert "durable.migrations" in loaded
    assert "alembic" not in loaded


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_code_works_on_a_newer_schema(fresh, database):
    """Old processes may start again after a migration, and when a deploy is rolled back."""
    fresh.migrate()
    with fresh.store.begin() as tx:
        tx.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    old = Durable(Celery("test", broker="memory://"), database_url=database)
    try:
        old.check_schema()
        old.migrate()
        run = old.start(beyond, BEYOND)
        drive(old, run.id)
        result = run.result(timeout=0)
        found = next(finding for finding in doctor.examine(old) if finding.name == "database")
        with old.store.read() as tx:
            version = migrations.revision(tx)
    finally:
        old.close()

    assert (result, version) == (BEYOND, "9999")
    assert old.installation is not None
    assert (found.ok, f"schema 9999, newer than that of this code ({REVISION})" in found.detail) == (True, True)


def test_each_revision_is_committed_by_itself(tmp_path):
    """Behind a transaction that takes long, no more waits than the revision that needs its table."""
    with new_database("postgresql", tmp_path) as url:
        engine = Durable(Celery("test", broker="memory://"), database_url=url)
        try:
            with engine.store.begin() as tx:
                upgrade_to(tx, "0007")
            with engine.store.begin() as tx:
                # 0011 is the first that needs this table for itself: it adds an index.
                tx.exec_driver_sql("LOCK TABLE durable_runs IN ROW EXCLUSIVE MODE")
                migration = threading.Thread(target=engine.migrate)
                migration.start()
                eventually_revision(engine, "0010")
            migration.join(60)
            with engine.store.read() as tx:
                assert migrations.revision(tx) == REVISION
        finally:
            engine.close()


def eventually_revision(engine, revision):
    """Wait until another connection sees this revision."""

    def is_there():
        with engine.store.read() as tx:
            return migrations.revision(tx) == revision

    eventually(is_there, within_secs=30)
