"""One Redis: every connection cut a hundred times, and keys evicted since its memory is full."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis

from ..ports import until
from ..servers import Redis
from .set_up import BrokerSetUp, Hurt

_CUTS = 100
_BETWEEN_CUTS_SECS = 0.05
_BETWEEN_EVICTIONS_SECS = 0.2
#: Keys that hold messages: the queue, and what workers have taken and not acknowledged.
_MESSAGES = {b"celery", b"unacked"}
#: The key that fills the memory.
_FILLING = b"durable:clusters:filling"


class RedisAlone(BrokerSetUp):
    """One Redis without a standby, which persists nothing."""

    name = "redis"
    programs = ("postgres", "redis-server")

    def start_broker(self) -> None:
        self._server = Redis(self.folder)
        self.run(self._server)
        self._admin = redis.Redis(port=self._server.port)

    @property
    def broker_url(self) -> str:
        return self._server.url

    def hurts(self) -> Sequence[Hurt]:
        return [
            Hurt("all connections cut 100 times", self._cut),
            Hurt("keys evicted (allkeys-random)", self._evict),
        ]

    def _cut(self) -> dict[str, Any]:
        killed = 0
        for _ in range(_CUTS):
            for kind in ("normal", "pubsub"):
                killed += self._admin.client_kill_filter(_type=kind, skipme=True)
            time.sleep(_BETWEEN_CUTS_SECS)
        return {"connections_cut": killed}

    def _evict(self) -> dict[str, Any]:
        """Leave it so little memory that it evicts keys, until a key that holds messages is among them."""
        self._admin.config_set("maxmemory-policy", "allkeys-random")
        self._admin.config_set("notify-keyspace-events", "Ee")
        evicted: set[bytes] = set()
        # redis-py gives it no types.
        with self._admin.pubsub(ignore_subscribe_messages=True) as watching:  # type: ignore[no-untyped-call]
            watching.subscribe("__keyevent@0__:evicted")

            def has_evicted() -> bool:
                # Between two evictions, work goes on that needs messages.
                time.sleep(_BETWEEN_EVICTIONS_SECS)
                self._fill()
                while (told := watching.get_message()) is not None:
                    evicted.add(told["data"])
                return bool(evicted & _MESSAGES)

            until(has_evicted, "messages are evicted")
        self._admin.config_set("maxmemory", 0)
        return {"keys_evicted": len(evicted - {_FILLING})}

    def _fill(self) -> None:
        """Have the next write evict something: clients' buffers count, so the limit goes along with them."""
        self._admin.config_set("maxmemory", self._admin.info("memory")["used_memory"] - 4096)
        with suppress(redis.RedisError):
            self._admin.set(_FILLING, "x" * 8192)
