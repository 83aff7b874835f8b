"""Connections, transactions and the database's clock, on SQLite, PostgreSQL, MySQL and MariaDB."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

# The functions themselves: the guards of workflow code put slower ones into the module.
from time import monotonic, monotonic_ns
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    literal_column,
    make_url,
    text,
)
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import URL

from .. import failpoints, forks, greenlets
from ..errors import ConfigurationError
from . import poolers
from .engines import PSYCOPG, open_engine
from .kept_connections import KeptConnections
from .loop_engines import LoopEngines
from .outages import is_contention
from .poolers import Preparing
from .vault import OPTION, Vault

T = TypeVar("T")

_DRIVERS = {
    "postgres": PSYCOPG,
    "postgresql": PSYCOPG,
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}

#: SQL for the time in microseconds since 1970 UTC.
NOW = {
    "postgresql": "(extract(epoch from clock_timestamp()) * 1000000)::bigint",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "mariadb": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000",
}

#: How long a measured offset of the database's clock is used before it is measured again.
_CLOCK_OFFSET_SECS = 30.0

_READ_ONLY = {"durable_read_only": True}
_READ_COMMITTED = {"isolation_level": "READ COMMITTED"}

#: SQL for the isolation of a statement outside of a transaction.
_ISOLATION = {"postgresql": "current_setting('default_transaction_isolation')"}


def parse_url(given: str) -> URL:
    """The SQLAlchemy URL with the driver that durable is tested with; ConfigurationError for another database."""
    try:
        url = make_url(given)
    except sa_exc.ArgumentError:
        raise ConfigurationError(
            "database_url is not an SQLAlchemy URL.  Write sqlite:///path, postgresql://user@host/name or"
            " mysql://user@host/name."
        ) from None
    if "+" not in url.drivername and url.drivername in _DRIVERS:
        url = url.set(drivername=_DRIVERS[url.drivername])
    if url.get_backend_name() not in NOW:
        raise ConfigurationError(
            f"durable does not store in {url.get_backend_name()!r}: use SQLite, PostgreSQL or MySQL/MariaDB."
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "An SQLite database in memory is seen by one process only.  Name a file: sqlite:///durable.db."
        )
    return url


class Store:
    """One database.  The constructor does no I/O; connections are opened when they are used, and anew after a fork."""

    def __init__(
        self, url: str, pool_size: int, prepared_statements: str = poolers.AUTO, *, schema: str | None = None
    ) -> None:
        """
        Args:
            schema: The schema of the tables, on PostgreSQL only.
        """
        self.url = parse_url(url)
        self.dialect = self.url.get_backend_name()
        self._schema = schema
        #: Whether connections to PostgreSQL prepare statements.
        self.preparing = Preparing(prepared_statements, self.url)
        #: SQL for the database's time in microseconds.
        self.sql_now_text = NOW[self.dialect]
        self._sql_now = literal_column(self.sql_now_text, BigInteger)
        self._pool_size = pool_size
        self._engine: Engine | None = None
        self._kept = KeptConnections()
        self._of_parents: list[tuple[Engine, KeptConnections]] = []
        self._loop_engines = LoopEngines()
        self._begin_in_process()
        forks.call_in_child(self._begin_in_process)
        self.vault = Vault()
        #: Entered around each transaction; tracing sets it.
        self.quiet: Callable[[], AbstractContextManager[None]] = nullcontext
        # PostgreSQL's connections are in autocommit mode: a transaction around reads would cost two round trips and
        # give nothing.  SQLite needs one, because BEGIN says whether writers have to wait.
        self._reading: dict[str, Any] = {} if self.dialect == "postgresql" else _READ_ONLY
        self._writing = _READ_COMMITTED if self.dialect == "postgresql" else {}

    def _begin_in_process(self) -> None:
        """Start without a connection, in this process or in a child."""
        self._lock = threading.Lock()
        self._clock: tuple[int, float] | None = None
        if self._engine is not None:
            # Kept, since a driver closes a connection that is garbage, and the parent still uses it.
            self._of_parents.append((self._engine, self._kept))
            self._engine, self._kept = None, KeptConnections()

    @property
    def vault(self) -> Vault:
        """What encrypts and decrypts values; set it before you use the store."""
        return self._vault

    @vault.setter
    def vault(self, vault: Vault) -> None:
        vault.now = self.now
        self._vault = vault

    @property
    def sql_now(self) -> ColumnElement[int]:
        """SQL for the database's time in microseconds."""
        return self._sql_now

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write.  On SQLite it takes the write lock at its begin."""
        with self.quiet(), self.connect() as tx, tx.begin():
            self._measure(tx)
            yield tx
            failpoints.hit("commit.before")
        failpoints.hit("commit.after")

    def connect(self) -> Connection:
        """A connection for transactions that write."""
        # A kept connection is idle: without this, the pool would open another.
        self._kept.give_back()
        return _with(self.engine.connect(), self._writing)

    @contextmanager
    def single_statement(self) -> Iterator[Connection]:
        """
        A transaction that is a single statement on PostgreSQL; for the functions of this room.

        There the statement commits by itself, which saves two round trips; elsewhere this is ``begin``, and where the
        database's default isolation is another than READ COMMITTED.
        """
        if self._reading:
            with self.begin() as tx:
                yield tx
            return
        with self.read() as tx:
            failpoints.hit("commit.before")
            yield tx
        failpoints.hit("commit.after")

    @contextmanager
    def unsynced(self) -> Iterator[Connection]:
        """
        As ``single_statement``, for rows that may be lost when the database crashes.

        SQLite does not wait for the disk then; on PostgreSQL the table has to be UNLOGGED.
        """
        if self.dialect != "sqlite":
            with self.single_statement() as tx:
                yield tx
            return
        with self.quiet(), self.connect() as tx:
            driver: Any = tx.connection.driver_connection
            driver.execute("PRAGMA synchronous = NORMAL")
            try:
                with tx.begin():
                    failpoints.hit("commit.before")
                    yield tx
                failpoints.hit("commit.after")
            finally:
                driver.execute("PRAGMA synchronous = FULL")

    def write(self, act: Callable[[Connection], T], *, is_single_statement: bool = False) -> T:
        """
        Call *act* in a transaction and return its result; repeats it when the database has undone the transaction.

        Args:
            is_single_statement: Open the transaction with ``single_statement``.
        """
        for last in (False, False, True):
            try:
                with self.single_statement() if is_single_statement else self.begin() as tx:
                    return act(tx)
            except sa_exc.DBAPIError as error:
                if last or not is_contention(error):
                    raise
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; on SQLite it does not block writers."""
        with self.quiet(), self._connect_for_statements() as tx:
            self._measure(tx)
            yield tx

    def _connect_for_statements(self) -> AbstractContextManager[Connection]:
        engine = self.engine
        # The engine of an event loop keeps none: its connections wait in that loop.
        if self._reading or engine is not self._engine:
            return _with(engine.connect(), self._reading)
        return self._kept.connect(engine)

    def now(self) -> int:
        """The database's time in microseconds, from this process's clock and the offset measured last."""
        if self._clock is None:
            with self.read():
                pass
        assert self._clock is not None
        offset, _ = self._clock
        return offset + monotonic_ns() // 1000

    @property
    def engine(self) -> Engine:
        """This process's SQLAlchemy engine, in a greenlet its event loop's: a connection never crosses a fork."""
        if greenlets.is_current() and self.waits_in_loop:
            return self._loop_engines.current(partial(self._opened, waits_in_loop=True))
        if self._engine is None:
            with self._lock:
                self._engine = self._engine or self._open()
        return self._engine

    @property
    def waits_in_loop(self) -> bool:
        """Whether the connections of a greenlet wait in its event loop, and block no thread."""
        return self.url.drivername == PSYCOPG

    def create_schema(self) -> None:
        """Create the schema of the tables, if one is set and it is not there."""
        if self._schema is None:
            return
        with self.begin() as tx:
            # CREATE SCHEMA IF NOT EXISTS needs the right to create one even if it is there.
            found = tx.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": self._schema})
            if found.one_or_none() is None:
                tx.exec_driver_sql(f'CREATE SCHEMA IF NOT EXISTS "{self._schema}"')

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._engine is not None:
            self._engine.dispose()
            self._kept.close()
        self._loop_engines.close()

    def _open(self) -> Engine:
        return self._opened(waits_in_loop=False)

    def _opened(self, *, waits_in_loop: bool) -> Engine:
        opened = open_engine(self.url, self._pool_size, self.preparing, self._schema, waits_in_loop=waits_in_loop)
        opened.update_execution_options(**{OPTION: self._vault})
        return opened

    def _measure(self, tx: Connection) -> None:
        before = monotonic()
        if self._clock is not None and before - self._clock[1] < _CLOCK_OFFSET_SECS:
            return
        asked = f"SELECT {NOW[self.dialect]}, {_ISOLATION.get(self.dialect, 'NULL')}"
        database_now, isolation = tx.execute(text(asked)).one()
        middle = (before + monotonic()) / 2
        self._clock = (int(database_now) - int(middle * 1_000_000), middle)
        if isolation is not None:
            # A statement outside of a transaction has the default isolation.  With serializable, the database would
            # undo reads and single statements for the sake of others.
            self._reading = {} if isolation == "read committed" else _READ_COMMITTED


def _with(connection: Connection, options: dict[str, Any]) -> Connection:
    return connection.execution_options(**options) if options else connection
