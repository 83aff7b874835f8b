"""
The caller's SQLAlchemy session, as far as a start has to know it: where it writes, and when its transaction is over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from ..errors import ConfigurationError

#: Where a session keeps what is to be done when its transaction is over.
_WAITING = "durable_waiting"
_PORTS = {"postgresql": 5432, "mysql": 3306}
_LOCAL = (None, "localhost", "127.0.0.1", "::1")


def of(given: Any) -> Session:
    """The session itself, of what frameworks pass around: Flask-SQLAlchemy's ``db.session`` is a scoped one."""
    session = given() if isinstance(given, scoped_session) else given
    if not isinstance(session, Session):
        raise TypeError(f"session={given!r} is no SQLAlchemy Session: pass the one whose transaction starts the run.")
    return session


def connection(session: Session, ours: URL) -> Connection:
    """
    The connection of the session's transaction, which is begun if need be.

    Raises:
        ConfigurationError: It does not write to the database *ours*.
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
    """What tells two databases apart, whatever driver and user reach them."""
    kind = url.get_backend_name().replace("mariadb", "mysql")
    if kind == "sqlite":
        return kind, Path(url.database or "").resolve()
    # A host in the query is the folder of a Unix socket.
    host = "localhost" if url.host in _LOCAL else url.host
    return kind, host, url.port or _PORTS.get(kind), url.database


def when_over(session: Session, act: Callable[[], object]) -> None:
    """Call *act* once the outermost transaction has ended, committed or not."""
    if _WAITING not in session.info:
        session.info[_WAITING] = []
        event.listen(session, "after_transaction_end", _ended)
    session.info[_WAITING].append(act)


def _ended(session: Session, transaction: SessionTransaction) -> None:
    # Savepoints, and the transactions within a flush, have a parent.
    if transaction.parent is None:
        waiting, session.info[_WAITING] = session.info[_WAITING], []
        for act in waiting:
            act()
