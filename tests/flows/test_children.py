"""Child runs on every database: awaited, failed, cancelled, given up, on a queue of their own, started in steps."""

from __future__ import annotations

import asyncio
from typing import Any

import flask
import pytest
import sqlalchemy as sa
from celery import Celery
from driving import all_databases, family, kinds, restart, settle, settle_family

from durable import (
    Durable,
    Request,
    Run,
    RunCancelled,
    RunFailed,
    create_hook,
    create_webhook,
    current,
    events,
    get_step_metadata,
    get_workflow_metadata,
    race,
    resume_hook,
    sleep,
    step,
    workflow,
)
from durable.client import describe, operate
from durable.replay.run_context import child_run_id
from durable.store.schema import inbox, runs
from durable.turns.drive import drive
from durable.web import create_blueprint

pytestmark = all_databases()

#: What steps did, by the run that they did it for.
done: dict[str, list[Any]] = {}


@step
def note(what: Any) -> Any:
    done.setdefault(get_step_metadata().run_id, []).append(what)
    return what


def child_of(engine: Durable, run: Run[Any]) -> Run[Any]:
    """The one run that *run* has called."""
    (child_id,) = [run_id for run_id in family(engine, run) if run_id != run.id]
    return engine.get_run(child_id)


def created(run: Run[Any]) -> list[events.ChildCreated]:
    return [event for event in run.events() if isinstance(event, events.ChildCreated)]


def left_in_inbox(engine: Durable, run: Run[Any]) -> int:
    with engine.store.read() as tx:
        query = sa.select(sa.func.count()).select_from(inbox).where(inbox.c.run_id == run.id)
        return int(tx.execute(query).scalar_one())


# Results


@workflow
async def doubled(n: int) -> int:
    return 2 * await note(n)


@workflow
async def calls_one(n: int) -> list[Any]:
    return [await doubled(n), get_workflow_metadata().run_id]


def test_c73_a_child_started_in_a_workflow_returns_its_result(engine):
    """It is a run of its own, which both logs and both descriptions tell."""
    run = engine.start(calls_one, 4)
    settle_family(engine, run)

    child = child_of(engine, run)
    assert run.result() == [8, run.id]
    assert child.result() == 8
    assert done[child.id] == [4]
    assert kinds(run) == ["run_created", "run_started", "child_created", "child_completed", "run_completed"]
    assert kinds(child)[0] == "run_created"
    assert describe.describe(engine, child.id)["parent"] == run.id
    assert describe.describe(engine, run.id)["parent"] is None


def test_however_often_it_is_replayed_a_call_is_one_child(engine):
    """The child's id follows from the run and the call."""
    run = engine.start(calls_one, 4)
    for _ in range(3):
        drive(engine, run.id)
    settle_family(engine, run)
    settle_family(engine, run)

    (call,) = created(run)
    assert call.run_id == child_run_id(run.id, "r#1") == child_of(engine, run).id
    assert len(family(engine, run)) == 2


@workflow
async def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(await asyncio.gather(fibonacci(n - 1), fibonacci(n - 2)))


def test_c73_children_that_call_children(engine):
    """Fibonacci(5) is 15 runs; all that wait are put away, so one worker alone does them all."""
    run = engine.start(fibonacci, 5)
    settle_family(engine, run, within_secs=60)

    assert run.result() == 5
    assert len(family(engine, run)) == 15


# Failure


class NoStock(Exception):
    pass


@workflow
async def fails(item: str) -> None:
    raise NoStock(item)


@workflow
async def catches(item: str) -> dict[str, Any]:
    try:
        await fails(item)
    except RunFailed as error:
        return {
            "run_id": error.run_id,
            "error_type": error.error_type.rpartition(".")[2],
            "message": error.message,
            "names the line": "raise NoStock(item)" in (error.traceback or ""),
            "cause": repr(error.__cause__),
        }
    raise AssertionError("the child has not failed")


@workflow
async def does_not_catch(item: str) -> None:
    await fails(item)


def test_a_failed_child_raises_run_failed(engine):
    """With the child's id, the error's class, message and traceback, and the error itself as the cause."""
    run = engine.start(catches, "tea")
    settle_family(engine, run)

    assert run.result() == {
        "run_id": child_of(engine, run).id,
        "error_type": "NoStock",
        "message": "tea",
        "names the line": True,
        "cause": "NoStock('tea')",
    }
    assert "child_failed" in kinds(run)


def test_an_uncaught_failure_of_a_child_fails_its_parent(engine):
    """The chain of causes leads from the parent's failure to the child's exception."""
    run = engine.start(does_not_catch, "tea")
    settle_family(engine, run)

    with pytest.raises(RunFailed) as parent_failed:
        run.result()
    child_failed = parent_failed.value.__cause__
    assert isinstance(child_failed, RunFailed)
    assert child_failed.run_id == child_of(engine, run).id
    assert repr(child_failed.__cause__) == "NoStock('tea')"


