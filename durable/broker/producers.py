"""The connections of a publisher: a pool that threads share, and that is closed when its last user is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from kombu.pools import ProducerPool

#: Connections to the broker that one process keeps for publishing, and how long it waits for one of them.
LIMIT = 10
_WAIT_SECS = 2.0

#: kombu's class, which has no types.
_Pool: Any = ProducerPool


def tries(connection: Any) -> int:
    """How often kombu tries again until it has tried each URL of a connection (``a;b``) once; it does not pause."""
    return max(0, len(connection.alt) - 1)


class Producers:
    """A pool of producers.  kombu's own closes the connections that other threads are using, too."""

    def __init__(self, connection: Any) -> None:
        """
        Args:
            connection: A connection of kombu, which is not opened; the pool's are like it, but give up at once.
        """
        options = {**(connection.transport_options or {}), "max_retries": tries(connection)}
        self._pool = _Pool(connection.clone(transport_options=options).Pool(LIMIT), limit=LIMIT)
        self._lock = threading.Lock()
        self._users = 0
        self._retired = False

    def producer(self) -> AbstractContextManager[Any]:
        """A producer for one block, from this call on; kombu connects it when it is first used."""
        with self._lock:
            self._users += 1
        return self._held()

    @contextmanager
    def _held(self) -> Iterator[Any]:
        try:
            with self._pool.acquire(block=True, timeout=_WAIT_SECS) as producer:
                yield producer
        finally:
            with self._lock:
                self._users -= 1
            self._close_if_unused()

    def retire(self) -> None:
        """Close all connections, now or when the last block that uses one ends.  Call ``producer`` no more."""
        self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            is_unused = self._retired and not self._users
        if is_unused:
            self._pool.force_close_all()
            self._pool.connections.force_close_all()
