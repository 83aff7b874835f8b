"""``task_always_eager``: `start` runs the workflow in the caller until it waits for something outside."""

import inspect
import sys
from concurrent.futures import ThreadPoolExecutor

from durable import create_hook, set_attributes, start, step, workflow


@step(name="eager.add")
def add(a: int, b: int) -> int:
    return a + b


@workflow(name="eager.sums")
async def sums() -> int:
    return await add(await add(1, 2), 3)


@workflow(name="eager.waits")
async def waits() -> int:
    hook = create_hook(token="eager")
    return await add(await hook, 1)


@step(name="eager.label")
def label(phase: str) -> None:
    set_attributes(phase=phase)


@workflow(name="eager.calls")
async def calls() -> int:
    await label("calling")
    return await sums()


def test_a_run_has_ended_when_start_returns(engine):
    """Steps and turns happen in the caller, without any worker."""
    engine.celery.conf.task_always_eager = True

    assert sums.start().status == "completed"


def test_a_run_that_waits_goes_on_where_it_is_resumed(engine):
    """The hook is open when `start` returns, and `resume_hook` runs the rest."""
    engine.celery.conf.task_always_eager = True
    run = waits.start()
    assert run.status == "running"

    engine.resume_hook("eager", 41)

    assert run.result(timeout=1) == 42


def test_children_run_in_the_caller_too(engine):
    """The parent has its child's result, and what its step has set, when `start` returns."""
    engine.celery.conf.task_always_eager = True
    run = calls.start()

    assert run.result(timeout=1) == 6
    assert run.attributes == {"phase": "calling"}


depths: list[int] = []


@step(name="eager.deep")
def deep(number: int) -> int:
    depths.append(len(inspect.stack(0)))
    return number + 1


@workflow(name="eager.many")
async def many(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await deep(number)
    return number


def test_a_run_of_many_steps_nests_no_calls(engine):
    """Two hundred steps one after the other, each as deep in the stack as the first."""
    engine.celery.conf.task_always_eager = True
    depths.clear()

    assert many.start(200).result(timeout=1) == 200
    assert len(depths) == 200
    assert len(set(depths)) == 1


@step(name="eager.starts")
def starts(steps: int) -> int:
    return start(many, steps).result(timeout=1)


@workflow(name="eager.asks")
async def asks() -> list[int]:
    return [await starts(3), await starts(4)]


def test_a_step_that_starts_a_run_may_wait_for_its_result(engine):
    """What a step starts is done before `start` returns, as in a view."""
    engine.celery.conf.task_always_eager = True

    assert asks.start().result(timeout=1) == [3, 4]


def test_threads_run_their_runs_side_by_side(engine):
    """A web process has many threads, and what Celery notes for the whole process while one of them runs a task."""
    engine.celery.conf.task_always_eager = True
    switch_secs = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            runs = list(threads.map(lambda _: sums.start(), range(40)))
    finally:
        sys.setswitchinterval(switch_secs)

    assert [run.result(timeout=1) for run in runs] == [6] * 40
