"""``task_always_eager``: `start` runs the workflow in the caller until it waits for something outside."""

from durable import create_hook, step, workflow


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
