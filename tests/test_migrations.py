"""The schema and its history."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from celery import Celery
from servers import DATABASES

from durable import Durable, SchemaOutOfDate, current
from durable.schema import REVISION, VERSION_TABLE, metadata


@pytest.fixture
def fresh(database):
    """An engine whose database has not been migrated."""
    made = Durable(Celery("test", broker="memory://"), database_url=database)
    with made.store.begin() as tx:
        metadata.drop_all(tx)
        tx.exec_driver_sql(f"DROP TABLE IF EXISTS {VERSION_TABLE}")
    yield made
    made.close()
    current.forget(made)


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_all_revisions_in_order_come_to_the_schema(fresh):
    """A migrated database has the tables of schema.py, and migrating again changes nothing."""
    fresh.migrate()
    fresh.migrate()

    with fresh.store.read() as tx:
        context = MigrationContext.configure(
            tx,
            opts={
                "version_table": VERSION_TABLE,
                "include_name": lambda name, kind, _: kind != "table" or name.startswith("durable_"),
            },
        )
        assert compare_metadata(context, metadata) == []


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
