"""Spans that are made together: the SDK takes half as long for a span after another as between two statements."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .. import forks
from ..sandbox import log_records

#: So many wait at most; it is a quarter of what a ``BatchSpanProcessor`` exports at once.
SIZE = 128

log = log_records.get("durable.tracing")


class Batch:
    """
    What is to be called for spans of this process that have ended.

    A worker that goes on with a run in place adds to it, and flushes it when it is done with the run.  Housekeeping
    flushes it too, for the case that a step takes long.
    """

    def __init__(self) -> None:
        self._begin()
        # A child would make its parent's spans a second time.
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        # Turns of one run are emitted in their order.  Reentrant: a processor of the SDK may start a run.
        self._lock = threading.RLock()

    def add(self, emit: Callable[[], None]) -> None:
        """Call *emit* with the next ``flush``, in any thread."""
        self._waiting.append(emit)
        if len(self._waiting) >= SIZE:
            self.flush()

    def flush(self) -> None:
        """Call what waits, in the order in which it was added.  Never raises."""
        if not self._waiting:
            return
        with self._lock:
            while self._waiting:
                try:
                    self._waiting.popleft()()
                except Exception:
                    log.exception("A span is lost.")

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)
