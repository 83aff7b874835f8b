"""The connections of a publisher: a pool that threads share, and that is closed when its last user is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from kombu import messaging
from kombu.exceptions import LimitExceeded

#: Connections to the broker that one process keeps for publishing, and how long it waits for one of them.
LIMIT = 10
_WAIT_SECS = 2.0

#: How long the close of a connection may take.
_CLOSE_SECS = 0.1

#: kombu's class, which has no types.
_Producer: Any = messaging.Producer


def tries(connection: Any) -> int:
    """How often kombu tries again until it has tried each URL of a connection (``a;b``) once; it does not pause."""
    return max(0, len(connection.alt) - 1)


class Producer(_Producer):  # type: ignore[misc]
    """A producer with a connection of its own, which it keeps; kombu connects it when it is first used."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._bound: dict[str, tuple[Any, Any]] = {}

    def bound(self, queue: Any) -> Any:
        """The queue bound to this producer's channel, so that kombu does not bind it again for each message."""
        known = self._bound.get(queue.name)
        if known is None or known[0] is not queue:
            known = self._bound[queue.name] = (queue, queue(self.channel))
        return known[1]


class Producers:
    """
    A pool of producers.

    kombu's own closes the connections that other threads are using, too.  And it gives each user a producer that has to
    find its connection and channel first, which takes as long as a part of the message.
    """

    def __init__(self, connection: Any) -> None:
        """
        Args:
            connection: A connection of kombu, which is not opened; the pool's are like it, but give up at once.
        """
        options = {**(connection.transport_options or {}), "max_retries": tries(connection)}
        self._like = _keeping_clients(connection.clone(transport_options=options))
        self._slots = threading.BoundedSemaphore(LIMIT)
        self._idle: list[Producer] = []
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
            if not self._slots.acquire(timeout=_WAIT_SECS):
                raise LimitExceeded(LIMIT)
            try:
                producer = self._idle_one() or Producer(self._like.clone())
                try:
                    yield producer
                except BaseException:
                    # The connection may be in the middle of something.
                    _close(producer)
                    raise
                with self._lock:
                    self._idle.append(producer)
            finally:
                self._slots.release()
        finally:
            with self._lock:
                self._users -= 1
            self._close_if_unused()

    def _idle_one(self) -> Producer | None:
        """The producer that was used last, of those whose connection is open."""
        while True:
            with self._lock:
                producer = self._idle.pop() if self._idle else None
            if producer is None or producer.connection.connected:
                return producer
            _close(producer)

    def retire(self) -> None:
        """Close all connections, now or when the last block that uses one ends.  Call ``producer`` no more."""
        self._retired = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            is_unused = self._retired and not self._users
            idle = self._idle if is_unused else []
            self._idle = [] if is_unused else self._idle
        for producer in idle:
            _close(producer)


def _keeping_clients(connection: Any) -> Any:
    """The same connection; one to Redis keeps its client."""
    if connection.transport.driver_type != "redis":
        return connection
    # A command that sends nothing, and a program without Redis, do without it.
    from .redis_clients import keeping_clients

    return keeping_clients(connection)


def _close(producer: Producer) -> None:
    """Close its connection without an answer of the broker, which may be gone."""
    producer.connection.collect(_CLOSE_SECS)
