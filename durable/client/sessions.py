"""
The caller's SQLAlchemy session, for ``start(session=…)``: which database it writes to, and when its transaction ends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from ..errors import ConfigurationError

#: Key in ``session.info`` of the calls to make when the session's transaction ends.
_WAITING = "durable_waiting"
_PORTS = {"postgresql": 5432, "mysql": 3306}
_LOCAL = (None, "localhost", "127.0.0.1", "::1")


def of(given: Any) -> Session:
    """Return the session behind what the caller passes: Flask-SQLAlchemy's ``db.session`` is a scoped session."""
    session = given() if isinstance(given, scoped_session) else given
    if not isinstance(session, Session):
        raise TypeError(
            f"session={given!r} is not a SQLAlchemy Session: pass the one whose transaction starts the run."
        )
    return session


def connection(session: Session, ours: URL) -> Connection:
    """
    Return the connection of the session's transaction, and begin that if it has not begun.

    Raises:
        ConfigurationError: The session does not write to the database *ours*.
    """
    try:
        tx = session.connection()
    except UnboundExecutionError as error:
        raise ConfigurationError(
            f"The session has no database of its own ({error}).  Bind it to {ours.render_as_string()}, where the"
            " run has to be written."
        ) from error
    if _place(tx.engine.url) != _place(ours):
        raise ConfigurationError(
            f"The session writes to {tx.engine.url.render_as_string()}, the engine's database is"
            f" {ours.render_as_string()}: a run can only start in a transaction of its own database."
            "  Give both the same URL, or leave session= out."
        )
    return tx


def _place(url: URL) -> tuple[object, ...]:
    """Return what identifies a database, without driver and user."""
    kind = url.get_backend_name().replace("mariadb", "mysql")
    if kind == "sqlite":
        return kind, Path(url.database or "").resolve()
    # A URL with a Unix socket has its folder in the query, and no host.
    host = "localhost" if url.host in _LOCAL else url.host
    return kind, host, url.port or _PORTS.get(kind), url.database


def when_over(session: Session, act: Callable[[], object]) -> None:
    """Call *act* once the session's outermost transaction has ended, committed or not."""

    def on_transaction_end(session: Session, transaction: SessionTransaction) -> None:
        # Savepoints, and the transactions within a flush, have a parent.
        if transaction.parent is None:
            waiting, session.info[_WAITING] = session.info[_WAITING], []
            for each in waiting:
                each()

    if _WAITING not in session.info:
        session.info[_WAITING] = []
        event.listen(session, "after_transaction_end", on_transaction_end)
    session.info[_WAITING].append(act)
