"""
Replacing prefork children that have ended, without Celery's wait of up to five seconds.

Celery's main process looks for ended children when the pipe to one of them closes.  The kernel closes a process's
files before it reports its end, so that look often comes too early and finds the child alive.  Celery does not look
again until another child ends, or until its timer fires after five seconds.  Until then no child takes the ended one's
place, and a task that was written to its pipe waits.  It is rare where children live long, and the rule with
``--max-tasks-per-child 1``.
"""

from __future__ import annotations

from typing import Any

#: Seconds from one look to the next.
LOOK_SECS = 0.2


class ChildWatch:
    """Has a worker's event loop call the pool's ``maintain_pool`` every ``LOOK_SECS``, which Celery does every 5 s."""

    def __init__(self) -> None:
        self._timer: Any = None

    def watch(self, consumer: Any) -> None:
        """
        Watch the children of this consumer's pool.

        Celery calls this again after each reconnect to the broker.  Without an event loop, Celery's
        pool has a thread that looks often, and there is nothing to do.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if consumer.hub is not None:
            self._timer = consumer.hub.call_repeatedly(LOOK_SECS, consumer.pool.maintain_pool)
