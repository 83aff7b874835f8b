"""
Prepared statements of the hot path, which on PostgreSQL go to psycopg directly.

SQLAlchemy needs several times as much CPU time as psycopg for a prepared statement, and a run of a hundred steps
executes hundreds.  The connection is one of SQLAlchemy's pool, in whatever transaction it is, and errors are
SQLAlchemy's.  A statement goes through SQLAlchemy on every other database, in a session of the application, and where
event listeners or logging watch the engine's statements.  The listeners of OpenTelemetry's instrumentation do not
count: durable's own statements need no spans.
"""

from __future__ import annotations

import logging
import select as selecting
from collections.abc import Iterable, Mapping, Sequence

# The function itself: the guards of workflow code put a slower one into the module.
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Dialect, Select, TextClause
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import ExceptionContext

from .. import greenlets
from .poolers import Preparing

#: The execution option of a store's own connections with psycopg; its value is the pool's ``IdleConnections``.
OPTION = "durable_prepared"

#: When a connection was used that was kept until it went back to the pool; a key of its ``info``.
KEPT = "durable_kept"

#: PostgreSQL's SQLSTATE in a read-only session.
READ_ONLY_STATE = "25006"

#: A pooled connection that was idle for longer is pinged before it is used.
_IDLE_SECS = 1.0

#: The module of OpenTelemetry's instrumentation of SQLAlchemy.
_INSTRUMENTATION = "opentelemetry.instrumentation.sqlalchemy"


class IdleConnections:
    """
    The idle connections of a pool: which of them can be used, by listeners for its "checkin" and "checkout".

    Once one is found broken, none is used that was idle then.
    """

    def __init__(self, dialect: Dialect, preparing: Preparing) -> None:
        self.preparing = preparing
        self._dialect = dialect
        self._broken_at = 0.0

    def distrust(self) -> None:
        """A connection was broken; those that are idle now are likely to be broken too."""
        self._broken_at = monotonic()

    def drop_mixed_up_session(self, context: ExceptionContext) -> None:
        """Treat a session as disconnected whose pooler mixes up prepared statements; a listener for "handle_error"."""
        error = context.original_exception
        context.is_disconnect |= error is not None and self.preparing.note_error(error)

    def is_trusted(self, used_at: float) -> bool:
        """Whether no connection was found broken since one was used."""
        return used_at > self._broken_at

    def note_disconnect(self, context: ExceptionContext) -> None:
        """Distrust the connections that are idle when SQLAlchemy finds one broken; a listener for "handle_error"."""
        if context.is_disconnect:
            self.distrust()

    def note_use(self, _connection: object, record: Any) -> None:
        """Note that a connection was used until now, or until it was kept."""
        record.info["durable_used"] = record.info.pop(KEPT, None) or monotonic()

    def check(self, connection: Any, record: Any, _proxy: object) -> None:
        """
        As SQLAlchemy's ``pool_pre_ping``, but without the round trip where it would find nothing.

        That is so if the connection was used a moment ago; and on PostgreSQL if its socket is open and has nothing to
        read: a server or pooler that ends a session closes the socket, and the kernel does for one that has vanished
        (``keepalives_idle``).
        """
        used_at = record.info.get("durable_used")
        if used_at is not None:
            if not self.is_trusted(used_at):
                raise sa_exc.InvalidatePoolError
            if monotonic() - used_at < _IDLE_SECS or _is_quiet(connection):
                return
        try:
            is_alive = self._dialect.do_ping(connection)
        except Exception:
            is_alive = False
        if not is_alive:
            self.distrust()
            raise sa_exc.InvalidatePoolError


def _is_quiet(adapted: Any) -> bool:
    """Whether a connection of psycopg's is open, and its server has sent nothing; False where nothing tells."""
    # SQLAlchemy wraps the connections of event loops.
    connection = getattr(adapted, "driver_connection", adapted)
    if not hasattr(connection, "pgconn") or connection.closed:
        return False
    poll = selecting.poll()
    poll.register(connection.fileno(), selecting.POLLIN)
    return not poll.poll(0)


def array(values: Iterable[str | int | None]) -> str:
    """
    The values as PostgreSQL writes an array, for a parameter that a statement casts to an array.

    psycopg converts a list too, but takes ten times as long as for a text.
    """
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(value)
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if '"' in value:
        value = value.replace('"', '\\"')
    return f'"{value}"'


