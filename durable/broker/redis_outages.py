"""
Workers over Redis that survive an outage, a failover, and a server whose memory is full.

kombu 5.7 has three faults, each with a test in tests/broker/test_redis_outages.py that fails once kombu has mended it:

1. ``Channel.close`` reads the reply of BRPOP from the dead connection, and raises before it has closed anything.
   Celery ignores that and closes the connection once more.  The second close restores the unacknowledged messages
   through a transport that has no client any more: ``AttributeError: 'NoneType' object has no attribute 'hostname'``
   ends the worker.  An upstream fix would close the channel in any case, and restore at the next connection.
2. A task that ends after the outage is acknowledged on its closed channel, with the same AttributeError.
3. A full server refuses to note that a message is unacknowledged (OutOfMemoryError), after BRPOP has taken it from its
   queue.  A replica that was a master refuses each command (ReadOnlyError).  Celery takes both for errors of the
   program, and ends the worker.

Late acknowledgement, and messages that wait for their time in the worker, make unacknowledged messages durable's normal
state.  So durable gives its workers the subclasses below, by ``app.amqp.Connection``, from which Celery makes all of a
worker's connections.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from celery import Celery
from celery.worker import state
from kombu.connection import Connection
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis import exceptions

from ..sandbox import log_records
from .redis_clients import ClientKeepingChannel

#: kombu's classes, which have no types.
_Connection: Any = Connection
_QoS: Any = kombu_redis.QoS
_QoSInMemory: Any = virtual.QoS

log = log_records.get("durable.broker")

#: States of a server that pass, which kombu takes for errors of the program.
PASSING = (exceptions.OutOfMemoryError, exceptions.ReadOnlyError, exceptions.MasterDownError)


def survive(app: Celery) -> None:
    """Have the connections that this app makes from now on survive outages of Redis."""
    if not issubclass(app.amqp.Connection, _SurvivingConnection):
        base: Any = app.amqp.Connection
        app.amqp.Connection = type("Connection", (_SurvivingConnection, base), {})


class _SurvivingConnection(_Connection):  # type: ignore[misc]
    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()
        return surviving(found) if issubclass(found, kombu_redis.Transport) else found


@functools.cache
def surviving(transport: Any) -> Any:
    """The subclass of a transport over Redis (or Sentinel) that survives outages."""
    channel = type("Channel", (_SurvivingChannel, transport.Channel), {"QoS": _SurvivingQoS})
    errors = (*transport.connection_errors, *PASSING)
    return type("Transport", (transport,), {"Channel": channel, "connection_errors": errors})


class _Leftovers:
    """The messages that channels had when they were closed without the server; one for all of a process."""

    def __init__(self) -> None:
        #: Their tasks have ended: they are still to be acknowledged.
        self.done: set[str] = set()
        #: Celery has dropped them: they are still to be put back into their queues.
        self.dropped: set[str] = set()

    def add(self, tags: Iterable[str]) -> None:
        """Put these back later, except those whose tasks still run: they are acknowledged when they end."""
        running = {request.message.delivery_tag for request in tuple(state.active_requests)}
        self.dropped.update(set(tags) - running - self.done)


_leftovers = _Leftovers()


class _SurvivingQoS(_QoS):  # type: ignore[misc]
    """
    What a channel knows of its unacknowledged messages.

    Redis holds them in a hash by their tags, so that any channel can acknowledge or restore them.
    """

    _is_full = False

    def append(self, message: Any, delivery_tag: str) -> None:
        try:
            super().append(message, delivery_tag)
            self._is_full = False
        except exceptions.OutOfMemoryError:
            if not self._is_full:
                log.warning(
                    "Redis is out of memory (maxmemory).  The worker runs the messages that it takes; those are lost"
                    " that it has when it dies, until Redis has memory again."
                )
            self._is_full = True
            _QoSInMemory.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        if not self.channel.closed:
            try:
                super().ack(delivery_tag)
                return
            except self.channel.connection_errors:
                _QoSInMemory.ack(self, delivery_tag)
        _leftovers.done.add(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self.channel.closed:
            super().reject(delivery_tag, requeue)
        elif requeue:
            _leftovers.dropped.add(delivery_tag)
        else:
            _leftovers.done.add(delivery_tag)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        try:
            super().restore_visible(*args, **options)
        except exceptions.OutOfMemoryError:
            log.debug("Redis is out of memory: no message is restored now.")

    def settle(self) -> None:
        """Do what could not be done without the server.  After an error the rest is done at the next call."""
        try:
            for tag in tuple(_leftovers.done):
                self._remove_from_indices(tag).execute()
                _leftovers.done.discard(tag)
            for tag in tuple(_leftovers.dropped):
                self.restore_by_tag(tag)
                _leftovers.dropped.discard(tag)
        except exceptions.OutOfMemoryError:
            log.debug("Redis is out of memory: no message is put back now.")

    def leave(self) -> None:
        """Forget the unacknowledged messages here; another channel settles them."""
        self._flush()
        _leftovers.add(self._delivered)
        self._delivered.clear()


class _SurvivingChannel(ClientKeepingChannel):
    def close(self) -> None:
        try:
            super().close()
        except self.connection_errors:
            self._close_without_server()

    def _brpop_start(self, *args: Any, **options: Any) -> None:
        """Wait for a message: at each connection of a worker, and then about every second."""
        if isinstance(self.qos, _SurvivingQoS):
            self.qos.settle()
        super()._brpop_start(*args, **options)

    def _close_without_server(self) -> None:
        """Close what is here, with nothing left that needs an answer."""
        self._in_poll = self._in_listen = None
        # The server deletes them itself: they are queues for the replies of remote control.
        self.auto_delete_queues.clear()
        if isinstance(self._qos, _SurvivingQoS):
            self._qos.leave()
        # kombu sets it first, and does nothing more when it is set.
        self.closed = False
        super().close()
