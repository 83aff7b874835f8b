"""
The ETA budget: how many messages may wait in workers until they are due.

Each of these messages takes about 10 kB of a worker's memory, so a deployment has at most about ``MOST_ETAS`` of them.
The rows of the work lists show how many there are.  A process that sends such messages counts the rows every two
seconds, and may send its share of what is left until the next count.  A message over the budget is sent when it is due.
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection

from ..store import WORK_LISTS, count_held_until_due, workers

#: The most messages that may wait in workers until they are due, of all processes together.
MOST_ETAS = 2000
#: How long a process uses one count, in microseconds.
_COUNT_INTERVAL = 2_000_000
#: The most rows of one list that a count reads; where there are more, nothing is left of the budget.
_MOST_ROWS = 10_000


class EtaBudget:
    """
    The share of one process.

    Attributes:
        ahead: How far ahead the sweep's check of a row with such a message may be, in microseconds.
    """

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self._lock = threading.Lock()
        self._left = 0
        self._counted_at: int | None = None

    def take(self, tx: Connection, now: int) -> bool:
        """Take one message out of the share; False when none is left.  Its row is written in this transaction."""
        if self._counted_at is None or not 0 <= now - self._counted_at < _COUNT_INTERVAL:
            share = self.room(tx, now) // max(1, workers.count(tx))
            with self._lock:
                self._left, self._counted_at = share, now
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def room(self, tx: Connection, now: int) -> int:
        """Return how many more messages all processes together may send."""
        counts = [count_held_until_due(tx, table, now, now + self.ahead, _MOST_ROWS) for table in WORK_LISTS]
        return 0 if None in counts else max(0, MOST_ETAS - sum(filter(None, counts)))
