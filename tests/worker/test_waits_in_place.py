"""A worker that is at work ends the sleeps that it knows, several in one task, before their messages come."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from celery import Celery, signals
from servers import migrate
from worker_thread import worker_in_thread

from durable import Durable, sleep, step, workflow
from durable.broker import WAKE
from durable.recovery import housekeeping
from durable.store.schema import steps
from durable.store.transitions import StepStatus

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


def test_a_step_that_takes_long_does_not_keep_those_that_were_claimed_with_it(engine):
    """They wait 50 ms, and then have a message, which any idle process takes."""

    def waits_for_a_process() -> bool:
        with engine.store.read() as tx:
            found = tx.execute(sa.select(steps.c.run_id, steps.c.status)).all()
        return {row.status for row in found if row.run_id in together} == {StepStatus.CLAIMED, StepStatus.PENDING}

    with worker_in_thread(engine.celery):
        now = time.time()
        longest = engine.start(first, 0.5, now + 2)
        late = [engine.start(first, 1.0, now + 6) for _ in range(2)]
        together = {run.id for run in late}
        pause = threading.Event()
        while not waits_for_a_process():
            assert time.time() < now + 6, "the other step waits for the one that takes long"
            pause.wait(0.01)
        results = [run.result(timeout=WITHIN_SECS) for run in (longest, *late)]

    assert min(results[1:]) >= now + 6
