"""SQLAlchemy's engines: the options of their connections, and when a connection is not used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, PoolResetState, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

from ..errors import ConfigurationError
from . import galera, poolers, statements
from .poolers import Preparing
from .statements import READ_ONLY_STATE, IdleConnections

#: SQLAlchemy's name of the driver whose connections an event loop can wait for.
PSYCOPG = "postgresql+psycopg"

_EXTRAS = {"psycopg": "postgres", "pymysql": "mysql"}

#: Errors of a read-only session: numbers of MySQL and MariaDB, the code of SQLite.  See also ``READ_ONLY_STATE``.
_READ_ONLY_NUMBERS = frozenset({1290, 1792, 1836})
_READ_ONLY_CODE = 8

#: The flag of a session's status by which MySQL and MariaDB say that it is in a transaction.
_IN_TRANSACTION = 0x0001


def open_engine(
    url: URL, pool_size: int, preparing: Preparing, schema: str | None, *, waits_in_loop: bool = False
) -> Engine:
    """
    Make an engine, which opens its connections when they are used.

    Args:
        url: With the driver.
        waits_in_loop: Its connections wait in the event loop, and are used in greenlets only.  With psycopg only.

    Raises:
        ConfigurationError: The driver is not installed.
    """
    try:
        if url.get_backend_name() == "sqlite":
            return _open_sqlite(url, pool_size)
        return _open_server(url, pool_size, preparing, schema, waits_in_loop=waits_in_loop)
    except ModuleNotFoundError as missing:
        extra = _EXTRAS.get(missing.name or "")
        raise ConfigurationError(
            f"database_url needs the driver {missing.name!r}, which is not installed"
            + (f": pip install 'durable-celery[{extra}]'." if extra else ".")
        ) from None


def _open_server(url: URL, pool_size: int, preparing: Preparing, schema: str | None, *, waits_in_loop: bool) -> Engine:
    is_postgresql, uses_psycopg = url.get_backend_name() == "postgresql", url.drivername == PSYCOPG
    connect: dict[str, Any] = {"connect_timeout": 5}
    if is_postgresql:
        # Without keepalives a connection to a vanished server blocks a step for the kernel's 15 minutes.
        connect |= {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    if schema is not None:
        # The application's own tables are found too, in a transactional step.
        given = url.query.get("options", "")
        connect |= {"options": f"{given} -csearch_path={schema},public".strip()}
    # Values are any Unicode text, whatever encoding the URL, the environment or the server selects.
    connect |= {"client_encoding": "utf8"} if is_postgresql else {"charset": "utf8mb4"}
    if uses_psycopg:
        connect |= preparing.connect
        url = poolers.without_threshold(url)
    options: dict[str, Any] = {
        "isolation_level": "AUTOCOMMIT" if is_postgresql else "READ COMMITTED",
        "skip_autocommit_rollback": True,
        "pool_recycle": 1800,
        "pool_size": pool_size,
        "max_overflow": 5,
        "pool_timeout": 10,
        "connect_args": connect,
    }
    if not is_postgresql:
        options["pool_reset_on_return"] = None
    if waits_in_loop:
        from sqlalchemy.ext.asyncio import create_async_engine  # it needs greenlets, which are optional

        engine = create_async_engine(url, **options).sync_engine
    else:
        engine = create_engine(url, **options)
    event.listen(engine, "handle_error", _drop_read_only_session)
    idle = IdleConnections(engine.dialect, preparing)
    event.listen(engine, "checkin", idle.note_use)
    event.listen(engine, "checkout", idle.check)
    if not is_postgresql:
        event.listen(engine, "connect", galera.read_what_all_nodes_committed)
        event.listen(engine, "reset", _roll_back)
    if uses_psycopg:
        event.listen(engine, "connect", preparing.prepare)
        event.listen(engine, "handle_error", idle.drop_mixed_up_session)
        event.listen(engine, "handle_error", idle.note_disconnect)
        engine.update_execution_options(**{statements.OPTION: idle})
    return engine


def _roll_back(connection: Any, _record: object, state: PoolResetState) -> None:
    """
    Roll back what a connection of MySQL or MariaDB has open when it goes back to the pool.

    SQLAlchemy would also send ROLLBACK after each commit, which costs a round trip.  PyMySQL knows from the answer to
    the last statement whether the session is in a transaction.
    """
    is_open = getattr(connection, "server_status", _IN_TRANSACTION) & _IN_TRANSACTION
    if is_open and not state.transaction_was_reset and not state.terminate_only:
        connection.rollback()


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
