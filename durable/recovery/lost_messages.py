"""
Which messages are lost, and which only wait their turn.

A message is lost when one of its line (the same queue, the same priority) that was sent a good while later was taken
by now, or when its queue is empty and it was not taken for as long.  Where its queue is not known, one that was not
taken for so long is taken for lost; where the broker does not tell how long the queue is, only after a very long time.
So a long queue gets no repeats, however long it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..broker import Line, furthest
from ..engine import Engine
from ..store import MessageGroup, workers

#: So many times the patience, and a message in a queue of unknown length is taken for lost.
_LONG = 64


class Lost:
    """What one sweep knows of the queues; each is asked about once."""

    def __init__(self, engine: Engine, now: int) -> None:
        self._engine = engine
        self._now = now
        self._lengths: dict[str, int | None] = {}
        with engine.store.read() as tx:
            self._progress = furthest(workers.progress(tx))

    def steps(self, kinds: Iterable[MessageGroup], patience: int) -> Mapping[MessageGroup, int]:
        """By the queue and the name of steps: what was sent until then is lost."""
        return {kind: self._before(self._engine.dispatch.line_of_step(*kind), patience) for kind in kinds}

    def turns(self, kinds: Iterable[MessageGroup], patience: int) -> Mapping[MessageGroup, int]:
        """The same by the queue and the priority of runs."""
        return {kind: self._before(self._engine.dispatch.line_of_turn(*kind), patience) for kind in kinds}

    def waits(self, kinds: Iterable[MessageGroup], patience: int) -> Mapping[MessageGroup, int]:
        """The same of alarm clocks."""
        return {kind: self._before(self._engine.dispatch.line_of_wait(*kind), patience) for kind in kinds}

    def _before(self, line: Line, patience: int) -> int:
        queue, _ = line
        if queue is None:
            return self._now - patience
        length = self._length(queue)
        if length == 0:
            return self._now - patience
        overtaken = self._progress.get(line, 0) - patience
        return overtaken if length else max(overtaken, self._now - _LONG * patience)

    def _length(self, queue: str) -> int | None:
        if queue not in self._lengths:
            self._lengths[queue] = self._engine.dispatch.broker.length(queue)
        return self._lengths[queue]
