"""
Handing a message to the broker: at once, or not at all.

Celery's own pool tries to connect for as long as ``broker_connection_timeout``
says, also with ``retry=False``.  A webhook's sender cannot wait for that, and
need not: what is not sent now is sent by the sweep.  So durable publishes over
connections of its own, which give up at the first refusal.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from kombu.pools import ProducerPool

#: Connections to the broker that one process keeps for publishing, and how long one that is in use is waited for.
LIMIT = 10
_WAIT_SECS = 2.0
#: After a publish that failed, how long nothing is tried: a broker that hangs costs its timeout once.
_PAUSE_SECS = 1.0

log = logging.getLogger("durable.dispatch")


class Publisher:
    """Publishes for one Celery app.  Connections are opened when used, anew after a fork."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._lock = threading.Lock()
        self._pools: dict[int, ProducerPool] = {}
        self._paused_until = 0.0

    def send(self, message: Any, *, countdown: float | None = None) -> bool:
        """Send a signature; False when the broker did not take it, which never raises."""
        if time.monotonic() < self._paused_until:
            return False
        options = {} if countdown is None else {"countdown": countdown}
        for last in (False, True):
            try:
                self._send(message, options)
                return True
            except (OperationalError, KombuError, OSError) as error:
                # The first failure may be that of a connection which has outlived a restart of the broker.
                self.close()
                if last:
                    self._pause(error)
        return False

    def close(self) -> None:
        """Close what is not in use."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.force_close_all()
            pool.connections.force_close_all()

    def _send(self, message: Any, options: dict[str, Any]) -> None:
        if self._celery.conf.task_always_eager:
            message.apply_async(**options)
            return
        with self._pool().acquire(block=True, timeout=_WAIT_SECS) as producer:
            message.apply_async(producer=producer, retry=False, argsrepr="", kwargsrepr="", **options)

    def _pool(self) -> ProducerPool:
        with self._lock:
            pid = os.getpid()
            if pid not in self._pools:
                connection = self._celery.connection_for_write()
                options = {**(connection.transport_options or {}), "max_retries": 0}
                connections = connection.clone(transport_options=options).Pool(LIMIT)
                self._pools = {pid: ProducerPool(connections, limit=LIMIT)}
            return self._pools[pid]

    def _pause(self, error: Exception) -> None:
        self._paused_until = time.monotonic() + _PAUSE_SECS
        log.warning("The broker took no message (%s); the sweep sends it later.", type(error).__name__)
