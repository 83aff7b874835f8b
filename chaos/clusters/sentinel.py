"""Redis with Sentinel: a primary, a replica and three sentinels, with passwords, an ACL user, a key prefix, and TLS."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import redis

from ..ports import until
from ..servers import Server
from .certificate import Certificate
from .set_up import BrokerSetUp, Hurt

_ADMIN = "of-the-admin"
_APP = "of-the-app"
_OF_SENTINELS = "of-the-sentinels"
_PREFIX = "app:"
_MASTER = "main"

#: The application may do what an application needs, with its own keys and channels.
_ACL = f"user app on >{_APP} ~{_PREFIX}* &* +@all -@admin -@dangerous +info"


def _listening(port: int, certificate: Certificate | None) -> list[str]:
    """Settings of a server of either kind: with a certificate it accepts, and makes, TLS connections only."""
    if certificate is None:
        return [f"port {port}", "bind 127.0.0.1"]
    return [
        "port 0",
        f"tls-port {port}",
        "bind 127.0.0.1",
        f"tls-cert-file {certificate.file}",
        f"tls-key-file {certificate.key_file}",
        f"tls-ca-cert-file {certificate.file}",
        "tls-auth-clients no",
        "tls-replication yes",
    ]


def _client_options(certificate: Certificate | None) -> dict[str, Any]:
    return {} if certificate is None else {"ssl": True, "ssl_ca_certs": str(certificate.file)}


class Node(Server):
    """A Redis that persists nothing, and may be a primary or a replica."""

    def __init__(
        self, folder: Path, name: str, primary: Node | None = None, certificate: Certificate | None = None
    ) -> None:
        self.name = name
        super().__init__(folder)
        settings = [
            *_listening(self.port, certificate),
            'save ""',
            f"requirepass {_ADMIN}",
            f"masterauth {_ADMIN}",
            _ACL,
            "repl-diskless-sync-delay 0",
        ]
        if primary is not None:
            settings.append(f"replicaof 127.0.0.1 {primary.port}")
        (self.folder / "redis.conf").write_text("\n".join(settings) + "\n")
        self.admin = redis.Redis(port=self.port, password=_ADMIN, **_client_options(certificate))

    def replication(self) -> dict[str, Any]:
        """What the server says about its role and its replicas."""
        said: dict[str, Any] = self.admin.info("replication")
        return said

    def follows(self) -> bool:
        """Whether it is a replica that has all that its primary had."""
        try:
            said = self.replication()
        except redis.RedisError:
            return False
        return bool(said["role"] == "slave" and said["master_link_status"] == "up")

    def leads(self) -> bool:
        """Whether it is a primary."""
        return bool(self.replication()["role"] == "master")

    def offset(self) -> int:
        """How many bytes of changes it has made or got."""
        said = self.replication()
        return int(said["master_repl_offset"] if said["role"] == "master" else said["slave_repl_offset"])

    def _spawn(self) -> subprocess.Popen[bytes]:
        return self._launch(["redis-server", str(self.folder / "redis.conf")])


class Sentinel(Server):
    """A process that watches the primary, and promotes the replica together with the others."""

    def __init__(self, folder: Path, name: str, primary: Node, certificate: Certificate | None = None) -> None:
        self.name = name
        super().__init__(folder)
        settings = [
            *_listening(self.port, certificate),
            f"requirepass {_OF_SENTINELS}",
            f"sentinel sentinel-pass {_OF_SENTINELS}",
            f"sentinel monitor {_MASTER} 127.0.0.1 {primary.port} 2",
            f"sentinel auth-pass {_MASTER} {_ADMIN}",
            f"sentinel down-after-milliseconds {_MASTER} 1000",
            f"sentinel failover-timeout {_MASTER} 4000",
        ]
        (self.folder / "sentinel.conf").write_text("\n".join(settings) + "\n")
        self.client = redis.Redis(
            port=self.port, password=_OF_SENTINELS, decode_responses=True, **_client_options(certificate)
        )

    def knows_all(self) -> bool:
        """Whether it knows the replica and the other two sentinels."""
        known: Any = self.client.sentinel_master(_MASTER)
        return bool(known["num-slaves"] >= 1 and known["num-other-sentinels"] == 2)

    def primary_port(self) -> int:
        """Who leads, as this sentinel knows."""
        address: Any = self.client.sentinel_get_master_addr_by_name(_MASTER)
        return int(address[1])

    def _spawn(self) -> subprocess.Popen[bytes]:
        return self._launch(["redis-server", str(self.folder / "sentinel.conf"), "--sentinel"])


class RedisSentinel(BrokerSetUp):
    """One primary, one replica, three sentinels."""

    name = "sentinel"
    programs: Sequence[str] = ("postgres", "redis-server")
    #: Of all servers, if they use TLS.
    _certificate: Certificate | None = None

    @property
    def celery(self) -> dict[str, Any]:
        return {
            "broker_transport_options": {
                "master_name": _MASTER,
                "sentinel_kwargs": {"password": _OF_SENTINELS, **_client_options(self._certificate)},
                "global_keyprefix": _PREFIX,
            }
        }

    @property
    def broker_url(self) -> str:
        return ";".join(f"sentinel://app:{_APP}@127.0.0.1:{each.port}/0" for each in self._sentinels)

    def start_broker(self) -> None:
        first = Node(self.folder, "redis-1", certificate=self._certificate)
        self.run(first)
        second = Node(self.folder, "redis-2", first, self._certificate)
        self.run(second)
        self._nodes = [first, second]
        self._sentinels = [
            Sentinel(self.folder, f"sentinel-{number}", first, self._certificate) for number in (1, 2, 3)
        ]
        for sentinel in self._sentinels:
            self.run(sentinel)
        until(second.follows, "the replica follows")
        for sentinel in self._sentinels:
            until(sentinel.knows_all, f"{sentinel.name} knows the others")

    def hurts(self) -> Sequence[Hurt]:
        again = partial(self._kill_primary, behind=False)
        return [
            Hurt("primary killed", again, self._old_primary_returns, short=False),
            Hurt("primary killed, replica lacks messages", partial(self._kill_primary, behind=True), self._bring_back),
            Hurt("sentinel killed, then primary", self._kill_sentinel_and_primary, self._all_return, short=False),
            Hurt("failover asked for", self._fail_over, self._wait_for_replica, short=False),
        ]

    @property
    def _primary(self) -> Node:
        port = self._sentinels[-1].primary_port()
        return next(node for node in self._nodes if node.port == port)

    @property
    def _replica(self) -> Node:
        return next(node for node in self._nodes if node is not self._primary)

    def _kill_primary(self, *, behind: bool) -> dict[str, int] | None:
        primary, replica = self._primary, self._replica
        found = None
        if behind:
            # The replica's connection is cut, and it cannot connect again.
            replica.admin.config_set("masterauth", "wrong")
            primary.admin.client_kill_filter(_type="replica")
            got = replica.offset()
            until(lambda: primary.offset() > got + 10_000, "the primary has what its replica lacks")
            found = {"bytes_lost": primary.offset() - got}
        primary.stop(signal.SIGKILL)
        return found

    def _old_primary_returns(self) -> None:
        """It is empty, and becomes a replica."""
        dead = next(node for node in self._nodes if not node.running)
        alive = next(node for node in self._nodes if node.running)
        until(alive.leads, "the replica is promoted")
        until(lambda: all(s.primary_port() == alive.port for s in self._sentinels if s.running), "all sentinels know")
        dead.start()
        until(dead.follows, "the old primary follows the new one")

    def _bring_back(self) -> None:
        alive = next(node for node in self._nodes if node.running)
        until(alive.leads, "the replica is promoted")
        # Sentinel has had it write its configuration, the wrong password with it.
        alive.admin.config_set("masterauth", _ADMIN)
        alive.admin.config_rewrite()
        self._old_primary_returns()

    def _kill_sentinel_and_primary(self) -> None:
        self._sentinels[0].stop(signal.SIGKILL)
        self._kill_primary(behind=False)

    def _all_return(self) -> None:
        self._sentinels[0].start()
        self._old_primary_returns()
        for sentinel in self._sentinels:
            until(sentinel.knows_all, f"{sentinel.name} knows the others")

    def _fail_over(self) -> None:
        was = self._primary
        self._sentinels[-1].client.sentinel_failover(_MASTER)
        until(lambda: self._primary is not was, "another one is the primary")

    def _wait_for_replica(self) -> None:
        replica = self._replica
        until(replica.follows, "the old primary follows the new one")


class RedisSentinelTLS(RedisSentinel):
    """The same, where every connection is TLS: of clients, of replicas and of sentinels."""

    name = "sentinel-tls"
    programs = ("postgres", "redis-server", "openssl")

    @property
    def celery(self) -> dict[str, Any]:
        assert self._certificate is not None
        return {
            **super().celery,
            "broker_use_ssl": {"ssl_cert_reqs": "required", "ssl_ca_certs": str(self._certificate.file)},
        }

    def start_broker(self) -> None:
        self._certificate = Certificate(self.folder)
        super().start_broker()
