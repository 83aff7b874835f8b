"""Connections, transactions and the database's clock, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
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

from .. import failpoints
from ..errors import ConfigurationError
from . import statements
from .outages import is_contention
from .statements import READ_ONLY_STATE, Trust
from .vault import OPTION, Vault

T = TypeVar("T")

_DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}

#: Microseconds since 1970 UTC, as each database says it.
NOW = {
    "postgresql": "(extract(epoch from clock_timestamp()) * 1000000)::bigint",
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "mariadb": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000",
}

#: How long a measured difference to the database's clock is trusted.
_CLOCK_TRUST_SECS = 30.0

#: A connection that has rested for longer is asked whether it still works before it is used.
_REST_SECS = 1.0

_READ_ONLY = {"durable_read_only": True}


#: What reads only: a SQLSTATE of PostgreSQL, numbers of MySQL and MariaDB, the code of SQLite.
_READ_ONLY_NUMBERS = frozenset({1290, 1792, 1836})
_READ_ONLY_CODE = 8


def parse_url(given: str) -> URL:
    """The SQLAlchemy URL with the driver that we are tested with; ConfigurationError for another database."""
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
    """One database.  Making it does no I/O; connections are opened when used, anew after a fork."""

    def __init__(self, url: str, pool_size: int) -> None:
        self.url = parse_url(url)
        self.dialect = self.url.get_backend_name()
        self._sql_now = literal_column(NOW[self.dialect], BigInteger)
        self._pool_size = pool_size
        self._engine: Engine | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._clock: tuple[int, float] | None = None
        self.vault = Vault()
        # PostgreSQL's connections rest in autocommit: each statement sees what is committed, so a transaction around
        # reads would only cost two round trips.  SQLite needs one: it says who may be kept waiting.
        self._reading = {} if self.dialect == "postgresql" else _READ_ONLY
        self._writing = {"isolation_level": "READ COMMITTED"} if self.dialect == "postgresql" else {}

    @property
    def vault(self) -> Vault:
        """What values pass through on their way in and out; to be set before the store is used."""
        return self._vault

    @vault.setter
    def vault(self, vault: Vault) -> None:
        vault.now = self.now
        self._vault = vault

    @property
    def sql_now(self) -> ColumnElement[int]:
        """The database's time, in microseconds, as it says it itself within a statement."""
        return self._sql_now

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction that may write.  On SQLite it takes the write lock at once."""
        with self.connect() as tx, tx.begin():
            self._measure(tx)
            yield tx
            failpoints.hit("commit.before")
        failpoints.hit("commit.after")

    def connect(self) -> Connection:
        """A connection for transactions that write."""
        return _with(self.engine.connect(), self._writing)

    @contextmanager
    def once(self) -> Iterator[Connection]:
        """A transaction of a single statement: on PostgreSQL that is one by itself, and needs no BEGIN and COMMIT."""
        if self.dialect != "postgresql":
            with self.begin() as tx:
                yield tx
            return
        with self.read() as tx:
            failpoints.hit("commit.before")
            yield tx
        failpoints.hit("commit.after")

    def write(self, act: Callable[[Connection], T], *, once: bool = False) -> T:
        """
        What *act* does and returns in a transaction; done again when the database undid it for another's sake.

        Args:
            once: It is a single statement on PostgreSQL.
        """
        for last in (False, False, True):
            try:
                with self.once() if once else self.begin() as tx:
                    return act(tx)
            except sa_exc.DBAPIError as error:
                if last or not is_contention(error):
                    raise
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading: SQLite's writers are not kept waiting."""
        with _with(self.engine.connect(), self._reading) as tx:
            self._measure(tx)
            yield tx

    def now(self) -> int:
        """The database's time in microseconds, by the difference measured last."""
        if self._clock is None:
            with self.read():
                pass
        assert self._clock is not None
        offset, _ = self._clock
        return offset + time.monotonic_ns() // 1000

    @property
    def engine(self) -> Engine:
        """This process's SQLAlchemy engine: a connection never crosses a fork."""
        if self._engine is None or self._pid != os.getpid():
            with self._lock:
                self._renew()
        assert self._engine is not None
        return self._engine

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()

    def _renew(self) -> None:
        if self._engine is not None and self._pid == os.getpid():
            return
        if self._engine is not None:
            self._engine.dispose(close=False)
            self._clock = None
        self._engine = self._open()
        self._pid = os.getpid()

    def _open(self) -> Engine:
        try:
            opened = _open_sqlite(self.url, self._pool_size) if self.dialect == "sqlite" else self._open_server()
        except ModuleNotFoundError as missing:
            extra = _EXTRAS.get(missing.name or "")
            raise ConfigurationError(
                f"database_url wants the driver {missing.name!r}, which is not installed"
                + (f": pip install 'durable-celery[{extra}]'." if extra else ".")
            ) from None
        opened.update_execution_options(**{OPTION: self._vault})
        return opened

    def _open_server(self) -> Engine:
        connect: dict[str, Any] = {"connect_timeout": 5}
        if self.dialect == "postgresql":
            # A connection whose peer vanished must not hold a step for the kernel's 15 minutes.
            connect |= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
        # Text is any Unicode, whatever the URL, the environment or the server asks for.
        connect |= {"client_encoding": "utf8"} if self.dialect == "postgresql" else {"charset": "utf8mb4"}
        engine = create_engine(
            self.url,
            isolation_level="AUTOCOMMIT" if self.dialect == "postgresql" else "READ COMMITTED",
            skip_autocommit_rollback=True,
            pool_recycle=1800,
            pool_size=self._pool_size,
            max_overflow=5,
            pool_timeout=10,
            connect_args=connect,
        )
        event.listen(engine, "handle_error", _drop_what_reads_only)
        event.listen(engine, "checkin", _note_use)
        trust = Trust()
        event.listen(engine, "checkout", partial(_ping_after_a_rest, engine, trust))
        if engine.dialect.driver == "psycopg":
            engine.update_execution_options(**{statements.OPTION: trust})
        return engine

    def _measure(self, tx: Connection) -> None:
        before = time.monotonic()
        if self._clock is not None and before - self._clock[1] < _CLOCK_TRUST_SECS:
            return
        database_now = int(tx.execute(text(f"SELECT {NOW[self.dialect]}")).scalar_one())
        middle = (before + time.monotonic()) / 2
        self._clock = (database_now - int(middle * 1_000_000), middle)