# Cancelling


@workflow
async def cleans_up() -> None:
    try:
        await sleep("1h")
    finally:
        await note("cleaned up")


@workflow
async def awaits_cleanup() -> str:
    try:
        await cleans_up()
    except RunCancelled as error:
        return f"{error.run_id}: {error.reason}"
    return "completed"


def test_a_child_that_a_caller_cancels_raises_run_cancelled(engine):
    """The child cleans up, then the parent's await raises, and the parent may go on."""
    run = engine.start(awaits_cleanup)
    settle_family(engine, run)
    child = child_of(engine, run)

    child.cancel("no use")
    settle_family(engine, run)

    assert run.result() == f"{child.id}: no use"
    assert done[child.id] == ["cleaned up"]


def test_cancelling_the_parent_cancels_the_child(engine):
    """The child cleans up as after any cancel; both end cancelled."""
    run = engine.start(awaits_cleanup)
    settle_family(engine, run)
    child = child_of(engine, run)

    run.cancel()
    settle_family(engine, run)

    assert (run.status, child.status) == ("cancelled", "cancelled")
    assert done[child.id] == ["cleaned up"]
    assert kinds(run).count("child_cancelled") == 1
    assert left_in_inbox(engine, run) == left_in_inbox(engine, child) == 0
    with pytest.raises(RunCancelled, match="the run that called it"):
        child.result()


@workflow
async def awaits_something_else() -> None:
    child = cleans_up()
    await sleep("1h")
    await child


def test_cancelling_the_parent_cancels_a_child_that_it_did_not_await(engine):
    """No child of a cancelled run goes on unseen."""
    run = engine.start(awaits_something_else)
    settle_family(engine, run)
    child = child_of(engine, run)

    run.cancel()
    settle_family(engine, run)

    assert (run.status, child.status) == ("cancelled", "cancelled")
    assert done[child.id] == ["cleaned up"]
    assert kinds(run).count("child_cancelled") == 1


@workflow
async def grandparent() -> str:
    return await awaits_cleanup()


def test_a_cancel_goes_down_all_generations(engine):
    """The youngest is cancelled with the oldest."""
    run = engine.start(grandparent)
    settle_family(engine, run)
    members = [engine.get_run(run_id) for run_id in family(engine, run)]

    run.cancel()
    settle_family(engine, run)

    assert [member.status for member in members] == ["cancelled"] * 3


@workflow
async def calls_in_cleanup() -> None:
    try:
        await sleep("1h")
    finally:
        doubled(1)


def test_what_a_cancelled_run_calls_and_does_not_await_never_begins(engine):
    """The log says of the call that it was given up."""
    run = engine.start(calls_in_cleanup)
    settle_family(engine, run)
    run.cancel()
    settle_family(engine, run)

    assert run.status == "cancelled"
    assert list(family(engine, run)) == [run.id]
    assert kinds(run)[-3:] == ["child_created", "child_cancelled", "run_cancelled"]


@workflow
async def awaits_a_child_in_cleanup() -> None:
    try:
        await sleep("1h")
    finally:
        await note(await doubled(21))


def test_cleanup_may_await_a_child(engine):
    """A child that is called after the cancel runs to its end."""
    run = engine.start(awaits_a_child_in_cleanup)
    settle_family(engine, run)
    run.cancel()
    settle_family(engine, run)

    assert run.status == "cancelled"
    assert done[run.id] == [42]
    assert child_of(engine, run).status == "completed"


# Given up


@workflow
async def races_a_hook() -> str:
    async def child() -> str:
        await cleans_up()
        return "the child"

    return await race(child(), create_hook(token=f"race:{get_workflow_metadata().run_id}"))


def test_a_child_whose_call_loses_a_race_is_cancelled(engine):
    """The parent does not wait for it to clean up, and ends with what won."""
    run = engine.start(races_a_hook)
    settle_family(engine, run)
    child = child_of(engine, run)

    resume_hook(f"race:{run.id}", "the hook")
    settle(engine, run)
    assert run.result() == "the hook"
    settle(engine, child)

    assert child.status == "cancelled"
    assert done[child.id] == ["cleaned up"]


@workflow
async def changes_its_mind(then: str) -> str:
    """Call a child, a step and a sleep, ask for a hook, and give all three up, in one turn."""
    if then == "is cancelled":
        try:
            await sleep("1h")
        except asyncio.CancelledError:
            await _give_all_up()
            raise
    return await _give_all_up()


