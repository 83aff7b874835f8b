"""Statements that go to the driver themselves behave as any other of SQLAlchemy's, on PostgreSQL."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from durable import Durable
from durable.store import statements
from durable.store.statements import Prepared

ADD = Prepared(sa.text("INSERT INTO kept VALUES (:id, :secret)"))
ALL = Prepared(sa.text("SELECT id, secret FROM kept ORDER BY id"))
SLEEP = Prepared(sa.text("SELECT pg_sleep(:secs)"))


pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def kept(engine: Durable) -> Iterator[None]:
    """A table of these tests' own."""
    with engine.store.begin() as tx:
        tx.execute(sa.text("CREATE TABLE kept (id BIGINT PRIMARY KEY, secret TEXT)"))
    yield
    with engine.store.begin() as tx:
        tx.execute(sa.text("DROP TABLE kept"))


def ids(engine: Durable) -> list[int]:
    with engine.store.read() as tx:
        return [row.id for row in ALL.rows(tx, {})]


@pytest.mark.usefixtures("kept")
def test_it_is_part_of_the_transaction_that_it_is_said_in(engine):
    """What it writes goes with the transaction, and stays with one of its own."""
    with engine.store.begin() as tx:
        assert ADD.changed(tx, {"id": 1, "secret": "s"}) == 1
        tx.get_transaction().rollback()
    with engine.store.single_statement() as tx:
        assert ADD.changed(tx, {"id": 2, "secret": "s"}) == 1

    assert ids(engine) == [2]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("heard", [False, True])
def test_its_errors_are_sqlalchemys_and_tell_no_values(engine, heard):
    """This also holds if a listener makes SQLAlchemy execute the statement; the connection stays usable."""
    if heard:
        sa.event.listen(engine.store.engine, "before_cursor_execute", lambda *_: None)
    with engine.store.single_statement() as tx:
        ADD.changed(tx, {"id": 1, "secret": "s"})

    with pytest.raises(exc.IntegrityError) as caught, engine.store.single_statement() as tx:
        ADD.changed(tx, {"id": 1, "secret": "whsec_1"})

    assert "kept_pkey" in str(caught.value)
    assert heard or "whsec_1" not in str(caught.value)
    assert ids(engine) == [1]


@pytest.mark.usefixtures("kept")
def test_who_listens_hears_it(engine):
    """Tracing that is told of SQLAlchemy's statements is told of these."""
    heard = []
    with engine.store.single_statement() as tx:
        ADD.changed(tx, {"id": 1, "secret": "s"})
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda c, cursor, text, *_: heard.append(text))

    with engine.store.single_statement() as tx:
        ADD.changed(tx, {"id": 2, "secret": "s"})

    assert [text.split()[0] for text in heard] == ["INSERT"]
    assert ids(engine) == [1, 2]


@pytest.mark.usefixtures("kept")
def test_a_connection_that_was_ended_is_not_used_again(engine):
    """The statement fails as SQLAlchemy's do, and says so; the next one has a new connection."""
    with engine.store.single_statement() as tx:
        ADD.changed(tx, {"id": 1, "secret": "s"})
        (pid,) = tx.execute(sa.text("SELECT pg_backend_pid()")).one()
    with engine.store.single_statement() as one, engine.store.single_statement() as other:
        killer, victim = one, other
        if victim.execute(sa.text("SELECT pg_backend_pid()")).scalar_one() != pid:
            killer, victim = other, one
        killer.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(exc.OperationalError) as caught:
            ADD.changed(victim, {"id": 2, "secret": "s"})

    assert caught.value.connection_invalidated
    assert ids(engine) == [1]


def test_a_connection_that_was_idle_is_asked_only_if_its_server_has_sent_something(engine, monkeypatch):
    """An idle connection costs no round trip.  One that the server has ended is replaced, and nothing fails."""
    monkeypatch.setattr(statements, "_IDLE_SECS", 0.0)
    own_pid = sa.text("SELECT pg_backend_pid()")
    pings = []
    ping = engine.store.engine.dialect.do_ping
    monkeypatch.setattr(engine.store.engine.dialect, "do_ping", lambda given: pings.append(given) or ping(given))
    # Connections that are opened now, so that none of the pool's is idle from before.
    engine.store.close()
    with engine.store.read() as tx:
        first = tx.execute(own_pid).scalar_one()
    with engine.store.read() as tx:
        assert tx.execute(own_pid).scalar_one() == first
    assert len(pings) <= 1, "a new connection may be asked"
    pings.clear()

    killer = sa.create_engine(engine.store.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with killer.connect() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": first})
    with engine.store.read() as tx:
        assert tx.execute(own_pid).scalar_one() != first
    assert pings


def test_a_connection_that_was_interrupted_is_not_used_again(engine):
    """A signal's exception in the midst of a statement: what comes next does not find that statement's answer."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt), engine.store.single_statement() as tx:
            SLEEP.rows(tx, {"secs": 30})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    with engine.store.single_statement() as tx:
        assert tx.execute(sa.text("SELECT 7")).scalar_one() == 7


def test_a_session_that_may_only_read_is_not_used_again(engine):
    """
    It was begun on a standby, or while the database was read-only: a new one writes as soon as that may be.

    So was whichever rested in the pool meanwhile.
    """
    read_only = sa.text("SET default_transaction_read_only = on")
    with engine.store.single_statement() as tx:
        tx.execute(read_only)
        with engine.store.single_statement() as other:
            other.execute(read_only)
        with pytest.raises(exc.DBAPIError) as caught:
            Prepared(sa.text("CREATE TABLE never (id BIGINT)")).changed(tx, {})

    assert caught.value.connection_invalidated
    for _ in range(2):
        with engine.store.read() as tx:
            assert tx.execute(sa.text("SHOW default_transaction_read_only")).scalar_one() == "off"
