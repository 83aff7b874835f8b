"""A message that carries the first turns of several runs: a worker takes them together, or one after the other."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery, signals
from eventually import eventually
from servers import migrate
from worker_thread import worker_in_thread

from durable import Durable, get_step_metadata, step, workflow
from durable.broker import DRIVE
from durable.recovery import housekeeping
from durable.worker import tasks

pytestmark = pytest.mark.usefixtures("patient_begin")

WITHIN_SECS = 60


@step(name="begin_in_place.adds")
def adds(n: int) -> int:
    return n + 1


@workflow(name="begin_in_place.counts")
async def counts(n: int) -> int:
    return await adds(n)


#: The run whose step takes long, and what ends that.
long_run: list[str] = []
told = threading.Event()


@step(name="begin_in_place.waits_for_others")
def waits_for_others(n: int) -> bool:
    return told.wait(WITHIN_SECS) if get_step_metadata().run_id in long_run else True


@workflow(name="begin_in_place.waits")
async def waits(n: int) -> bool:
    return await waits_for_others(n)


@pytest.fixture
def settings() -> dict[str, Any]:
    """Those of the worker's engine that are not the defaults."""
    return {}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def made(stack: ExitStack, database_url: str, queue: str, **settings: Any) -> Durable:
    app = Celery(f"begins-{secrets.token_hex(4)}", broker="memory://")
    app.conf.update(task_default_queue=queue, broker_transport_options={"polling_interval": 0.005})
    stack.callback(app.close)
    engine = Durable(app, database_url=database_url, **settings)
    stack.callback(engine.close)
    return engine


@pytest.fixture
def starter(stack, tmp_path) -> Durable:
    """The engine of the process that starts runs."""
    engine = made(stack, f"sqlite:///{tmp_path}/begins.db", f"begins-{tmp_path.name}")
    migrate(engine)
    return engine


@pytest.fixture
def worker(stack, tmp_path, starter, settings) -> Durable:
    engine = made(stack, f"sqlite:///{tmp_path}/begins.db", f"begins-{tmp_path.name}", **settings)
    stack.callback(housekeeping.end, engine)
    return engine


@pytest.fixture
def turns() -> Iterator[list[str]]:
    """The runs of the tasks ``durable.drive``, which run for messages."""
    found: list[str] = []

    def note(task: Any, args: Any, **_: Any) -> None:
        if task.name == DRIVE:
            found.append(args[0])

    signals.task_prerun.connect(note)
    yield found
    signals.task_prerun.disconnect(note)


def results(starter: Durable, worker: Durable) -> tuple[list[str], list[int]]:
    """Start 64 runs, which have 16 messages; return their ids and results."""
    runs = starter.start_many(counts, [(number,) for number in range(64)])
    with worker_in_thread(worker.celery):
        return [run.id for run in runs], [run.result(timeout=WITHIN_SECS) for run in runs]


def test_a_worker_takes_the_runs_of_a_message_together(starter, worker, turns):
    """One task for four runs; the runs then go on in place."""
    ids, found = results(starter, worker)

    assert found == list(range(1, 65))
    assert [each for each in turns if each in ids[::4]] == ids[::4]
    # Steps that are not known to be quick have messages, and each brings a turn along.
    assert len(turns) < 64


@pytest.mark.parametrize("settings", [{"continuation": 0}], ids=["message by message"])
def test_a_worker_without_continuation_takes_one_after_the_other(starter, worker, turns):
    """As one of an earlier release does: the next message of the chain is sent when a turn is taken."""
    ids, found = results(starter, worker)

    assert found == list(range(1, 65))
    assert set(ids) <= set(turns)


def test_a_message_that_is_delivered_again_is_taken_one_run_after_the_other(starter, worker, turns, monkeypatch):
    """One of the runs may have killed the process, and would kill it again with the others."""
    taken_over: list[str] = []
    monkeypatch.setattr(tasks, "_is_redelivered", lambda _: True)
    monkeypatch.setattr(tasks, "take_over_run", lambda _, run_id: taken_over.append(run_id))
    ids, found = results(starter, worker)

    assert found == list(range(1, 65))
    assert set(ids) <= set(turns)
    # The process may have claimed a step of each.
    assert taken_over[:4] == ids[:4]


def test_a_database_that_is_away_leaves_the_chain_as_it_is(starter, worker, turns, monkeypatch):
    """The next message of the chain brings the other runs."""
    begin = tasks.begin_runs
    refused: list[str] = []

    def refuse_once(engine: Durable, continuation: Any, run_ids: list[str]) -> None:
        if not refused:
            refused.extend(run_ids)
            raise sa.exc.OperationalError("SELECT", None, Exception("away"), connection_invalidated=True)
        begin(engine, continuation, run_ids)

    monkeypatch.setattr(tasks, "begin_runs", refuse_once)
    monkeypatch.setattr(tasks, "is_unavailable", lambda error: True)
    runs = starter.start_many(counts, [(number,) for number in range(64)])
    with worker_in_thread(worker.celery):
        assert [run.result(timeout=WITHIN_SECS) for run in runs[1:]] == list(range(2, 65))
        # The sweep would send it later.
        worker.send_turns(runs[0].id)
        assert runs[0].result(timeout=WITHIN_SECS) == 1

    assert refused == [run.id for run in runs[:4]]


def test_a_quick_step_that_takes_long_this_time_keeps_no_outcome_of_another_run(starter, worker):
    """What was gathered before it is recorded by another thread."""
    told.clear()
    worker.quick_steps.note("begin_in_place.waits_for_others", 0.001)
    runs = starter.start_many(waits, [(number,) for number in range(64)])
    # A worker takes the runs of one message in the order of their ids.
    *others, last = sorted(runs[:4], key=lambda run: run.id)
    long_run[:] = [last.id]
    with worker_in_thread(worker.celery):
        try:
            eventually(lambda: {run.status for run in others} == {"completed"}, 30, "the runs before it have ended")
            assert last.status == "running"
        finally:
            told.set()
        assert [run.result(timeout=WITHIN_SECS) for run in runs] == [True] * 64