async def _give_all_up() -> str:
    calls = [asyncio.ensure_future(call) for call in (doubled(1), note("called"), sleep("1h"))]
    with create_hook() as hook:
        await hook.get_conflict()
    for call in calls:
        call.cancel()
    return "alone"


def test_what_is_given_up_in_the_turn_of_its_call_never_begins(engine):
    """Neither the child, nor the step, nor the sleep; the log has the call and its end."""
    run = engine.start(changes_its_mind, "goes on")
    settle_family(engine, run)

    assert run.result() == "alone"
    assert list(family(engine, run)) == [run.id]
    assert run.id not in done
    told = kinds(run)
    assert {"child_cancelled", "step_cancelled", "wait_cancelled"} <= set(told)
    assert "step_completed" not in told


def test_so_too_when_the_run_is_cancelled(engine):
    """What the workflow gave up itself is not given up a second time."""
    run = engine.start(changes_its_mind, "is cancelled")
    settle_family(engine, run)
    run.cancel()
    settle_family(engine, run)

    assert run.status == "cancelled"
    assert list(family(engine, run)) == [run.id]
    told = kinds(run)
    assert (told.count("child_cancelled"), told.count("step_cancelled"), told.count("wait_cancelled")) == (1, 1, 2)


@workflow
async def leaves_a_child() -> str:
    doubled(5)
    return "done"


def test_a_child_that_nobody_awaits_goes_on_after_its_parents_end(engine):
    """As a step would; what it returns changes nothing in the parent's log."""
    run = engine.start(leaves_a_child)
    settle_family(engine, run)

    assert run.result() == "done"
    assert child_of(engine, run).result() == 10
    assert kinds(run)[-2:] == ["child_created", "run_completed"]
    assert left_in_inbox(engine, run) == 0


# While the parent is blocked

deployed = {"way": "old"}


@workflow
async def changes() -> Any:
    if deployed["way"] == "new":
        await note("something else")
    return await doubled(21)


def test_the_end_of_a_child_waits_for_a_blocked_parent(engine):
    """The child completes meanwhile, and its result is there when the parent goes on."""
    deployed["way"] = "old"
    restart(engine)
    run = engine.start(changes)
    drive(engine, run.id)
    deployed["way"] = "new"
    restart(engine)
    settle_family(engine, run)
    assert run.status == "blocked"
    assert child_of(engine, run).result() == 42

    deployed["way"] = "old"
    restart(engine)
    assert operate.retry(engine, run.id) is True
    settle_family(engine, run)

    assert run.result() == 42


@workflow
async def changes_beside_a_child() -> Any:
    if deployed["way"] == "new":
        await note("something else")
    hook = create_hook(token=f"news:{get_workflow_metadata().run_id}")
    return await race(cleans_up(), hook)


def test_cancelling_a_blocked_parent_cancels_the_child(engine):
    """The parent ends at once, without any code of it; the child cleans up."""
    deployed["way"] = "old"
    restart(engine)
    run = engine.start(changes_beside_a_child)
    settle_family(engine, run)
    child = child_of(engine, run)
    deployed["way"] = "new"
    restart(engine)
    resume_hook(f"news:{run.id}", "news")
    settle_family(engine, run)
    assert run.status == "blocked"

    run.cancel()
    settle_family(engine, run)

    assert (run.status, child.status) == ("cancelled", "cancelled")
    assert done[child.id] == ["cleaned up"]
    assert "child_cancelled" in kinds(run)
    deployed["way"] = "old"
    restart(engine)


# Queues, hooks, URLs


@workflow(queue="reports", priority=7)
async def reports() -> str:
    return "reported"


@workflow
async def calls_reports() -> str:
    return await reports()


def queue_of(engine: Durable, run: Run[Any]) -> tuple[str | None, int | None]:
    with engine.store.read() as tx:
        row = tx.execute(sa.select(runs.c.queue, runs.c.priority).where(runs.c.id == run.id)).one()
    return row.queue, row.priority


def messages_in(engine: Durable, queue: str) -> list[list[Any]]:
    """The arguments of the messages in a queue of the broker, which are taken out."""
    found = []
    with engine.celery.connection_for_read() as connection:
        simple = connection.SimpleQueue(queue)
        while len(simple):
            message = simple.get(block=False)
            found.append(message.payload[0])
            message.ack()
        simple.close()
    return found


def test_a_child_runs_on_the_queue_of_its_workflow(engine):
    """Whatever queue its parent runs on; its turns are sent there, and the parent's are not."""
    run = calls_reports.with_options(queue="orders", priority=1).start()
    drive(engine, run.id)
    child = child_of(engine, run)

    assert (queue_of(engine, run), queue_of(engine, child)) == (("orders", 1), ("reports", 7))
    assert messages_in(engine, "reports") == [[child.id]]
    settle_family(engine, run)
    assert run.result() == "reported"
    assert [run.id] in messages_in(engine, "orders")


