"""
PostgreSQL behind a pooler such as PgBouncer, which may give each transaction another session of the server.

A statement that was prepared in one session is unknown in the next one, or is another client's under the same name.  So
durable prepares no statements behind a pooler, unless the setting ``prepared_statements`` is ``on``.  A pooler shows
itself by the number of the session: a client is told one when it connects, and the server knows another.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy.engine import URL

from ..errors import ConfigurationError
from ..sandbox import log_records

#: The values of the setting ``prepared_statements``.
AUTO, ON, OFF = CHOICES = ("auto", "on", "off")

#: SQLSTATEs for a prepared statement that is unknown in this session, or known although this client has not made it.
POOLER_STATES = frozenset({"26000", "42P05"})

#: What to do about a pooler.
ADVICE = (
    "Set DURABLE_PREPARED_STATEMENTS=on if the pooler keeps prepared statements (max_prepared_statements of PgBouncer"
    " 1.21), which saves time; else set it to off."
)

_PARAMETER = "prepare_threshold"

log = log_records.get("durable.store")


class Preparing:
    """Whether the connections of a store prepare statements."""

    def __init__(self, setting: str, url: URL) -> None:
        """
        Args:
            setting: One of ``CHOICES``.
            url: May have ``?prepare_threshold=``: a number, or ``none``, which counts more than *setting*.

        Raises:
            ConfigurationError: The threshold is neither.
        """
        #: Keywords of ``psycopg.connect``.
        self.connect: dict[str, Any] = {}
        #: Whether a connection goes through a pooler; None until there was one.
        self.has_pooler: bool | None = None
        given = url.query.get(_PARAMETER)
        if given is not None:
            self.connect[_PARAMETER] = _threshold(str(given))
        elif setting == OFF:
            self.connect[_PARAMETER] = None
        #: Whether neither the setting nor the URL says what to do.
        self.finds_out = setting == AUTO and not self.connect
        self._is_off = False

    @property
    def is_off(self) -> bool:
        """Whether no statements are prepared, because of the setting or of what was found."""
        return self._is_off or self.connect.get(_PARAMETER, 0) is None

    def prepare(self, connection: Any, _record: object) -> None:
        """Find out about a new connection; a listener for the pool's "connect"."""
        told = connection.info.backend_pid
        cursor = connection.cursor()
        cursor.execute("SELECT pg_backend_pid()")
        self.has_pooler = cursor.fetchone()[0] != told
        cursor.close()
        if self.has_pooler and self.finds_out:
            self._switch_off(logging.INFO, "The database is behind a pooler such as PgBouncer")
        if self._is_off:
            # SQLAlchemy wraps the connections of event loops.
            getattr(connection, "driver_connection", connection).prepare_threshold = None

    def note_error(self, error: BaseException) -> bool:
        """Whether an error says that this connection must not be used again, since a pooler mixes up its statements."""
        if getattr(error, "sqlstate", None) not in POOLER_STATES:
            return False
        self._switch_off(logging.WARNING, f"A prepared statement was lost ({str(error).splitlines()[0]})")
        return True

    def _switch_off(self, level: int, why: str) -> None:
        if not self._is_off:
            log.log(level, "%s: no statements are prepared from now on.  %s", why, ADVICE)
        self._is_off = True


def without_threshold(url: URL) -> URL:
    """The URL without ``prepare_threshold``, which SQLAlchemy would hand to psycopg as a text."""
    return url.difference_update_query([_PARAMETER])


def _threshold(given: str) -> int | None:
    if given.lower() == "none":
        return None
    if not given.isdecimal():
        raise ConfigurationError(
            f"database_url has prepare_threshold={given!r}.  Write a number, after how many executions psycopg prepares"
            " a statement, or none, and it prepares none."
        )
    return int(given)
