"""
Which messages are lost, and which only wait in a long queue.

A message counts as lost ``resend_after`` after it was sent (for a sleep, a second after it was due), if

- its queue is empty; or
- a message of the same queue and priority, sent that much later, has been taken: queues keep their order; or
- its queue is not known; or
- the broker cannot tell the length of the queue, and 64 times as long has passed.

So a message in a long queue is not sent again, however long it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..broker import Route, furthest
from ..engine import Engine
from ..store import MessageGroup, workers

#: A message in a queue of unknown length is lost after so many times the delay.
_UNKNOWN_LENGTH = 64


class LostMessages:
    """What one sweep finds out about the queues; it asks the broker for each length once."""

    def __init__(self, engine: Engine, now: int) -> None:
        self._engine = engine
        self._now = now
        self._lengths: dict[str, int | None] = {}
        with engine.store.read() as tx:
            self._progress = furthest(workers.progress(tx))

    def steps(self, kinds: Iterable[MessageGroup], delay: int) -> Mapping[MessageGroup, int]:
        """For each kind of step (queue, name): what was sent before this time, in microseconds, is lost."""
        return {kind: self._lost_before(self._engine.dispatch.route_of_step(*kind), delay) for kind in kinds}

    def idle(self, kinds: Iterable[MessageGroup]) -> set[str]:
        """The queues of these kinds of steps in which no message waits, or whose length is not known."""
        return {queue for queue, _ in kinds if queue is not None and not self._length(queue)}

    def turns(self, kinds: Iterable[MessageGroup], delay: int) -> Mapping[MessageGroup, int]:
        """The same for turns, by the queue and the priority of their runs."""
        return {kind: self._lost_before(self._engine.dispatch.route_of_turn(*kind), delay) for kind in kinds}

    def waits(self, kinds: Iterable[MessageGroup], delay: int) -> Mapping[MessageGroup, int]:
        """The same for sleeps and other waits, by the queue and the priority of their runs."""
        return {kind: self._lost_before(self._engine.dispatch.route_of_wake(*kind), delay) for kind in kinds}

    def _lost_before(self, route: Route, delay: int) -> int:
        queue, _ = route
        if queue is None:
            return self._now - delay
        length = self._length(queue)
        if length == 0:
            return self._now - delay
        overtaken = self._progress.get(route, 0) - delay
        return overtaken if length else max(overtaken, self._now - _UNKNOWN_LENGTH * delay)

    def _length(self, queue: str) -> int | None:
        if queue not in self._lengths:
            self._lengths[queue] = self._engine.dispatch.broker.length(queue)
        return self._lengths[queue]
