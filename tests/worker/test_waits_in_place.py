"""A worker that is at work ends the sleeps that it knows, several in one task, before their messages come."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, signals
from eventually import eventually
from servers import migrate
from worker_thread import worker_in_thread

from durable import Durable, get_step_metadata, sleep, step, workflow
from durable.broker import WAKE
from durable.recovery import housekeeping
from durable.store.schema import waits

WITHIN_SECS = 60


@step(name="waits_in_place.outlasts")
def outlasts(until: float) -> float:
    """Run until that time."""
    while (now := time.time()) < until:
        time.sleep(until - now)
    return now


@workflow(name="waits_in_place.first")
async def first(secs: float, until: float) -> float:
    await sleep(secs)
    return await outlasts(until)


#: The runs whose step ``until_told`` has begun, and what ends it.
begun: list[str] = []
told = threading.Event()


@step(name="waits_in_place.until_told")
def until_told() -> bool:
    begun.append(get_step_metadata().run_id)
    return told.wait(WITHIN_SECS)


@workflow(name="waits_in_place.held_up")
async def held_up(secs: float) -> bool:
    await sleep(secs)
    return await until_told()


@workflow(name="waits_in_place.other")
async def other(secs: float) -> str:
    await sleep(secs)
    return "awake"


@pytest.fixture
def settings() -> dict[str, Any]:
    """Those of a test's engine that are not the defaults."""
    return {}


@pytest.fixture
def engine(tmp_path, settings) -> Iterator[Durable]:
    app = Celery(f"waits-{secrets.token_hex(4)}", broker="memory://")
    app.conf.update(task_default_queue=app.main, broker_transport_options={"polling_interval": 0.005})
    made = Durable(app, database_url=f"sqlite:///{tmp_path}/waits.db", continuation="60s", **settings)
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()
    app.close()


def test_sleeps_that_end_while_a_worker_is_busy_need_no_message(engine):
    """The step of the first run outlasts the others' sleeps; then they end together, in one task in place."""
    in_place: list[str] = []

    def note(task, args, **_):
        # A message brings the run's turn along, as the next task of its chain.
        if task.name == WAKE and not task.request.chain:
            in_place.append(args[0])

    signals.task_prerun.connect(note)
    try:
        with worker_in_thread(engine.celery):
            until = time.time() + 3
            longest = engine.start(first, 1.0, until)
            others = [engine.start(other, 2.0) for _ in range(5)]
            results = [run.result(timeout=WITHIN_SECS) for run in (longest, *others)]
    finally:
        signals.task_prerun.disconnect(note)

    assert results[0] >= until
    assert results[1:] == ["awake"] * 5
    assert in_place == [others[0].id]


@pytest.mark.parametrize(
    "settings", [{"sweep_interval": "60s", "beat_interval": "60s", "dead_after": "300s"}], ids=["sweeps seldom"]
)
def test_a_step_that_takes_long_does_not_keep_those_that_were_claimed_with_it(engine):
    """They wait 50 ms, and then have a message, which any idle process takes; no sweep has to come before."""

    def due_times() -> list[int]:
        with engine.store.read() as tx:
            return list(tx.execute(sa.select(waits.c.due_at).where(waits.c.run_id.in_(together))).scalars())

    told.clear()
    begun.clear()
    with worker_in_thread(engine.celery):
        try:
            late = [engine.start(held_up, 3.0) for _ in range(2)]
            together = {run.id for run in late}
            eventually(lambda: len(due_times()) == 2)
            # Sleeps end in one thread of this worker.  This step runs there, and outlasts the others' sleeps.
            longest = engine.start(first, 0.1, max(due_times()) / 1_000_000 + 0.1)
            eventually(lambda: set(begun) == together, 30, "the other step waits for the one that takes long")
        finally:
            told.set()
        results = [run.result(timeout=WITHIN_SECS) for run in (*late, longest)]

    assert results[:2] == [True, True]
