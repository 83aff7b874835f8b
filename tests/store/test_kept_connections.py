"""The connections to PostgreSQL that stay checked out of the pool between statements."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import sqlalchemy as sa
from forking import in_child
from sqlalchemy import exc

from durable import greenlets
from durable.store import Store, kept_connections, statements
from durable.store.statements import Prepared

PID = Prepared(sa.text("SELECT pg_backend_pid() AS pid"))
MISTAKE = Prepared(sa.text("SELECT 1 / 0"))
#: A pool of two has at most so many connections; see ``max_overflow``.
LIMIT = 2 + 5

pytestmark = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A store with a pool of two connections, none of them open, whose clock is measured."""
    store = Store(database, pool_size=2)
    store.now()
    store.close()
    yield store
    store.close()


def pid_of(tx: sa.Connection) -> int:
    """The server's number of a connection's session, asked as the hot path asks."""
    row: Any = PID.one(tx, {})
    return int(row.pid)


def pid(store: Store) -> int:
    """The session of a single statement."""
    with store.single_statement() as tx:
        return pid_of(tx)


def keep_two(store: Store) -> list[int]:
    """Keep two connections.  Their sessions."""
    with store.single_statement() as one, store.single_statement() as other:
        pids = [pid_of(one), pid_of(other)]
    assert len(store._kept) == 2
    return pids


