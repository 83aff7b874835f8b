"""Writing through an outage of the database."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import exc as sa_exc

from ..sandbox import log_records

#: What PostgreSQL calls an internal error, and is none: read-only (a standby), a session it has ended.
_PASSING_STATES = frozenset({"25006", "25P03"})
#: A deadlock, a serialization failure, a lock waited for in vain: SQLSTATEs of PostgreSQL, numbers of MySQL.
_CONTENDED_STATES = frozenset({"40001", "40P01", "55P03"})
_CONTENDED_NUMBERS = frozenset({1205, 1213})


#: How long a process waits between two tries while the database is away.
RETRY_DELAYS_SECS = (0.1, 0.2, 0.5, 1.0, 2.0)

T = TypeVar("T")

log = log_records.get("durable.steps")


def retry_until_available(write: Callable[[], T], tries: float = math.inf) -> T:
    """
    Do a write, or a read that it depends on, again until the database answers.

    A write is guarded by the claim, so that one whose commit was applied but not acknowledged finds
    nothing to do the second time.

    Args:
        tries: After so many the database's error is raised.
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
    Whether *error* says that the database cannot be used now, rather than that a statement is wrong.

    It may be away, full, read-only, out of connections or in each other's way.
    """
    if isinstance(error, sa_exc.OperationalError | sa_exc.InterfaceError | sa_exc.TimeoutError):
        return True
    if not isinstance(error, sa_exc.DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _PASSING_STATES


def is_contention(error: BaseException) -> bool:
    """Whether the database has undone this transaction to let another one through: it may be done again at once."""
    if not isinstance(error, sa_exc.DBAPIError) or error.orig is None:
        return False
    number = error.orig.args[0] if error.orig.args else None
    return getattr(error.orig, "sqlstate", None) in _CONTENDED_STATES or number in _CONTENDED_NUMBERS


def reason(error: BaseException) -> str:
    """The database's own words for what is wrong, in one line."""
    cause = getattr(error, "orig", None) or error
    said = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {said[0] if said else 'it does not say why'}"
