"""
Calls that a process makes a moment later, in one thread: messages that are sent on, leases that are kept for a batch.

A process that ends makes at once the calls that wait.  If it is killed, the sweep does what they would have done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from .. import forks
from ..sandbox import log_records

log = log_records.get("durable.tasks")


class Later:
    """The calls of one process that wait.  The thread starts with the first of them, after any fork."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: Returns the time in seconds.
        """
        self._clock = clock
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._changed = threading.Condition(threading.Lock())
        #: By key, when to call, and what.
        self._waiting: dict[Hashable, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None

    def call(self, key: Hashable, secs: float, act: Callable[[], object]) -> None:
        """
        Call *act* after so many seconds; at once, in this thread, where the process is out of threads.

        Of several calls with one key, only the last is made.
        """
        try:
            with self._changed:
                self._ensure_thread()
                self._waiting[key] = (self._clock() + secs, act)
                self._changed.notify()
        except RuntimeError as error:
            # A lease that nothing releases would stop its run; a message that is early does no harm.
            log.warning("No thread could be started that makes calls later, so they are made now: %s", error)
            _try(act)

    def _ensure_thread(self) -> None:
        """Start the thread, unless it runs; raise RuntimeError if the process is out of threads."""
        if self._thread is None:
            thread = threading.Thread(target=self._call_when_due, name="durable-later", daemon=True)
            thread.start()
            self._thread = thread

    def put_off(self, key: Hashable, secs: float) -> bool:
        """Make the call that waits so many seconds from now; False when none waits."""
        with self._changed:
            if key not in self._waiting:
                return False
            self._waiting[key] = (self._clock() + secs, self._waiting[key][1])
            return True

    def cancel(self, key: Hashable) -> Callable[[], object] | None:
        """Do not make the call that waits, and return it; None when none waits."""
        with self._changed:
            _, act = self._waiting.pop(key, (0.0, None))
            return act

    def __contains__(self, key: Hashable) -> bool:
        """Whether a call with this key waits.  Once it is made, it does not."""
        with self._changed:
            return key in self._waiting

    def close(self) -> None:
        """Make at once all calls that wait, and end the thread: the process is about to end."""
        with self._changed:
            acts = [act for _, act in self._waiting.values()]
            self._waiting.clear()
            self._thread = None
            self._changed.notify()
        for act in acts:
            _try(act)

    def _call_when_due(self) -> None:
        while True:
            with self._changed:
                if self._thread is not threading.current_thread():
                    return
                now = self._clock()
                due = [key for key, (at, _) in self._waiting.items() if at <= now]
                acts = [self._waiting.pop(key)[1] for key in due]
                if not due:
                    next_at = min((at for at, _ in self._waiting.values()), default=None)
                    self._changed.wait(None if next_at is None else next_at - now)
            for act in acts:
                _try(act)


def _try(act: Callable[[], object]) -> None:
    try:
        act()
    except Exception:
        # An error with one must not keep the others waiting.
        log.exception("A message could not be sent later; the sweep sends it.")
