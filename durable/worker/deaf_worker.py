"""
A deaf worker: its consumer is dead, and everything else of it lives.

Celery may lose its subscription to the queues when the broker resets a connection.  The worker's children still send
heartbeats, and it still answers remote control, but it takes no message until it is restarted.

The worker's main process finds that out about itself: it has nothing to do, and messages wait in its queues.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..broker import celery_consumer, celery_internals
from ..engine import EXIT, Engine, identify
from ..sandbox import log_records
from ..store import reason, workers

log = log_records.get("durable.tasks")


class DeafWatch:
    """Checks every ``dead_after`` whether this worker takes messages; deaf is one that fails twice in a row."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._consumer: Any = None
        self._cancel: Callable[[], object] | None = None
        self._taken = 0
        self._is_suspected = False
        #: Since when the worker is deaf, by the database's clock.
        self._deaf_since: int | None = None

    def watch(self, consumer: Any) -> None:
        """Watch this consumer; Celery reports it as ready again after each reconnect."""
        if self._cancel is not None:
            self._cancel()
        self._consumer, self._taken, self._is_suspected = consumer, celery_consumer.count_taken(), False
        secs = self._engine.settings.dead_after / 1_000_000
        self._cancel = celery_consumer.call_repeatedly(consumer, secs, self.check)

    def check(self) -> None:
        """Find out whether this worker takes messages, and say so in the database when that has changed."""
        try:
            queue = self._find_neglected()
            if queue is None:
                self._is_suspected = False
                if self._deaf_since is not None:
                    self._deaf_since = None
                    self._tell()
            elif not self._is_suspected:
                self._is_suspected = True
            else:
                self._end_or_tell(queue)
        except SQLAlchemyError as error:
            log.warning("Whether this worker takes messages cannot be written now (%s).", reason(error))
        except Exception:
            # It must not end the worker's event loop.
            log.exception("Whether this worker takes messages could not be checked.")

    def _find_neglected(self) -> str | None:
        """Return a queue of this worker in which messages wait although it has nothing to do; None: there is none."""
        before, self._taken = self._taken, celery_consumer.count_taken()
        if self._taken != before or celery_consumer.is_busy(self._consumer):
            return None
        length = self._engine.dispatch.broker.length
        queues = celery_internals.consumed_queues(self._engine.celery)
        return next((queue for queue in queues if length(queue)), None)

    def _end_or_tell(self, queue: str) -> None:
        is_new = self._deaf_since is None
        self._deaf_since = self._deaf_since or self._engine.now()
        does_end = self._engine.settings.on_deaf_worker == EXIT
        if is_new:
            log.error(
                "This worker takes no messages, although it has nothing to do and some wait in queue %s: its"
                " consumer is dead.  %s",
                queue,
                "It ends now, as on_deaf_worker says."
                if does_end
                else "Restart it; with on_deaf_worker='exit' it ends by itself.",
            )
        if does_end:
            celery_consumer.end_worker()
        # Each time: children may have been replaced, and have new rows.
        self._tell()

    def _tell(self) -> None:
        """Write it to the rows of this worker's processes."""
        process, store = identify(), self._engine.store
        pids = [os.getpid(), *celery_consumer.child_pids()]
        with store.begin() as tx:
            workers.mark_deaf(tx, process.host, process.boot_id, pids, self._deaf_since)
        if len(pids) > 1:
            # This process forks: it keeps no connection.
            store.close()