def kill(store: Store, *pids: int) -> None:
    """End sessions, as an administrator or a failover does."""
    killer = sa.create_engine(store.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with killer.connect() as connection:
        for each in pids:
            connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": each})


def open_connections(store: Store) -> int:
    """How many connections the pool has opened."""
    pool = store.engine.pool
    assert isinstance(pool, sa.QueuePool)
    return pool.size() + pool.overflow()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds by which the clock is set forward; 0 at first."""
    ahead = [0.0]
    for module in (kept_connections, statements):
        monkeypatch.setattr(module, "monotonic", lambda now=module.monotonic: now() + ahead[0])
    return ahead


def test_statements_one_after_the_other_check_one_connection_out(store):
    """The connection and SQLAlchemy's object of it stay; in another thread too."""
    checkouts: list[object] = []
    sa.event.listen(store.engine, "checkout", lambda *_: checkouts.append(1))
    pids = [pid(store), pid(store)]
    thread = threading.Thread(target=lambda: pids.append(pid(store)))
    thread.start()
    thread.join()

    assert len(checkouts) == 1
    assert pids == [pids[0]] * 3


def test_a_connection_goes_back_to_the_pool_after_a_second(store, clock):
    """So the pool sees how old it is, and whether it is still there."""
    checkouts: list[object] = []
    sa.event.listen(store.engine, "checkout", lambda *_: checkouts.append(1))
    first = pid(store)
    clock[0] = kept_connections._KEPT_SECS + 0.1

    assert pid(store) == first
    assert len(checkouts) == 2


def test_a_connection_that_broke_while_it_was_kept_is_replaced(store, clock):
    """It goes back to the pool as one that was idle, so the pool looks at it; no statement fails."""
    first = pid(store)
    kill(store, first)
    clock[0] = 5.0

    assert pid(store) != first


def test_after_a_broken_connection_no_kept_one_is_trusted(store):
    """A statement that follows at once finds out; those after it do not fail, whichever connection they take."""
    pids = keep_two(store)
    kill(store, *pids)

    with pytest.raises(exc.OperationalError) as caught:
        pid(store)

    assert caught.value.connection_invalidated
    assert {pid(store), pid(store)}.isdisjoint(pids)


def test_after_a_broken_transaction_no_kept_connection_is_trusted(store):
    """It does not matter whether SQLAlchemy or durable has executed the statement that found out."""
    pids = keep_two(store)
    kill(store, *pids)

    with pytest.raises(exc.OperationalError), store.begin() as tx:
        tx.execute(sa.text("SELECT 1"))

    assert pid(store) not in pids


def test_after_an_idle_connection_was_found_broken_no_kept_one_is_trusted(store, monkeypatch):
    """The pool has looked at one that was idle, so the other is likely to be broken too."""
    pids = keep_two(store)
    monkeypatch.setattr(statements, "_IDLE_SECS", 0.0)
    store._kept.give_back()
    kill(store, *pids)

    with store.engine.connect() as tx:
        assert pid_of(tx) not in pids
    assert pid(store) not in pids


@pytest.mark.parametrize("what", ["an error", "a transaction of SQLAlchemy's"])
def test_a_connection_is_not_kept_after(store, what):
    """It goes back to the pool, which knows what to do with it; the next statement has a new one or the same."""
    if what == "an error":
        with pytest.raises(exc.DataError), store.single_statement() as tx:
            MISTAKE.rows(tx, {})
    else:
        with store.read() as tx:
            tx.execute(sa.text("SELECT 1"))

    assert len(store._kept) == 0
    assert store.engine.pool.checkedout() == 0
    assert pid(store)


def test_a_connection_with_another_isolation_is_not_kept(store):
    """Where the database's default is not READ COMMITTED, statements need a transaction with its options."""
    name = store.url.database
    with store.engine.connect() as tx:
        tx.execute(sa.text(f'ALTER DATABASE "{name}" SET default_transaction_isolation = serializable'))
    try:
        other = Store(store.url.render_as_string(hide_password=False), pool_size=2)
        with closing(other):
            other.now()
            pid(other)
            with other.read() as tx:
                pid_of(tx)
            assert len(other._kept) == 0
    finally:
        with store.engine.connect() as tx:
            tx.execute(sa.text(f'ALTER DATABASE "{name}" RESET default_transaction_isolation'))


def test_a_transaction_opens_no_connection_while_one_is_kept(store):
    """The kept connection goes to the transaction, so a process that does one thing at a time has one connection."""
    first = pid(store)
    with store.begin() as tx:
        assert pid_of(tx) == first
    assert pid(store) == first

    assert open_connections(store) == 1


@pytest.mark.parametrize("how", ["begin", "read", "single_statement"])
def test_kept_connections_are_missing_nowhere(store, how):
    """As many as the pool allows can be in use at once, although some were kept."""
    keep_two(store)
    store.engine.pool._timeout = 0.0

    with ExitStack() as stack:
        pids = {pid_of(stack.enter_context(getattr(store, how)())) for _ in range(LIMIT)}
        assert len(pids) == LIMIT
        with pytest.raises(exc.TimeoutError):
            stack.enter_context(getattr(store, how)())


def test_a_thread_that_waits_for_a_connection_gets_the_next_one(store):
    """With more threads than connections, a statement's connection is not kept when it ends."""
    with ExitStack() as stack:
        for _ in range(LIMIT - 1):
            stack.enter_context(store.begin())
        ends = stack.enter_context(ExitStack())
        ends.enter_context(store.single_statement())
        waiting, got = threading.Event(), []

        def wait() -> None:
            waiting.set()
            with store.begin() as tx:
                got.append(pid_of(tx))

        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        ends.close()
        thread.join(timeout=8)
        assert not thread.is_alive()
    assert len(got) == 1


def test_a_burst_leaves_no_more_connections_than_the_pools_size(store):
    """Connections beyond the pool's size are closed when they are not needed, whether or not some are kept."""
    with ExitStack() as stack:
        for _ in range(LIMIT):
            stack.enter_context(store.single_statement())
    for _ in range(LIMIT):
        pid(store)

    assert open_connections(store) == 2


def test_closing_closes_kept_connections(store):
    """The store can still be used afterwards."""
    with store.single_statement() as tx:
        kept = tx.connection.driver_connection
    store.close()

    assert kept.closed
    assert pid(store)


def test_a_statement_that_ends_after_the_closing_closes_its_connection(store):
    """Nobody would take it from the pool that it came from."""
    with store.single_statement() as tx:
        used = tx.connection.driver_connection
        store.close()

    assert used.closed
    assert len(store._kept) == 0


def test_a_forked_child_has_no_kept_connection_of_its_parent(store):
    """Each uses its own session, and the child's end leaves the parent's open."""
    pids = keep_two(store)

    def opens_its_own() -> bool:
        own = {pid(store), *keep_two(store)}
        store.close()
        gc.collect()
        return own.isdisjoint(pids)

    assert in_child(opens_its_own)
    assert pid(store) in pids
    assert set(keep_two(store)) == set(pids)


async def _in_loop(call: Any, *args: Any) -> Any:
    raise AssertionError("nothing here blocks")


def test_an_event_loops_connections_are_not_kept(store):
    """They wait in their loop, so another thread could not use them."""

    async def in_loop() -> int:
        found = await greenlets.run(_in_loop, pid, store)
        assert len(store._kept) == 1, "the thread's own"
        return found

    of_thread = pid(store)
    assert asyncio.run(in_loop()) != of_thread
    assert pid(store) == of_thread
