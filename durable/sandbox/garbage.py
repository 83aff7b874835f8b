"""
Garbage collection is off while any thread runs a workflow's code, and on again when none does.

The collector belongs to the whole process.  If each thread put it back as it had found it, a thread that has found it
off, since another one was at work, would leave it off for ever.
"""

from __future__ import annotations

import gc
import threading


class Pauses:
    """How often each thread has turned the collector off, and not on again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depths: dict[int, int] = {}
        self._was_on = True

    def pause(self) -> None:
        """Turn the collector off until this thread calls ``resume``; calls may be nested."""
        with self._lock:
            if not self._depths:
                self._was_on = gc.isenabled()
            me = threading.get_ident()
            self._depths[me] = self._depths.get(me, 0) + 1
            gc.disable()

    def resume(self) -> None:
        """End the last pause of this thread.  The collector is on again when no thread has another one."""
        self.set_depth(self.depth - 1)

    @property
    def depth(self) -> int:
        """How many pauses this thread is in."""
        return self._depths.get(threading.get_ident(), 0)

    def set_depth(self, depth: int) -> None:
        """Go back to so many pauses of this thread: it may have been stopped before it could end the others."""
        with self._lock:
            me = threading.get_ident()
            if depth > 0:
                self._depths[me] = depth
            else:
                self._depths.pop(me, None)
            if not self._depths and self._was_on:
                gc.enable()

    def forget_other_threads(self) -> None:
        """In a child process there is only the thread that has forked."""
        me, self._lock = threading.get_ident(), threading.Lock()
        depth = self._depths.get(me, 0)
        self._depths = {me: depth} if depth else {}
        self.set_depth(depth)


#: Those of this process.
collector = Pauses()
