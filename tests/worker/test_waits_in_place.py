"""A worker that is at work ends the sleeps that it knows, each as a task of its own, before their messages come."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest
from celery import Celery, signals
from servers import migrate
from worker_thread import worker_in_thread

from durable import Durable, sleep, step, workflow
from durable.broker import WAKE
from durable.recovery import housekeeping

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


@workflow(name="waits_in_place.other")
async def other(secs: float) -> str:
    await sleep(secs)
    return "awake"


@pytest.fixture
def engine(tmp_path) -> Iterator[Durable]:
    app = Celery(f"waits-{secrets.token_hex(4)}", broker="memory://")
    app.conf.update(task_default_queue=app.main, broker_transport_options={"polling_interval": 0.005})
    made = Durable(app, database_url=f"sqlite:///{tmp_path}/waits.db", continuation="60s")
    migrate(made)
    yield made
    housekeeping.end(made)
    made.close()
    app.close()


def test_sleeps_that_end_while_a_worker_is_busy_need_no_message(engine):
    """The step of the first run outlasts the others' sleeps; then they end one after the other, in place."""
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
    assert in_place == [run.id for run in others]
