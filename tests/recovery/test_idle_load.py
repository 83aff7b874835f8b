"""What idle processes ask of the database: little, and no faster growing than their number."""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from servers import DATABASES, migrate, new_database

from durable import Durable
from durable.broker import HEADER, QUEUE
from durable.broker.progress import SENT
from durable.engine.process import identify
from durable.recovery import LEASE, Housekeeping
from durable.recovery.sweep_lease import LeaseOfSweep
from durable.store import Worker, due_work, schema, workers

PROCESSES = 20


class Counted:
    """The statements of some engines, from now on."""

    def __init__(self) -> None:
        self.statements: Counter[str] = Counter()
        self._beats: Counter[str] = Counter()
        self.all_have_beaten = threading.Event()

    def watch(self, engine: Durable) -> None:
        """Count the statements of this engine too."""
        self._beats[engine.process_id] = 0

        def note(_connection: Any, _cursor: Any, statement: str, *_: object) -> None:
            self.statements[statement] += 1
            if statement.startswith("UPDATE durable_workers"):
                self._beats[engine.process_id] += 1
                if min(self._beats.values()) == 3:
                    self.all_have_beaten.set()

        sa.event.listen(engine.store.engine, "before_cursor_execute", note)

    @property
    def beats(self) -> int:
        """How many heartbeats there were."""
        return self._beats.total()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[Durable]]:
    """Engines that are as many processes to a database of their own, in which nothing is due."""
    with ExitStack() as stack:
        database = stack.enter_context(new_database("postgresql", tmp_path))
        made = []
        for _ in range(PROCESSES):
            app = Celery(f"idle-{secrets.token_hex(4)}", broker="memory://", set_as_current=False)
            made.append(stack.enter_context(closing(Durable(app, database_url=database, pool_size=1))))
        migrate(made[0])
        yield made


@pytest.mark.slow
def test_twenty_idle_processes_ask_twenty_statements_a_second(processes: list[Durable]) -> None:
    """
    For each heartbeat there is at most one more statement: a heartbeat each two seconds makes it 20 a second.

    One process sweeps, with one statement that finds all kinds of work, and the others seldom look whether it does.
    """
    counted = Counted()
    with ExitStack() as stack:
        for engine in processes:
            keeper = Housekeeping(engine)
            stack.callback(keeper.stop)
            keeper.start()
            counted.watch(engine)
        assert counted.all_have_beaten.wait(60)
        statements, beats = counted.statements.copy(), counted.beats

    # The clock is compared once in 30 s.
    clocks = sum(number for text, number in statements.items() if text.startswith("SELECT (extract("))
    assert statements.total() - clocks <= 2.2 * beats, statements


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_the_sweep_asks_once_what_is_due(engine: Durable) -> None:
    """Each kind of work is found by its row; without one the sweep asks for nothing else."""
    now = engine.now()

    def due() -> dict[str, Any]:
        with engine.store.read() as tx:
            return due_work.find(tx, now, deadline=now, claimed=now)._asdict()

    before = due()
    run_id = secrets.token_hex(8)
    rows: dict[str, tuple[sa.Table, dict[str, Any]]] = {
        "calls": (schema.run_calls, {"status": "failed", "tries": 0, "next_send_at": 1, "sends": 0}),
        "turn_leases": (schema.turn_leases, {"holder": "h", "worker_id": "w", "expires_at": 1}),
    }
    with engine.store.begin() as tx:
        for table, row in rows.values():
            tx.execute(sa.insert(table).values(run_id=run_id, **row))
    try:
        after = due()
    finally:
        with engine.store.begin() as tx:
            for table, _ in rows.values():
                tx.execute(sa.delete(table).where(table.c.run_id == run_id))

    assert {name for name in rows if after[name]} == set(rows)
    assert due() == before


def others(engine: Durable, number: int) -> list[str]:
    """Register processes that are only rows; their ids."""
    process = identify()
    ids = [f"idle-{secrets.token_hex(8)}" for _ in range(number)]
    for each in ids:
        place = {
            "host": process.host,
            "boot_id": process.boot_id,
            "pid": process.pid,
            "pid_started": process.pid_started,
        }
        row = Worker(id=each, **place, started_at=0, beat_at=0, names=json.dumps([]))
        workers.commit_beat(engine.store, row)
    return ids


class Middle:
    """No randomness."""

    def uniform(self, low: float, high: float) -> float:
        return high


@pytest.mark.parametrize(("number", "wait"), [(0, 0), (8, 2), (16, 4), (100, 5)])
def test_the_more_processes_the_less_often_each_looks_for_the_lease(engine: Durable, number: int, wait: int) -> None:
    """Four look in each second; one of many that is left alone looks within half of ``dead_after``."""
    others(engine, number)
    now = [engine.now()]
    engine.now = lambda: now[0]  # type: ignore[method-assign]
    assert workers.take_lease(engine.store, LEASE, "another", now[0], 3_600_000_000)
    lease = LeaseOfSweep(engine, Middle())  # type: ignore[arg-type]
    assert not lease.take()
    with engine.store.begin() as tx:
        workers.drop_lease(tx, LEASE, "another")

    if wait:
        now[0] += wait * 1_000_000 - 1
        assert not lease.take()
        now[0] += 1
    assert lease.take()
    assert lease.is_held


def test_an_idle_process_looks_for_forgotten_claims_only_after_work(engine: Durable) -> None:
    """It looks until some time after the last message that it has taken."""
    asked: list[str] = []
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda c, cursor, text, *_: asked.append(text))
    now = [engine.now()]
    engine.now = lambda: now[0]  # type: ignore[method-assign]
    keeper = Housekeeping(engine)

    def looks() -> bool:
        """Whether it looks for claims of its own when it beats next."""
        now[0] += engine.settings.beat_interval
        asked.clear()
        keeper.tick()
        return any("worker_id IN" in text for text in asked)

    try:
        assert not looks()
        header = {HEADER: {SENT: now[0], QUEUE: "celery"}}
        engine.progress.note(SimpleNamespace(headers=header, delivery_info={}))
        assert [looks(), looks()] == [True, True]
        now[0] += 3 * engine.settings.dead_after
        assert not looks()
        engine.running.add("a claim")
        assert looks()
    finally:
        keeper.stop()
