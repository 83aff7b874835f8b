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
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from kombu.pools import ProducerPool
from kombu.transport import virtual

from .current import running_step

#: Connections to the broker that one process keeps for publishing, and how long one that is in use is waited for.
LIMIT = 10
_WAIT_SECS = 2.0
#: After a publish that failed, how long nothing is tried: a broker that hangs costs its timeout once.
_PAUSE_SECS = 1.0

#: What amqp says of a queue that does not exist.
_NOT_FOUND = 404

T = TypeVar("T")

log = logging.getLogger("durable.dispatch")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A signature or a chain, to be delivered so many seconds from now."""

    what: Any
    countdown: float | None = None


class Broker(Protocol):
    """What the rest of the library needs of a broker."""

    def send(self, messages: Sequence[Outgoing]) -> bool:
        """Send some; False when the broker did not take them all, and then it may have some.  Never raises."""

    def length(self, queue: str) -> int | None:
        """How many messages wait in a queue; 0 for one that does not exist, None where nobody can say."""

    def keep(self, queue: str) -> bool:
        """Put a message into a queue that nobody reads; whether that was done."""

    def close(self) -> None:
        """Close what is not in use."""


class Publisher:
    """Publishes for one Celery app.  Connections are opened when used, anew after a fork."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._lock = threading.Lock()
        self._pools: dict[int, ProducerPool] = {}
        self._paused_until = 0.0
        self._eager = _Eager()

    def send(self, messages: Sequence[Outgoing]) -> bool:
        """
        Send some, in one go where the transport can (Redis); False when the broker did not take them all.

        It may have taken some: each is harmless twice.  Never raises.
        """
        if time.monotonic() < self._paused_until:
            return False
        for last in (False, True):
            try:
                self._send(messages)
                return True
            except (OperationalError, KombuError, OSError) as error:
                # The first failure may be that of a connection which has outlived a restart of the broker.
                self.close()
                if last:
                    self._pause(error)
        return False

    def length(self, queue: str) -> int | None:
        """How many messages wait in a queue; 0 for one that does not exist, None where that is not known."""
        if self._celery.conf.task_always_eager:
            return 0
        return self._ask(lambda producer: _length(producer, queue))

    def keep(self, queue: str) -> bool:
        """Put a message into a queue that nobody reads; whether that was done."""
        return self._ask(lambda producer: _keep(producer, queue)) is True

    def _ask(self, what: Callable[[Any], T]) -> T | None:
        """The answer of the broker, None when there is none."""
        if time.monotonic() < self._paused_until or self._celery.conf.task_always_eager:
            return None
        # A connection that is made, and not opened, to know what its transport raises.
        known = self._celery.connection_for_write()
        trouble = (*known.connection_errors, *known.channel_errors)
        try:
            with self._pool().acquire(block=True, timeout=_WAIT_SECS) as producer:
                return what(producer)
        except (OperationalError, KombuError, OSError, *trouble) as error:
            log.debug("The broker does not answer (%s).", type(error).__name__)
            self.close()
            return None

    def close(self) -> None:
        """Close what is not in use."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.force_close_all()
            pool.connections.force_close_all()

    def _send(self, messages: Sequence[Outgoing]) -> None:
        if self._celery.conf.task_always_eager:
            for message in messages:
                self._do(message)
            return
        alone = len(messages) == 1
        with (
            self._pool().acquire(block=True, timeout=_WAIT_SECS) as producer,
            nullcontext() if alone else producer.batch(),
        ):
            for message in messages:
                options = {"countdown": message.countdown} if message.countdown is not None else {}
                message.what.apply_async(producer=producer, retry=False, argsrepr="", kwargsrepr="", **options)

    def _do(self, message: Outgoing) -> None:
        # Link by link: Celery's own chain waits for each result, which it refuses, by a note that all threads
        # share, while another thread runs a task.
        for link in getattr(message.what, "tasks", (message.what,)):
            self._eager.do(partial(link.apply_async, countdown=message.countdown))

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


def _length(producer: Any, queue: str) -> int | None:
    channel = producer.channel
    if isinstance(channel, virtual.Channel):
        return int(channel._size(queue))
    # The server closes a channel on which a queue was asked for that does not exist, or is another's.
    with producer.connection.channel() as own:
        try:
            return int(own.queue_declare(queue=queue, passive=True).message_count)
        except producer.connection.channel_errors as error:
            return 0 if getattr(error, "code", None) == _NOT_FOUND else None


def _keep(producer: Any, queue: str) -> bool:
    producer.channel.queue_declare(queue=queue, durable=True, auto_delete=False)
    producer.publish("", exchange="", routing_key=queue, delivery_mode=2, retry=False)
    return True


class _Eager(threading.local):
    """
    What Celery's eager mode does at once, one after the other: a run of many steps nests no calls.

    What a step's own function sends is done before it goes on, since it may wait for the outcome.
    """

    waiting: deque[Callable[[], object]] | None = None

    def do(self, act: Callable[[], object]) -> None:
        if self.waiting is not None and running_step.get() is None:
            self.waiting.append(act)
            return
        outer, self.waiting = self.waiting, deque([act])
        token = running_step.set(None)
        try:
            while self.waiting:
                self.waiting.popleft()()
        finally:
            running_step.reset(token)
            self.waiting = outer
