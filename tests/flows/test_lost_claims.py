"""A PostgreSQL of the test's own is killed in the middle of a step: what becomes of a claim that was not on disk."""

from __future__ import annotations

import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from celery import Celery
from driving import settle
from servers import absent, migrate

from chaos.servers import PostgreSQL
from durable import Durable, step, workflow

pytestmark = pytest.mark.slow

#: What the step does while it runs, once.
while_it_runs: list[Callable[[], None]] = []
#: The executions of the step.
ran: list[int] = []


@step(name="lost_claims.works")
def works() -> int:
    ran.append(len(ran) + 1)
    for act in while_it_runs:
        act()
    while_it_runs.clear()
    return ran[-1]


@workflow(name="lost_claims.flow")
async def flow() -> int:
    return await works()


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    """One that writes to disk only what a commit waits for."""
    with tempfile.TemporaryDirectory(prefix="durable-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try:
            made = PostgreSQL(folder)
        except FileNotFoundError as error:
            absent("a PostgreSQL of the test's own", str(error))
        made.start()
        with psycopg.connect(made.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            connection.execute("ALTER SYSTEM SET wal_writer_flush_after = 0")
            connection.execute("ALTER SYSTEM SET autovacuum = off")
        made.stop()
        made.start()
        yield made
        made.stop(signal.SIGKILL)


def crash(server: PostgreSQL) -> None:
    server.stop(signal.SIGKILL)
    server.start()


@pytest.mark.parametrize(("synced", "executions"), [(False, [1, 2]), (True, [1])])
def test_a_claim_that_is_lost_makes_the_attempt_run_again(server, synced, executions):
    """Only the second execution records its outcome; a claim on disk is not lost, and neither is its outcome."""
    ran.clear()
    celery = Celery(f"lost-claims-{secrets.token_hex(4)}", broker="memory://")
    engine = Durable(celery, database_url=server.url, continuation=0, sync_claims=synced)
    migrate(engine)
    run = engine.start(flow)
    while_it_runs[:] = [partial(crash, server)]
    try:
        settle(engine, run, within_secs=60)

        assert ran == executions
        assert run.result(timeout=0) == executions[-1]
        ends = [event.kind for event in run.events() if event.op_id == "r#1"]
        assert ends == ["step_created", "step_completed"]
    finally:
        engine.close()
        celery.close()
