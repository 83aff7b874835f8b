"""
How many messages may wait in workers until they are due.

Each takes about 10 kB of some worker's memory, so one deployment has at most about ``MOST_ETAS`` of them.  The rows of
the work lists tell how many there are.  A process that wants to send one looks at them now and then, and may send its
share of what is left until it looks again.  What finds no room is published when it is due.
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection

from ..store import WORK_LISTS, count_held_until_due, workers

#: So many messages may wait in workers until they are due, all processes together.
MOST_ETAS = 2000
#: For how long a process goes by what it has seen, microseconds.
_LASTS = 2_000_000
#: Rows of one list that a look reads; where more are to be looked at soon, there is no room.
_BOUND = 10_000


class EtaBudget:
    """
    One process's share.

    Attributes:
        ahead: How far ahead a row with such a message may say that the sweep looks at it, in microseconds.
    """

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self._lock = threading.Lock()
        self._left = 0
        self._looked_at: int | None = None

    def take(self, tx: Connection, now: int) -> bool:
        """Whether one more may be sent, whose row is written in this transaction; at times it looks into the store."""
        if self._looked_at is None or not 0 <= now - self._looked_at < _LASTS:
            share = self.room(tx, now) // max(1, workers.count(tx))
            with self._lock:
                self._left, self._looked_at = share, now
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def room(self, tx: Connection, now: int) -> int:
        """How many more may be sent by all processes."""
        found = [count_held_until_due(tx, table, now, now + self.ahead, _BOUND) for table in WORK_LISTS]
        return 0 if None in found else max(0, MOST_ETAS - sum(filter(None, found)))
