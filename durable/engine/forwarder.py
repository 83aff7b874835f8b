"""
Sends messages on that this process cannot handle: another worker of the queue knows their workflow or step.

During a deploy, old and new workers take from the same queue.  A message that is sent on at once mostly goes to the
other worker: Redis and RabbitMQ give a message to the consumer that has waited longest.  If it comes back, the other
worker is busy.  Then it waits here before it is sent, a little longer each time, up to ``LONGEST_SECS``.  So every
second hop is at once, and each hop between them has a pause.

A process that ends sends at once what waits in it.  If it is killed, the sweep finds these messages lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from random import Random

from .. import forks
from ..sandbox import log_records

log = log_records.get("durable.tasks")

#: The first pause and the longest pause of a message, in seconds.  Each takes between a half and the whole of it: a
#: consumer of Redis asks once a second, and pauses of a second could meet the same consumer each time.
FIRST_SECS = 0.05
LONGEST_SECS = 1.0
#: The least time between two messages that one process sends on, in seconds: a long queue must not keep it busy.
SPACING_SECS = 0.004


class Forwarder:
    """The messages of one process that wait to be sent on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # A generator of its own, since the application may seed the shared one and expect its numbers.
        self._draw = Random()
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._changed = threading.Condition(threading.Lock())
        #: By key, when to send a message, and how.
        self._held: dict[Hashable, tuple[float, Callable[[], object]]] = {}
        self._free_at = 0.0
        self._thread: threading.Thread | None = None

    def pause(self, hops: int) -> float:
        """How many seconds a message waits that has been sent on *hops* times; takes its place among the others."""
        now = self._clock()
        with self._changed:
            place = max(now, self._free_at)
            self._free_at = place + SPACING_SECS
        if hops % 2 == 0:
            return place - now
        longest = min(FIRST_SECS * 2.0 ** min(hops // 2, 10), LONGEST_SECS)
        return max(self._draw.uniform(longest / 2, longest), place - now)

    def hold(self, key: Hashable, secs: float, send: Callable[[], object]) -> None:
        """Call *send* after so many seconds.  Of several messages with one key, only the last is kept."""
        with self._changed:
            self._held[key] = (self._clock() + secs, send)
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_when_due, name="durable-forwarder", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Send at once all that waits, and end the thread: the process is about to end."""
        with self._changed:
            sends = [send for _, send in self._held.values()]
            self._held.clear()
            self._thread = None
            self._changed.notify()
        for send in sends:
            _try(send)

    def _send_when_due(self) -> None:
        while True:
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                now = self._clock()
                due = [key for key, (at, _) in self._held.items() if at <= now]
                sends = [self._held.pop(key)[1] for key in due]
                if not due:
                    next_at = min((at for at, _ in self._held.values()), default=None)
                    self._changed.wait(None if next_at is None else next_at - now)
            for send in sends:
                _try(send)


def _try(send: Callable[[], object]) -> None:
    try:
        send()
    except Exception:
        log.exception("A message could not be sent on; the sweep sends it.")