class Prepared:
    """One statement with named parameters, whose columns need no conversion by SQLAlchemy."""

    def __init__(self, statement: TextClause | Select[Any]) -> None:
        self._statement = statement
        self._sql = ""
        #: Parameters that the statement itself has, such as a limit.
        self._own_parameters: dict[str, Any] = {}

    def rows(self, tx: Connection, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """The rows, with an attribute for each column."""
        if not _is_direct(tx):
            return tx.execute(self._statement, parameters).all()
        rows: Sequence[Any] = _ready(tx, self._cursor(tx, parameters).fetchall())
        return rows

    def one(self, tx: Connection, parameters: Mapping[str, Any]) -> Any | None:
        """The row of a statement that returns at most one."""
        found = self.rows(tx, parameters)
        return found[0] if found else None

    def changed(self, tx: Connection, parameters: Mapping[str, Any]) -> int:
        """The number of rows that it has changed."""
        if not _is_direct(tx):
            return tx.execute(self._statement, parameters).rowcount
        return int(self._cursor(tx, parameters).rowcount)

    @staticmethod
    def changed_by_each(tx: Connection, calls: Sequence[tuple[Prepared, Mapping[str, Any]]]) -> list[int]:
        """How many rows each of these statements has changed, which go to PostgreSQL in one round trip."""
        if not _is_direct(tx):
            return [prepared.changed(tx, parameters) for prepared, parameters in calls]
        driver: Any = tx.connection.driver_connection
        try:
            with driver.pipeline():
                cursors = [prepared._cursor(tx, parameters) for prepared, parameters in calls]
        except tx.dialect.loaded_dbapi.Error as error:
            # Of the end of the pipeline, which waits for the answers.
            raise _as_sqlalchemy(tx, driver, "; ".join(prepared._sql for prepared, _ in calls), error) from error
        return [int(cursor.rowcount) for cursor in cursors]

    def _cursor(self, tx: Connection, parameters: Mapping[str, Any]) -> Any:
        from psycopg.rows import namedtuple_row  # an optional dependency

        if not self._sql:
            compiled = self._statement.compile(dialect=tx.dialect)
            self._own_parameters = {name: value for name, value in compiled.params.items() if value is not None}
            self._sql = str(compiled)
        driver: Any = tx.connection.driver_connection
        try:
            cursor = driver.cursor(row_factory=namedtuple_row)
            return _ready(tx, cursor.execute(self._sql, {**self._own_parameters, **parameters}))
        except tx.dialect.loaded_dbapi.Error as error:
            raise _as_sqlalchemy(tx, driver, self._sql, error) from error
        except BaseException as error:
            # A signal handler has raised in the middle of the protocol: the connection cannot be used any more.
            tx.invalidate(error)
            raise


def _ready(tx: Connection, result: Any) -> Any:
    """What a method of psycopg returns; the connections of an event loop return an awaitable, to be waited for."""
    return greenlets.wait(result) if tx.dialect.is_async else result


def _is_direct(tx: Connection) -> bool:
    """Whether to go to psycopg directly: it is a store's own connection, and nothing watches its statements."""
    if OPTION not in tx.get_execution_options():
        return False
    engine, listeners = tx.engine, tx.dispatch
    watching = (*listeners.before_cursor_execute, *listeners.after_cursor_execute)
    # OpenTelemetry's instrumentation makes no spans of durable's own statements; see Store.quiet.
    is_watched = any(not str(getattr(each, "__module__", "")).startswith(_INSTRUMENTATION) for each in watching)
    return not (is_watched or engine.logger.isEnabledFor(logging.INFO))


def _as_sqlalchemy(tx: Connection, driver: Any, sql: str, error: Any) -> sa_exc.StatementError:
    """The error that SQLAlchemy would raise, without the parameters; invalidates a connection that is broken."""
    idle: IdleConnections = tx.get_execution_options()[OPTION]
    is_read_only = getattr(error, "sqlstate", None) == READ_ONLY_STATE
    is_broken = is_read_only or idle.preparing.note_error(error) or tx.dialect.is_disconnect(error, driver, None)
    if is_broken:
        tx.invalidate(error)
        idle.distrust()
    base: Any = tx.dialect.loaded_dbapi.Error
    wrapped: sa_exc.StatementError = sa_exc.DBAPIError.instance(
        sql, None, error, base, hide_parameters=True, connection_invalidated=is_broken, dialect=tx.dialect
    )
    return wrapped