@step
def tell(token: str, what: str) -> None:
    resume_hook(token, what)


@workflow
async def talks_back(token: str) -> str:
    await tell(token, "halfway")
    await sleep("10ms")
    await tell(token, "nearly")
    return "done"


@workflow
async def listens() -> list[str]:
    hook = create_hook()
    call = asyncio.ensure_future(talks_back(hook.token))
    return [await hook, await hook, await call]


def test_c73_a_child_talks_back_through_a_hook(engine):
    """While it runs, and in order."""
    run = engine.start(listens)
    settle_family(engine, run)

    assert run.result() == ["halfway", "nearly", "done"]


@step
def post(url: str, data: bytes) -> int:
    app = flask.Flask("vendor")
    app.register_blueprint(create_blueprint(current.current_engine()))
    with app.test_client() as client:
        return client.post(url.removeprefix("https://hooks.test"), data=data).status_code


@workflow
async def calls_the_url(url: str) -> int:
    return await post(url, b"from the child")


@workflow
async def hands_its_url_on() -> list[Any]:
    webhook = create_webhook()
    status = await calls_the_url(webhook.url)
    request: Request = await webhook
    return [status, request.data]


def test_c64_the_url_handed_to_a_child(engine):
    """What the child posts to it comes to the parent."""
    run = engine.start(hands_its_url_on)
    settle_family(engine, run)

    assert run.result() == [202, b"from the child"]


@workflow
async def echoes(request: Request) -> bytes:
    return request.data


@workflow
async def hands_its_request_on() -> bytes:
    return await echoes(await create_webhook())


def test_a_request_is_handed_to_a_child(engine):
    """With its body, which is kept once."""
    run = engine.start(hands_its_request_on)
    settle(engine, run)
    (hook,) = run.hooks()
    app = flask.Flask("web")
    app.register_blueprint(create_blueprint(engine))
    app.test_client().post(hook["url"].removeprefix("https://hooks.test"), data=b"body")
    settle_family(engine, run)

    assert run.result() == b"body"


# Started from a step


@step
def begin(n: int) -> Run[int]:
    return doubled.with_options(idempotency_key=get_step_metadata().idempotency_key).start(n)


@step(max_retries=None, retry_backoff=0.01)
def fetch(run: Run[int]) -> int:
    return run.result(timeout=0)


@workflow
async def starts_in_a_step(n: int) -> list[Any]:
    started = await begin(n)
    await create_hook(token=f"go:{get_workflow_metadata().run_id}")
    return [started.id, await fetch(started)]


def test_c73_a_run_started_from_a_step_returns_its_result(engine):
    """It is no child: the Run crosses to another step, which asks for the result."""
    run = engine.start(starts_in_a_step, 8)
    settle(engine, run)
    (completed,) = [e for e in run.events() if isinstance(e, events.StepCompleted)]
    assert "step_completed" in kinds(run)

    resume_hook(f"go:{run.id}", None)
    drive(engine, run.id)
    with engine.store.read() as tx:
        key = f"{run.id}:{completed.op_id}"
        started = engine.get_run(tx.execute(sa.select(runs.c.id).where(runs.c.idempotency_key == key)).scalar_one())
    settle(engine, run, started)

    assert run.result() == [started.id, 16]
    assert describe.describe(engine, started.id)["parent"] is None
    assert list(family(engine, run)) == [run.id]


def test_cancelling_a_run_leaves_what_its_steps_have_started(engine):
    """Only what the workflow itself has called is cancelled with it."""
    run = engine.start(starts_in_a_step, 8)
    settle(engine, run)
    with engine.store.read() as tx:
        query = sa.select(runs.c.id).where(runs.c.idempotency_key.like(f"{run.id}:%"))
        started = engine.get_run(tx.execute(query).scalar_one())

    run.cancel()
    settle(engine, run, started)

    assert run.status == "cancelled"
    assert started.result() == 16


# Versions


def test_a_run_remembers_the_code_that_started_it(engine, database):
    """Code of another version may go on with it; the children that this calls remember that one."""
    run = engine.start(calls_one, 1)
    other = Durable(Celery("other", broker="memory://"), database_url=database, code_version="second")
    settle_family(other, run)
    versions = [describe.describe(engine, each.id)["code_version"] for each in (run, child_of(engine, run))]
    other.close()
    current.register(engine)

    assert run.status == "completed"
    assert versions == [engine.code_version(calls_one), "second"]
    assert versions[0] not in ("second", engine.code_version(doubled))
