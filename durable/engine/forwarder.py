"""
How long a message waits before it is sent on to another worker of the queue, which knows its workflow or step.

During a deploy, old and new workers take from the same queue.  A message that is sent on at once mostly goes to the
other worker: Redis and RabbitMQ give a message to the consumer that has waited longest.  If it comes back, the other
worker is busy.  Then it waits before it is sent, a little longer each time, up to ``LONGEST_SECS``.  So every
second hop is at once, and each hop between them has a pause.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import Random

from .. import forks

#: The first pause and the longest pause of a message, in seconds.  Each takes between a half and the whole of it: a
#: consumer of Redis asks once a second, and pauses of a second could meet the same consumer each time.
FIRST_SECS = 0.05
LONGEST_SECS = 1.0
#: The least time between two messages that one process sends on, in seconds: a long queue must not keep it busy.
SPACING_SECS = 0.004


class Forwarder:
    """Spaces the messages that one process sends on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # A generator of its own, since the application may seed the shared one and expect its numbers.
        self._draw = Random()
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start anew, in this process or in a child."""
        self._lock = threading.Lock()
        self._free_at = 0.0

    def pause(self, hops: int) -> float:
        """How many seconds a message waits that has been sent on *hops* times; takes its place among the others."""
        now = self._clock()
        with self._lock:
            place = max(now, self._free_at)
            self._free_at = place + SPACING_SECS
        if hops % 2 == 0:
            return place - now
        longest = min(FIRST_SECS * 2.0 ** min(hops // 2, 10), LONGEST_SECS)
        return max(self._draw.uniform(longest / 2, longest), place - now)
