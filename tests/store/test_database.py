"""The connections of a store, before and after a fork."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from forking import in_child
from servers import DATABASES

from durable import forks
from durable.store import Store


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A store whose database has one table, ``noted``."""
    store = Store(database, pool_size=2)
    with store.begin() as tx:
        tx.execute(sa.text("DROP TABLE IF EXISTS noted"))
        tx.execute(sa.text("CREATE TABLE noted (who VARCHAR(20))"))
    yield store
    with store.begin() as tx:
        tx.execute(sa.text("DROP TABLE noted"))
    store.close()


def connection_of(store: Store) -> object:
    """The driver's connection that the next reader gets from the pool."""
    with store.read() as tx:
        return tx.connection.driver_connection


def session_of(store: Store) -> int:
    """The server's number of that connection's session."""
    query = "SELECT pg_backend_pid()" if store.dialect == "postgresql" else "SELECT connection_id()"
    with store.read() as tx:
        return int(tx.execute(sa.text(query)).scalar_one())


def note(store: Store, who: str) -> None:
    """Add a row."""
    with store.begin() as tx:
        tx.execute(sa.text("INSERT INTO noted VALUES (:who)"), {"who": who})


def noted(store: Store) -> list[str]:
    """All rows."""
    with store.read() as tx:
        return list(tx.execute(sa.text("SELECT who FROM noted ORDER BY who")).scalars())


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_forked_child_opens_connections_of_its_own(store):
    """The child and the parent both write, and each keeps its own connection."""
    of_parent = connection_of(store)

    def works() -> bool:
        note(store, "child")
        return connection_of(store) is not of_parent

    assert in_child(works)
    assert connection_of(store) is of_parent
    note(store, "parent")
    assert noted(store) == ["child", "parent"]


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda store: store.close(), id="close"),
        pytest.param(lambda store: note(store, "child"), id="write"),
        pytest.param(lambda store: (note(store, "child"), store.close()), id="write, close"),
    ],
)
def test_a_forked_child_closes_nothing_of_its_parent(store, act: Callable[[Store], object]):
    """Whatever the child does, and collects as garbage, the parent's session at the server stays."""
    before = session_of(store)

    def leaves_it() -> bool:
        act(store)
        gc.collect()
        return True

    assert in_child(leaves_it)
    assert session_of(store) == before


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_a_fork_within_a_transaction_leaves_it_to_the_parent(store):
    """A connection that is in use at the fork stays the parent's, who commits."""
    with store.begin() as tx:
        tx.execute(sa.text("INSERT INTO noted VALUES ('parent')"))
        assert in_child(lambda: noted(store) == [])
    assert noted(store) == ["parent"]


def test_a_fork_while_connections_are_being_opened_locks_nothing_in_the_child(store):
    """The lock that another thread held at the fork is a new one in the child."""
    store.close()
    with store._lock:
        assert in_child(lambda: noted(store) == [])


def test_a_store_that_is_thrown_away_is_not_kept_alive(database):
    """Its registration for forks goes with it."""
    registered = len(forks._methods)
    store = Store(database, pool_size=2)
    connection_of(store)
    store.close()
    gone = weakref.ref(store)
    del store
    gc.collect()

    assert gone() is None
    assert len(forks._methods) <= registered


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("default", ["serializable", "repeatable read", "read committed"])
def test_the_databases_default_isolation_is_not_used(store, default):
    """What durable reads and writes is never undone for the sake of another one, as a serializable transaction is."""
    with store.begin() as tx:
        name = tx.execute(sa.text("SELECT current_database()")).scalar_one()
        tx.execute(sa.text(f"ALTER DATABASE {name} SET default_transaction_isolation = '{default}'"))
    other = Store(store.url.render_as_string(hide_password=False), pool_size=2)
    try:
        other.now()
        for manner in (other.read, other.begin, other.single_statement):
            with manner() as tx:
                assert tx.execute(sa.text("SHOW transaction_isolation")).scalar_one() == "read committed"
    finally:
        other.close()
        with store.begin() as tx:
            tx.execute(sa.text(f"ALTER DATABASE {name} RESET default_transaction_isolation"))


def rollbacks_of(tx: sa.Connection) -> int:
    """How many times the session of MariaDB was told to roll back."""
    return int(tx.execute(sa.text("SHOW SESSION STATUS LIKE 'Com_rollback'")).one()[1])


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_a_transaction_that_was_committed_costs_no_rollback(store):
    """Its session goes back to the pool as it is; one that has only read ends its transaction."""
    with store.begin() as tx:
        before, first = rollbacks_of(tx), session_of_transaction(tx)
        tx.execute(sa.text("INSERT INTO noted VALUES ('one')"))
    with store.begin() as tx:
        assert session_of_transaction(tx) == first
        assert rollbacks_of(tx) == before
    assert noted(store) == ["one"]
    with store.begin() as tx:
        assert rollbacks_of(tx) == before + 1


@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_a_transaction_of_which_sqlalchemy_knows_nothing_is_rolled_back(store):
    """The next user of the session finds nothing of it."""
    with store.connect() as tx, tx.connection.cursor() as cursor:
        cursor.execute("INSERT INTO noted VALUES ('one')")
    with store.connect() as tx, tx.connection.cursor() as cursor:
        cursor.execute("SELECT @@in_transaction")
        assert cursor.fetchone() == (0,)

    assert noted(store) == []


def session_of_transaction(tx: sa.Connection) -> int:
    """The number of its session."""
    return int(tx.execute(sa.text("SELECT connection_id()")).scalar_one())
