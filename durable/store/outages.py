"""
Which errors of the database pass by themselves, and retrying a write until the database is back.

Three kinds of errors are told apart: the database cannot be used now (``is_unavailable``), it has undone a transaction
for the sake of another one (``is_contention``), and everything else, which is a mistake in the statement or its data.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import exc as sa_exc

from ..sandbox import log_records

#: SQLSTATEs of PostgreSQL that SQLAlchemy takes for internal errors, but that pass: read-only (a standby), a
#: session that the server has ended, and statements that a pooler has mixed up.
_PASSING_STATES = frozenset({"25006", "25P03", "26000", "42P05"})
#: What no other try can change, although the drivers call it an operational error: limits of PostgreSQL's rows and
#: statements, and MySQL's ``max_allowed_packet``.
_REFUSED_STATES = frozenset({"54000", "54001", "54011", "54023"})
_REFUSED_NUMBERS = frozenset({1153})
#: A deadlock, a serialization failure, a lock timeout: SQLSTATEs of PostgreSQL, error numbers of MySQL.
_CONTENDED_STATES = frozenset({"40001", "40P01", "55P03"})
_CONTENDED_NUMBERS = frozenset({1205, 1213})


#: Delays between attempts while the database is unavailable; the last one repeats.
RETRY_DELAYS_SECS = (0.1, 0.2, 0.5, 1.0, 2.0)

T = TypeVar("T")

log = log_records.get("durable.steps")


def retry_until_available(write: Callable[[], T], tries: float = math.inf) -> T:
    """
    Call *write* until the database is available, and return its result.

    A commit may succeed although its acknowledgment is lost.  So *write* must be guarded, by the claim for example: the
    second time it then finds nothing to do.

    Args:
        tries: How often to call it before the database's error is raised.
    """
    for number in itertools.count(1):
        try:
            return write()
        except Exception as error:
            if not is_unavailable(error) or number >= tries:
                raise
            pause = RETRY_DELAYS_SECS[min(number, len(RETRY_DELAYS_SECS)) - 1]
            log.warning("The database cannot be used now (%s); trying again in %s s.", reason(error), pause)
            time.sleep(pause)
    raise AssertionError("itertools.count ends")


def is_unavailable(error: BaseException) -> bool:
    """
    Whether the database cannot be used now; the statement itself may be right.

    The server is down, full, read-only or out of connections, or a lock could not be had.
    """
    if isinstance(error, sa_exc.DBAPIError) and (
        _number(error) in _REFUSED_NUMBERS or getattr(error.orig, "sqlstate", None) in _REFUSED_STATES
    ):
        return False
    if isinstance(error, sa_exc.OperationalError | sa_exc.InterfaceError | sa_exc.TimeoutError):
        return True
    if not isinstance(error, sa_exc.DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _PASSING_STATES


def is_contention(error: BaseException) -> bool:
    """Whether the database has undone this transaction for the sake of another one: it can be repeated at once."""
    if not isinstance(error, sa_exc.DBAPIError) or error.orig is None:
        return False
    return getattr(error.orig, "sqlstate", None) in _CONTENDED_STATES or _number(error) in _CONTENDED_NUMBERS


def _number(error: sa_exc.DBAPIError) -> object:
    """MySQL's number of an error."""
    return error.orig.args[0] if error.orig is not None and error.orig.args else None


def reason(error: BaseException) -> str:
    """The database's own error message, in one line."""
    cause = getattr(error, "orig", None) or error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"
