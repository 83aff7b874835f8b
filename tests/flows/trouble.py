"""A database that goes away for a moment, in the middle of something: really, by the database's own means."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa
from servers import ADMIN

from durable import Durable

_KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mysql": ("SELECT CONNECTION_ID()", "KILL {}"),
}


@contextmanager
def cut_off(engine: Durable, statement: str, transaction: int = 1) -> Iterator[list[str]]:
    """
    The next statement that begins so finds its connection cut, which was whole before.

    On SQLite, where there is nothing to cut, the writing *transaction* of this number (1…) finds the file locked.
    Yields what was cut.
    """
    cut: list[str] = []

    def before(connection: sa.Connection, cursor: Any, said: str, *_: Any) -> None:
        if not cut and _begins(said, statement):
            cut.append(said)
            _cut(engine, cursor)

    with _locking(engine, cut, transaction) if engine.store.dialect == "sqlite" else _listening(engine, before):
        yield cut


def _begins(said: str, statement: str) -> bool:
    """Whether this is the statement, or on PostgreSQL one that has it for a part."""
    words = " ".join(said.split())
    is_of_parts = words.startswith("WITH ")
    return words.startswith(statement) or (is_of_parts and any(f"{at}{statement}" in words for at in (" AS (", ") ")))


@contextmanager
def _listening(engine: Durable, before: Any) -> Iterator[None]:
    sa.event.listen(engine.store.engine, "before_cursor_execute", before)
    yield
    sa.event.remove(engine.store.engine, "before_cursor_execute", before)


def _cut(engine: Durable, cursor: Any) -> None:
    mine, kill = _KILL[engine.store.dialect]
    cursor.execute(mine)
    (number,) = cursor.fetchone()
    admin = sa.create_engine(ADMIN["mariadb" if engine.store.dialect == "mysql" else "postgresql"])
    with admin.connect() as connection:
        connection.exec_driver_sql(kill.format(number))
    admin.dispose()


@contextmanager
def _locking(engine: Durable, cut: list[str], number: int) -> Iterator[None]:
    """Hold the file's write lock when the transaction begins, until it is tried again."""
    lock = sqlite3.connect(str(engine.store.url.database), isolation_level=None)
    begun = itertools.count(1)

    def impatient(connection: Any, *_: Any) -> None:
        connection.execute("PRAGMA busy_timeout = 10")

    def before(_connection: Any, _cursor: Any, said: str, *_: Any) -> None:
        if said != "BEGIN IMMEDIATE":
            return
        if lock.in_transaction:
            lock.execute("ROLLBACK")
        elif next(begun) == number:
            cut.append(said)
            lock.execute("BEGIN IMMEDIATE")

    sa.event.listen(engine.store.engine, "checkout", impatient)
    with _listening(engine, before):
        yield
    sa.event.remove(engine.store.engine, "checkout", impatient)
    lock.close()


@contextmanager
def refused(engine: Durable, statement: str, how: str, *, always: bool = False) -> Iterator[list[str]]:
    """
    The next statement that begins so, or each, is refused by the server: *how* is ``deadlock`` or another key below.

    The server is made to raise its own error in the statement's place.  Yields what was refused.
    """
    hit: list[str] = []
    error = _REFUSALS[engine.store.dialect][how]

    def before(_connection: Any, _cursor: Any, said: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        if (hit and not always) or not _begins(said, statement):
            return said, parameters
        hit.append(said)
        return error, ()

    sa.event.listen(engine.store.engine, "before_cursor_execute", before, retval=True)
    yield hit
    sa.event.remove(engine.store.engine, "before_cursor_execute", before)


_REFUSALS = {
    "postgresql": {
        "deadlock": "DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$",
        "serialization": "DO $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$",
        "too long": "DO $$ BEGIN RAISE EXCEPTION 'value too long' USING ERRCODE = '22001'; END $$",
        "too big": "DO $$ BEGIN RAISE EXCEPTION 'row is too big' USING ERRCODE = '54000'; END $$",
    },
    "mysql": {
        "deadlock": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'",
        "serialization": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205, MESSAGE_TEXT = 'Lock wait timeout'",
        "too long": "SIGNAL SQLSTATE '22001' SET MYSQL_ERRNO = 1406, MESSAGE_TEXT = 'value too long'",
        "too big": "SIGNAL SQLSTATE '08S01' SET MYSQL_ERRNO = 1153, MESSAGE_TEXT = 'row is too big'",
    },
}


@contextmanager
def unacknowledged(engine: Durable, number: int = 1) -> Iterator[list[str]]:
    """The commit of this number (1…) is applied, and its connection breaks before anybody is told.  Yields which."""
    dialect = engine.store.engine.dialect
    commit, execute, counted = dialect.do_commit, dialect.do_execute, itertools.count(1)
    lost: list[str] = []

    def lose() -> None:
        if next(counted) == number:
            lost.append("the acknowledgement")
            assert dialect.dbapi is not None
            raise dialect.dbapi.OperationalError("server closed the connection unexpectedly")

    def commit_and_lose(connection: Any) -> None:
        commit(connection)
        lose()

    def execute_and_lose(cursor: Any, statement: str, *more: Any) -> None:
        execute(cursor, statement, *more)
        if statement.startswith("WITH ") and getattr(cursor.connection, "autocommit", False):
            # A transaction of one statement.
            lose()

    dialect.do_commit, dialect.do_execute = commit_and_lose, execute_and_lose  # type: ignore[method-assign, assignment]
    try:
        # With a listener registered, SQLAlchemy's dialect executes each statement.
        with _listening(engine, lambda *_: None):
            yield lost
    finally:
        del dialect.do_commit, dialect.do_execute


@contextmanager
def read_only(engine: Durable) -> Iterator[None]:
    """
    Make each new session read-only, as a provider does when the disk is full, or as with a protected SQLite file.

    Sessions stay read-only after this context ends: later writes in them fail.
    """
    said = {
        "postgresql": "SET default_transaction_read_only = on",
        "mysql": "SET SESSION TRANSACTION READ ONLY",
        "sqlite": "PRAGMA query_only = ON",
    }[engine.store.dialect]

    def connect(connection: Any, _record: Any) -> None:
        with closing(connection.cursor()) as cursor:
            cursor.execute(said)
        if engine.store.dialect != "sqlite":
            connection.commit()

    sa.event.listen(engine.store.engine, "connect", connect)
    engine.store.close()
    try:
        yield
    finally:
        sa.event.remove(engine.store.engine, "connect", connect)
