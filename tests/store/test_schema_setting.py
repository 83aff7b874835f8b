"""The setting ``schema``: durable's tables on PostgreSQL stand in a schema of their own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from celery import Celery
from servers import new_database

from durable import ConfigurationError, Durable, SchemaOutOfDate, workflow
from durable.turns.drive import drive


@workflow(name="schema_setting.returns")
async def returns() -> str:
    return "done"


@pytest.fixture
def url(tmp_path) -> Iterator[str]:
    with new_database("postgresql", tmp_path) as made:
        yield made


def engine_on(url: str, **settings: str) -> Durable:
    return Durable(Celery(f"schemas-{secrets.token_hex(4)}", broker="memory://"), database_url=url, **settings)


def test_the_tables_are_in_the_schema_and_nowhere_else(url):
    """``migrate`` creates it; an engine without the setting finds no tables; the URL's own options stay."""
    named = engine_on(f"{url}?options=-cstatement_timeout%3D7000", schema="jobs")
    named.migrate()
    named.migrate()
    run = named.start(returns)
    drive(named, run.id)
    assert run.result(timeout=0) == "done"
    with named.store.read() as tx:
        places = tx.execute(sa.text("SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'durable%'"))
        assert places.scalars().all() == ["jobs"]
        assert tx.execute(sa.text("SHOW statement_timeout")).scalar_one() == "7s"
    named.close()

    plain = engine_on(url)
    with pytest.raises(SchemaOutOfDate):
        plain.check_schema()
    plain.close()


def test_a_schema_is_for_postgresql(tmp_path):
    with pytest.raises(ConfigurationError, match=r"schema='jobs' is for PostgreSQL, and database_url is of another"):
        engine_on(f"sqlite:///{tmp_path}/durable.db", schema="jobs")


@pytest.mark.parametrize("name", ["Jobs", "a b", "a,b", "1a", "", "x" * 64])
def test_a_name_that_needs_quotes_is_refused(url, name):
    with pytest.raises(ConfigurationError, match="schema"):
        engine_on(url, schema=name)
