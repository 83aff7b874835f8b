"""Connections, transactions and the database's clock, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

# The functions themselves: the guards of workflow code put slower ones into the module.
from time import monotonic, monotonic_ns
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    create_engine,
    event,
    literal_column,
    make_url,
    text,
)
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import URL, ExceptionContext

from .. import failpoints, forks
from ..errors import ConfigurationError
from . import galera, poolers, statements
from .outages import is_contention
from .poolers import Preparing
from .statements import READ_ONLY_STATE, IdleConnections
from .vault import OPTION, Vault

T = TypeVar("T")

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}

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

#: Errors of a read-only session: numbers of MySQL and MariaDB, the code of SQLite.  See also ``READ_ONLY_STATE``.
_READ_ONLY_NUMBERS = frozenset({1290, 1792, 1836})
_READ_ONLY_CODE = 8


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
        self._of_parents: list[Engine] = []
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
            self._of_parents.append(self._engine)
            self._engine = None

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
        with self.quiet(), _with(self.engine.connect(), self._reading) as tx:
            self._measure(tx)
            yield tx

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
        """This process's SQLAlchemy engine: a connection never crosses a fork."""
        if self._engine is None:
            with self._lock:
                self._engine = self._engine or self._open()
        return self._engine

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

    def _open(self) -> Engine:
        try:
            opened = _open_sqlite(self.url, self._pool_size) if self.dialect == "sqlite" else self._open_server()
        except ModuleNotFoundError as missing:
            extra = _EXTRAS.get(missing.name or "")
            raise ConfigurationError(
                f"database_url needs the driver {missing.name!r}, which is not installed"
                + (f": pip install 'durable-celery[{extra}]'." if extra else ".")
            ) from None
        opened.update_execution_options(**{OPTION: self._vault})
        return opened

    def _open_server(self) -> Engine:
        connect: dict[str, Any] = {"connect_timeout": 5}
        if self.dialect == "postgresql":
            # Without keepalives a connection to a vanished server blocks a step for the kernel's 15 minutes.
            connect |= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        if self._schema is not None:
            # The application's own tables are found too, in a transactional step.
            given = self.url.query.get("options", "")
            connect |= {"options": f"{given} -csearch_path={self._schema},public".strip()}
        # Values are any Unicode text, whatever encoding the URL, the environment or the server selects.
        connect |= {"client_encoding": "utf8"} if self.dialect == "postgresql" else {"charset": "utf8mb4"}
        uses_psycopg = self.url.drivername == "postgresql+psycopg"
        if uses_psycopg:
            connect |= self.preparing.connect
        engine = create_engine(
            poolers.without_threshold(self.url) if uses_psycopg else self.url,
            isolation_level="AUTOCOMMIT" if self.dialect == "postgresql" else "READ COMMITTED",
            skip_autocommit_rollback=True,
            pool_recycle=1800,
            pool_size=self._pool_size,
            max_overflow=5,
            pool_timeout=10,
            connect_args=connect,
        )
        event.listen(engine, "handle_error", _drop_read_only_session)
        idle = IdleConnections(engine.dialect, self.preparing)
        event.listen(engine, "checkin", idle.note_use)
        event.listen(engine, "checkout", idle.check)
        if self.dialect != "postgresql":
            event.listen(engine, "connect", galera.read_what_all_nodes_committed)
        if uses_psycopg:
            event.listen(engine, "connect", self.preparing.prepare)
            event.listen(engine, "handle_error", idle.drop_mixed_up_session)
            engine.update_execution_options(**{statements.OPTION: idle})
        return engine

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


def _drop_read_only_session(context: ExceptionContext) -> None:
    """
    Treat a read-only session as disconnected, and with it all idle connections of the pool.

    A session that began on a standby, or while the database was read-only, may stay read-only for as long as it lives;
    so does SQLite's connection to a file that was write-protected.  A new session can write once the database can.
    """
    error = context.original_exception
    number = error.args[0] if error.args else None
    context.is_disconnect |= (
        getattr(error, "sqlstate", None) == READ_ONLY_STATE
        or number in _READ_ONLY_NUMBERS
        or getattr(error, "sqlite_errorcode", 0) & 0xFF == _READ_ONLY_CODE
    )


def _open_sqlite(url: URL, pool_size: int) -> Engine:
    assert url.database is not None
    Path(url.database).resolve().parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=pool_size, max_overflow=5, pool_timeout=10, connect_args={"timeout": 30.0})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        # The driver must not begin transactions by itself: ``begin`` sends BEGIN.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("durable_read_only", False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    event.listen(engine, "handle_error", _drop_read_only_session)
    return engine
