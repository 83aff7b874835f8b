"""
MariaDB Galera: three nodes behind a proxy that leads to one of them at a time, or to all.

The proxy does what HAProxy does with a check: a new connection goes to the next node that takes writes.  When a node
takes none any more, all connections are cut.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql  # type: ignore[import-untyped]

from ..ports import free_port, until
from ..proxy import Proxy
from ..servers import MariaDB, Redis
from .set_up import Hurt, SetUp

#: How long conflicts are counted while nothing else is done.
_WRITES_SECS = 5.0
LIBRARY = Path("/usr/lib/galera/libgalera_smm.so")


class Node(MariaDB):
    """A node of the cluster.  A node that finds no other one begins a cluster of its own."""

    def __init__(self, folder: Path, name: str, *, first: bool) -> None:
        self.name = name
        data = folder / f"{name}-data"
        data.mkdir()
        super().__init__(folder, data, installs=first)
        self.group_port = free_port()
        self.others: Sequence[Node] = ()

    def start(self) -> None:
        """Start the node; with other ports when another process has taken one of its own meanwhile."""
        for is_last in (False, False, True):
            try:
                super().start()
                return
            except RuntimeError:
                if is_last:
                    raise
                self.port, self.group_port = free_port(), free_port()

    def options(self) -> list[str]:
        alive = [each for each in self.others if each.running]
        address = ",".join(f"127.0.0.1:{each.group_port}" for each in alive)
        settings = {
            "binlog_format": "ROW",
            "innodb_autoinc_lock_mode": 2,
            "innodb_flush_log_at_trx_commit": 2,
            "wsrep_on": "ON",
            "wsrep_provider": LIBRARY,
            "wsrep_cluster_name": "durable",
            "wsrep_cluster_address": f"gcomm://{address}",
            "wsrep_node_name": self.name,
            "wsrep_node_address": f"127.0.0.1:{self.group_port}",
            "wsrep_sst_method": "rsync",
            "wsrep_sst_receive_address": f"127.0.0.1:{free_port()}",
            "wsrep_provider_options": (
                f"gmcast.listen_addr=tcp://127.0.0.1:{self.group_port};ist.recv_addr=127.0.0.1:{free_port()};"
                "gcache.size=32M"
            ),
        }
        return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]

    def execute(self, statement: str) -> tuple[Any, ...] | None:
        """The first row of a statement, on this node."""
        known = {"user": "root", "connect_timeout": 1, "read_timeout": 1 if statement.startswith("SHOW") else 30}
        connection = pymysql.connect(host="127.0.0.1", port=self.port, **known)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            row: tuple[Any, ...] | None = cursor.fetchone()
            return row

    def status(self, name: str) -> str:
        """A status of Galera's."""
        row = self.execute(f"SHOW GLOBAL STATUS LIKE 'wsrep_{name}'")
        return "" if row is None else str(row[1])

    def takes_writes(self) -> bool:
        """Whether it is a synced member of the primary component."""
        try:
            return self.status("ready") == "ON"
        except pymysql.MySQLError:
            return False

    def conflicts(self) -> int:
        """How many transactions were undone by those of other nodes."""
        return int(self.status("local_cert_failures")) + int(self.status("local_bf_aborts"))

    def _answers(self) -> bool:
        return self.takes_writes()


