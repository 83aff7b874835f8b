"""Writing through an outage of the database."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import TypeVar

from .. import logs
from .database import reason, unreachable

#: How long a process waits between two tries while the database is away.
PATIENCE_SECS = (0.1, 0.2, 0.5, 1.0, 2.0)

T = TypeVar("T")

log = logs.get("durable.steps")


def until_recorded(write: Callable[[], T], tries: float = math.inf) -> T:
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
            if not unreachable(error) or number >= tries:
                raise
            pause = PATIENCE_SECS[min(number, len(PATIENCE_SECS)) - 1]
            log.warning("The database cannot be used now (%s); trying again in %s s.", reason(error), pause)
            time.sleep(pause)
    raise AssertionError("itertools.count ends")
