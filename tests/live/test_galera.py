"""Two nodes of MariaDB Galera, of the test's own: what sessions read, and what the doctor says."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from eventually import eventually
from servers import absent

from chaos.clusters.galera import LIBRARY, Balancer, Node
from durable import Durable, doctor

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    if not LIBRARY.exists():
        absent("Galera", f"{LIBRARY} is not installed")
    with tempfile.TemporaryDirectory(prefix="durable-test-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        pair = [Node(folder, "galera-1", first=True), Node(folder, "galera-2", first=False)]
        pair[1].others = pair[:1]
        for node in pair:
            stack.callback(node.kill)
            node.start()
        pair[0].execute("CREATE DATABASE durable")
        yield pair


@pytest.fixture(params=[False, True], ids=["one writer", "two writers"])
def engine(nodes: list[Node], request: pytest.FixtureRequest) -> Iterator[Durable]:
    """An engine whose connections end at one node, or at the next one each time."""
    balancer = Balancer(nodes, spreads=request.param)
    balancer.start()
    try:
        eventually(balancer.has_all, what="the proxy knows both nodes")
        celery = Celery("galera", broker="memory://")
        celery.conf.worker_enable_remote_control = False
        url = f"mysql://root@127.0.0.1:{balancer.port}/durable"
        with closing(Durable(celery, database_url=url)) as made:
            made.migrate()
            yield made
    finally:
        balancer.stop()


def test_a_session_waits_for_what_other_nodes_have_committed(engine):
    """Otherwise a webhook that one node has just committed is not found at the other."""
    with engine.store.read() as tx:
        assert tx.execute(sa.text("SELECT @@SESSION.wsrep_sync_wait")).scalar_one() == 7


def test_the_doctor_advises_against_writes_to_several_nodes(engine, request):
    """It names the nodes at which its connections end."""
    (found,) = [each for each in doctor.examine(engine) if each.name == "nodes"]
    if "two writers" in request.node.name:
        assert found.detail == "connections end at galera-1, galera-2 of a Galera cluster"
        assert "one node" in found.fix
    else:
        assert (found.detail, found.fix) == ("all connections end at galera-1 of a Galera cluster", "")
    assert found.ok
