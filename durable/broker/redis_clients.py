"""
Channels over Redis that keep their client of redis-py.

kombu makes a client for each command that is not of its event loop: a message that is sent, taken or acknowledged.  The
client only holds the pool, and to make one takes longer than the command.
"""

from __future__ import annotations

import functools
from typing import Any

from kombu.transport import redis as kombu_redis

#: kombu's class, which has no types.
_Channel: Any = kombu_redis.Channel


class ClientKeepingChannel(_Channel):  # type: ignore[misc]
    """A channel with one client, as long as it has the same pool."""

    _kept: Any = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept


def keeping_clients(connection: Any) -> Any:
    """
    A connection like this one, which is not opened, whose channels keep their client.

    Itself if it is not to Redis, or if its channels do so already, as those of a worker do (``redis_outages.py``).
    """
    transport = connection.get_transport_cls()
    if not issubclass(transport, kombu_redis.Transport) or issubclass(transport.Channel, ClientKeepingChannel):
        return connection
    return connection.clone(transport=_keeping(transport))


@functools.cache
def _keeping(transport: Any) -> Any:
    """The subclass of a transport over Redis (or Sentinel) whose channels keep their client."""
    channel = type("Channel", (ClientKeepingChannel, transport.Channel), {})
    return type("Transport", (transport,), {"Channel": channel})
