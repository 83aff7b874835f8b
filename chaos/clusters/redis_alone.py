"""One Redis: every connection cut a hundred times, and keys evicted since its memory is full."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis

from ..servers import Redis
from .set_up import BrokerSetUp, Hurt

_CUTS = 100
_BETWEEN_CUTS_SECS = 0.05
_EVICTING_SECS = 10.0


class RedisAlone(BrokerSetUp):
    """One Redis without a standby, which persists nothing."""

    name = "redis"

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
            Hurt("keys evicted (allkeys-random)", self._evict, short=False),
        ]

    def _cut(self) -> dict[str, Any]:
        killed = 0
        for _ in range(_CUTS):
            for kind in ("normal", "pubsub"):
                killed += self._admin.client_kill_filter(_type=kind, skipme=True)
            time.sleep(_BETWEEN_CUTS_SECS)
        return {"connections_cut": killed}

    def _evict(self) -> dict[str, Any]:
        """Leave it so little memory that it evicts keys all the time: whole queues, and what is unacknowledged."""
        before = self._evicted()
        self._admin.config_set("maxmemory-policy", "allkeys-random")
        ends_at = time.monotonic() + _EVICTING_SECS
        while time.monotonic() < ends_at:
            # Clients' buffers count, so that the limit goes along with them.
            self._admin.config_set("maxmemory", self._admin.info("memory")["used_memory"] - 4096)
            with suppress(redis.RedisError):
                self._admin.set("durable:clusters:filling", "x" * 8192)
            time.sleep(0.2)
        self._admin.config_set("maxmemory", 0)
        return {"keys_evicted": self._evicted() - before}

    def _evicted(self) -> int:
        return int(self._admin.info("stats")["evicted_keys"])