def _with(connection: Connection, options: dict[str, Any]) -> Connection:
    return connection.execution_options(**options) if options else connection


def _drop_what_reads_only(context: ExceptionContext) -> None:
    """
    Take a session that may not write for a broken one, and all that rest in the pool.

    It may stay so for as long as it lives: it was begun on a standby, or while the database was set to
    read-only, or SQLite opened a protected file.  A new one writes as soon as the database does.
    """
    error = context.original_exception
    number = error.args[0] if error.args else None
    context.is_disconnect |= (
        getattr(error, "sqlstate", None) == READ_ONLY_STATE
        or number in _READ_ONLY_NUMBERS
        or getattr(error, "sqlite_errorcode", 0) & 0xFF == _READ_ONLY_CODE
    )


def _note_use(connection: Any, record: Any) -> None:
    record.info["durable_used"] = time.monotonic()


def _ping_after_a_rest(engine: Engine, trust: Trust, connection: Any, record: Any, _proxy: object) -> None:
    """As pool_pre_ping, but not for a connection that has just been used: it costs a round trip."""
    used_at = record.info.get("durable_used")
    if used_at is not None and not trust.covers(used_at):
        raise sa_exc.InvalidatePoolError
    if used_at is not None and time.monotonic() - used_at < _REST_SECS:
        return
    try:
        alive = engine.dialect.do_ping(connection)
    except Exception:
        alive = False
    if not alive:
        raise sa_exc.InvalidatePoolError


def _open_sqlite(url: URL, pool_size: int) -> Engine:
    assert url.database is not None
    Path(url.database).resolve().parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=pool_size, max_overflow=5, pool_timeout=10, connect_args={"timeout": 30.0})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "handle_error", _drop_what_reads_only)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own idea of when to begin is switched off: we say BEGIN ourselves.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("durable_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
