"""
Statements of the hot path, made once and on PostgreSQL handed to the driver as they are.

SQLAlchemy's way to the driver and back takes several times what psycopg itself needs for a prepared statement, which a
run of a hundred steps pays a hundred times.  Nothing else changes: the connection is SQLAlchemy's pool's, in whatever
transaction it is, and errors are SQLAlchemy's.  A statement goes its usual way on every other database, in a session
of the application's, and where somebody listens to the engine's statements: tracing shows them all.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, TextClause
from sqlalchemy import exc as sa_exc

#: The option of a connection that may be used so, a ``Trust``: it is one of a store's own, and its driver is psycopg.
OPTION = "durable_prepared"

#: What PostgreSQL says of a session that may not write.
READ_ONLY_STATE = "25006"


class Trust:
    """Whether the connections that rest in a pool are taken for good ones: not those from before one was gone."""

    def __init__(self) -> None:
        self._lost_at = 0.0

    def lose(self) -> None:
        """One was gone; those that rest are likely to be so too."""
        self._lost_at = time.monotonic()

    def covers(self, used_at: float) -> bool:
        """Whether a connection that was used then (by the monotonic clock) is still trusted."""
        return used_at > self._lost_at


class Prepared:
    """One statement, with its parameters by name, and columns that need no conversion."""

    def __init__(self, statement: TextClause | Select[Any]) -> None:
        self._statement = statement
        self._sql = ""
        #: What the statement itself says of its parameters, such as a limit.
        self._given: dict[str, Any] = {}

    def rows(self, tx: Connection, known: Mapping[str, Any]) -> Sequence[Any]:
        """What it returns, with an attribute for each column."""
        if not _is_direct(tx):
            return tx.execute(self._statement, known).all()
        return list(self._cursor(tx, known))

    def one(self, tx: Connection, known: Mapping[str, Any]) -> Any | None:
        """The row of a statement that returns at most one."""
        found = self.rows(tx, known)
        return found[0] if found else None

    def changed(self, tx: Connection, known: Mapping[str, Any]) -> int:
        """How many rows it has changed."""
        if not _is_direct(tx):
            return tx.execute(self._statement, known).rowcount
        return int(self._cursor(tx, known).rowcount)

    def _cursor(self, tx: Connection, known: Mapping[str, Any]) -> Any:
        if not self._sql:
            self._compile(tx)
        driver: Any = tx.connection.driver_connection
        try:
            return driver.cursor(row_factory=_named()).execute(self._sql, {**self._given, **known})
        except tx.dialect.loaded_dbapi.Error as error:
            raise _as_sqlalchemy(tx, driver, self._sql, error) from error
        except BaseException as error:
            # It was interrupted, and nobody knows where: the connection is of no more use.
            tx.invalidate(error)
            raise

    def _compile(self, tx: Connection) -> None:
        compiled = self._statement.compile(dialect=tx.dialect)
        self._given = {name: value for name, value in compiled.params.items() if value is not None}
        self._sql = str(compiled)


@cache
def _named() -> Any:
    """How rows come; psycopg is there where this is called."""
    from psycopg.rows import namedtuple_row

    return namedtuple_row


def _is_direct(tx: Connection) -> bool:
    """Whether the driver may be asked itself: it is a store's own connection, and nobody listens."""
    if OPTION not in tx.get_execution_options():
        return False
    engine, heard = tx.engine, tx.dispatch
    return not (heard.before_cursor_execute or heard.after_cursor_execute or engine.logger.isEnabledFor(logging.INFO))


def _as_sqlalchemy(tx: Connection, driver: Any, sql: str, error: Any) -> sa_exc.StatementError:
    """What SQLAlchemy would raise, without the parameters; a connection that is gone is not used again."""
    is_gone = tx.dialect.is_disconnect(error, driver, None) or getattr(error, "sqlstate", None) == READ_ONLY_STATE
    if is_gone:
        tx.invalidate(error)
        trust: Trust = tx.get_execution_options()[OPTION]
        trust.lose()
    base: Any = tx.dialect.loaded_dbapi.Error
    told: sa_exc.StatementError = sa_exc.DBAPIError.instance(
        sql, None, error, base, hide_parameters=True, connection_invalidated=is_gone, dialect=tx.dialect
    )
    return told
