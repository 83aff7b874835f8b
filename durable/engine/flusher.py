"""
Adds what a process has measured to the totals; in a process without housekeeping, a web process, from time to time.

The thread starts with the first request, so that it is never started before a server forks.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from .. import forks
from ..measures import Measures
from ..sandbox import log_records
from ..store import Store, hooks, reason, received, requests, totals
from .webhook_counts import WebhookCounts

log = log_records.get("durable.metrics")


def write_measured(store: Store, measures: Measures, webhook_counts: WebhookCounts) -> None:
    """Write what was measured since the last call; on an error, keep it for the next."""
    deltas, counted = measures.take(), webhook_counts.take()
    if not (deltas or counted.refused or counted.duplicates):
        return

    def write(tx: Connection) -> None:
        hooks.add_refused(tx, counted.by_webhook)
        received.add_refused(tx, counted.by_receiver)
        requests.add_duplicates(tx, counted.duplicates)
        totals.add(tx, deltas)

    try:
        store.write(write)
    except BaseException:
        measures.put_back(deltas)
        webhook_counts.put_back(counted)
        raise


class Flusher:
    """Calls *flush* at an interval in a thread of its own, and once more when the process ends."""

    def __init__(self, flush: Callable[[], object], interval: Callable[[], float]) -> None:
        """
        Args:
            flush: Adds to the totals; may raise an error of the database.
            interval: Returns the seconds between two flushes.
        """
        self._flush = flush
        self._interval = interval
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        self._has_begun = False
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        """Start the thread, unless it runs."""
        if self._has_begun:
            return
        with self._lock:
            if self._has_begun:
                return
            self._has_begun = True
        self._thread = threading.Thread(target=self._run, name="durable-metrics", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # Out of threads.  What is measured is added when the process ends.
            log.warning("No thread could be started that writes the metrics: %s", error)
        atexit.register(self.close)

    def close(self) -> None:
        """End the thread, and flush once more."""
        if not self._has_begun:
            return
        atexit.unregister(self.close)
        self._ending.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout=5)
        self._begin()
        self._try()

    def _run(self) -> None:
        ending = self._ending
        while not ending.wait(self._interval()):
            self._try()

    def _try(self) -> None:
        try:
            self._flush()
        except SQLAlchemyError as error:
            log.warning("The metrics cannot be written now (%s); they are written later.", reason(error))
        except Exception:
            log.exception("The metrics could not be written.")
