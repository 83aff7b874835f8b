"""RabbitMQ: three nodes, quorum queues, publisher confirms, and a list of their URLs."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ..ports import until
from ..servers import RabbitMQ
from .set_up import BrokerSetUp, Hurt

NODES = 3
_COOKIE = "durable-clusters"
#: A step that runs longer keeps its message too long, by the clusters' setting.
CONSUMER_TIMEOUT_SECS = 10


class Node(RabbitMQ):
    """One of several nodes that know each other."""

    up_secs = 120.0

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        super().__init__(folder)
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(_COOKIE)
        cookie.chmod(0o400)

    @property
    def node(self) -> str:
        """The name by which the others know it."""
        return self._environment["RABBITMQ_NODENAME"]

    def configure(self, nodes: Sequence[Node]) -> None:
        """Write down who belongs to the cluster."""
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "cluster_partition_handling = pause_minority",
            "cluster_formation.peer_discovery_backend = classic_config",
            *(f"cluster_formation.classic_config.nodes.{n} = {each.node}" for n, each in enumerate(nodes, 1)),
            f"consumer_timeout = {CONSUMER_TIMEOUT_SECS * 1000}",
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        # How often it looks for messages that are kept too long.
        (self.folder / "advanced.config").write_text("[{rabbit, [{channel_tick_interval, 1000}]}].\n")
        self._environment["RABBITMQ_ADVANCED_CONFIG_FILE"] = str(self.folder / "advanced.config")

    def eval(self, expression: str) -> str:
        """What an expression of Erlang's is on this node."""
        done = self._ctl("eval", expression)
        if done.returncode:
            raise RuntimeError(f"{self.name} answers {expression}: {(done.stdout + done.stderr).decode()}")
        return done.stdout.decode()

    def running_nodes(self) -> int:
        """How many nodes this one sees, itself included."""
        return int(self.eval("length(rabbit_nodes:all_running())."))

    def sees_all(self) -> bool:
        """Whether the cluster is whole, as this node knows."""
        return self.running_nodes() == NODES

    def leader_of(self, queue: str) -> str:
        """The node that leads a quorum queue."""
        listed = self._ctl("-q", "list_queues", "--no-table-headers", "name", "leader").stdout.decode()
        return dict(line.split("\t") for line in listed.splitlines() if "\t" in line).get(queue, "")

    def has_timed_out(self) -> bool:
        """Whether it has closed a channel since a message was not acknowledged within ``consumer_timeout``."""
        return any("Timeout value used" in log.read_text() for log in (self.folder / "logs").glob("*.log"))

    def leave(self, others: Sequence[Node]) -> None:
        """Lose the connections to the others, and make none again: as if the network between them were cut."""
        names = ", ".join(f"'{other.node}'" for other in others)
        self.eval(f"[erlang:set_cookie(N, wrong) || N <- [{names}]], [erlang:disconnect_node(N) || N <- [{names}]].")

    def come_back(self, others: Sequence[Node]) -> None:
        """Let the others connect again."""
        for other in others:
            self.eval(f"erlang:set_cookie('{other.node}', '{_COOKIE}'), net_adm:ping('{other.node}').")


class RabbitMQCluster(BrokerSetUp):
    """Three nodes, each of which may go."""

    name = "rabbitmq"
    programs = ("postgres", "rabbitmq-server", "rabbitmqctl")

    @property
    def celery(self) -> dict[str, Any]:
        return {"task_default_queue_type": "quorum"}

    @property
    def broker_url(self) -> str:
        return ";".join(node.url for node in self._nodes)

    def start_broker(self) -> None:
        self._nodes = [Node(self.folder, f"rabbitmq-{number}") for number in range(1, NODES + 1)]
        for node in self._nodes:
            node.configure(self._nodes)
            self._stack.callback(node.kill)
        # Side by side: each waits for the others.
        with ThreadPoolExecutor() as pool:
            list(pool.map(Node.start, self._nodes))
        for node in self._nodes:
            until(node.sees_all, f"{node.name} sees the others", node.up_secs)

    def hurts(self) -> Sequence[Hurt]:
        first = self._nodes[0]
        return [
            Hurt("leading node killed", self._kill_leader, self._return),
            Hurt("node stopped", partial(self._stop, signal.SIGTERM), self._return, short=False),
            Hurt("queue leader moved", self._move_leader, short=False),
            Hurt("step longer than consumer_timeout", self._hold, short=False),
            Hurt("node cut off", partial(self._cut_off, first), partial(self._heal, first), short=False),
        ]

    def _leader(self) -> Node:
        asked = next(node for node in self._nodes if node.running)
        leader = asked.leader_of("celery")
        return next(node for node in self._nodes if node.node == leader)

    def _kill_leader(self) -> dict[str, Any]:
        self._down = self._leader()
        self._down.kill()
        return {"node": self._down.name}

    def _stop(self, number: int) -> None:
        self._down = self._nodes[0]
        self._down.stop(number)

    def _return(self) -> None:
        self._down.start()
        until(self._down.sees_all, f"{self._down.name} sees the others")

    def _move_leader(self) -> None:
        leader = self._leader()
        other = next(node for node in self._nodes if node is not leader)
        # The leader hands its office to another member.
        leader.eval(
            '{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"celery">>)),'
            f" rabbit_quorum_queue:transfer_leadership(Q, '{other.node}')."
        )
        until(lambda: self._leader() is other, "another node leads the queue")

    def _hold(self) -> dict[str, Any]:
        """A step that keeps its message until the broker takes it away, and closes the worker's channel."""
        # The application reads the servers' URLs when it is imported.
        from ..application import engine, held

        run = engine.start(held, "held")
        until(lambda: any(node.has_timed_out() for node in self._nodes), "the broker takes the message away")
        (self.folder / "open").touch()
        run.result(timeout="60s")
        return {"attempts": (self.folder / "ledger").read_text().count(run.id)}

    def _cut_off(self, node: Node) -> None:
        others = [each for each in self._nodes if each is not node]
        node.leave(others)
        until(lambda: others[0].running_nodes() == 2, "the others see that it is gone")

    def _heal(self, node: Node) -> None:
        node.come_back([each for each in self._nodes if each is not node])
        until(self._nodes[1].sees_all, "the others see it again")