class Balancer(Proxy):
    """
    Hands each new connection on to a node that takes writes.

    Args:
        spreads: To the next one each time; otherwise to the same one, as long as it takes writes.
    """

    def __init__(self, nodes: Sequence[Node], *, spreads: bool) -> None:
        super().__init__(0, random.Random(0))
        self._nodes = nodes
        self._turn = 0
        self._spreads = spreads
        self._ended = threading.Event()
        self._fit: list[Node] = []
        self._checking = threading.Thread(target=self._check, name="balancer", daemon=True)

    def start(self) -> None:
        self._checking.start()
        super().start()

    def stop(self) -> None:
        self._ended.set()
        self._checking.join(10)
        super().stop()

    def choose(self) -> int:
        fit = self._fit
        if not fit:
            raise OSError("no node takes writes")
        self._turn += self._spreads
        return fit[self._turn % len(fit)].port

    @property
    def writer(self) -> Node:
        """The node to which it leads, or the next one of those."""
        return self._fit[0]

    def has_all(self) -> bool:
        """Whether all nodes take writes, by the last check."""
        return len(self._fit) == len(self._nodes)

    def _check(self) -> None:
        while not self._ended.wait(0.25):
            fit = [node for node in self._nodes if node.takes_writes()]
            # The writer stays the same when a node that was away returns.
            stay = [node for node in self._fit if node in fit]
            if len(stay) < len(self._fit):
                self.reset()
            self._fit = stay + [node for node in fit if node not in stay]


class Galera(SetUp):
    """Three nodes, one of which takes all writes."""

    name = "galera"
    programs = ("mariadbd", "mariadb-install-db", "rsync", "redis-server")
    spreads = False
    #: Each transaction waits for the other nodes: three runs a second are too many for two cores.
    rate = 1.0

    @classmethod
    def missing(cls) -> list[str]:
        return [*super().missing(), *([] if LIBRARY.exists() else [f"{LIBRARY} (galera-4)"])]

    @property
    def database_url(self) -> str:
        return f"mysql://root@127.0.0.1:{self._balancer.port}/durable"

    @property
    def broker_url(self) -> str:
        return self._broker.url

    def start(self) -> None:
        self._broker = Redis(self.folder)
        self.run(self._broker)
        nodes = [Node(self.folder, f"galera-{number}", first=number == 1) for number in (1, 2, 3)]
        self._nodes = nodes
        for node in nodes:
            node.others = [each for each in nodes if each is not node]
            self.run(node)
        nodes[0].execute("CREATE DATABASE durable")
        self._balancer = Balancer(nodes, spreads=self.spreads)
        self._balancer.start()
        self._stack.callback(self._balancer.stop)
        until(lambda: all(node.status("cluster_size") == "3" for node in nodes), "three nodes are one cluster")
        until(self._balancer.has_all, "the proxy knows all nodes")

    def hurts(self) -> Sequence[Hurt]:
        return [
            Hurt("nothing, conflicts counted", self._conflicts, short=False),
            Hurt("writing node killed", self._kill, self._rejoin),
            Hurt("writing node stopped", self._stop, self._rejoin, short=False),
            Hurt("writing node frozen until expelled", self._freeze, self._thaw, short=False),
        ]

    def _conflicts(self) -> dict[str, Any]:
        """Let them write for a while."""
        before = self._all_conflicts()
        time.sleep(_WRITES_SECS)
        return {"conflicts": self._all_conflicts() - before}

    def _all_conflicts(self) -> int:
        return sum(node.conflicts() for node in self._nodes)

    def _kill(self) -> None:
        self._down = self._balancer.writer
        self._down.kill()

    def _stop(self) -> None:
        self._down = self._balancer.writer
        self._down.stop()

    def _rejoin(self) -> None:
        self._down.start()
        until(self._balancer.has_all, "the node is back")

    def _freeze(self) -> None:
        self._down = self._balancer.writer
        self._down.send_signal(signal.SIGSTOP)
        until(lambda: self._other().status("cluster_size") == "2", "the others have expelled it")

    def _other(self) -> Node:
        return next(node for node in self._nodes if node is not self._down)

    def _thaw(self) -> None:
        self._down.send_signal(signal.SIGCONT)
        until(lambda: self._other().status("cluster_size") == "3", "the node is back")
        until(self._balancer.has_all, "the proxy knows it")


class GaleraAll(Galera):
    """Three nodes that all take writes: for what conflicts cost."""

    name = "galera-all"
    spreads = True
