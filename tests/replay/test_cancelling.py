"""Cancelling in one run's loop: what is given up, what cleans up, and that a replay takes the same way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
from simulator import Simulator

from durable import create_hook, events, race, sleep, step, workflow
from durable.registry.definitions import Workflow
from durable.replay import commands


@step(name="test_cancelling.work")
def work(n: Any) -> Any:
    return n


@step(name="test_cancelling.tidy")
def tidy(n: Any) -> Any:
    return n


@workflow(name="test_cancelling.child")
async def child() -> None:
    await sleep(60)


def play(function: Callable[..., Any], *args: Any) -> Simulator:
    """The first turn of *function* as a workflow; each turn is thought twice, the second time from the whole log."""
    return Simulator(Workflow(function, name="test_cancelling.flow"), args).turn()


def told(sim: Simulator, kind: str) -> list[str]:
    """The operations that events of this kind are about, in the order of the log."""
    return [event.op_id for event in sim.log if event.kind == kind]


def tidying(sim: Simulator) -> list[str]:
    """The calls of ``tidy`` that are open."""
    return [event.op_id for event in sim.open(events.StepCreated) if event.name == tidy.name]


# A call.


def test_c78_a_cancelled_step_holds_nobody_up():
    """Sleep, then cancel a long step: what follows is asked for in that very turn."""

    async def flow():
        call = asyncio.ensure_future(work("long"))
        await sleep(1)
        call.cancel()
        return await tidy("next")

    sim = play(flow).wait(1)

    assert told(sim, "step_cancelled") == ["r#1"]
    assert sim.complete("tidy", "done").result == "done"


def gathered() -> Any:
    return asyncio.gather(*(work(n) for n in range(3)))


async def grouped() -> None:
    async def awaits(n: int) -> None:
        await work(n)

    async with asyncio.TaskGroup() as group:
        for n in range(3):
            group.create_task(awaits(n))


async def waited() -> None:
    calls = [asyncio.ensure_future(work(n)) for n in range(3)]
    try:
        await asyncio.wait(calls)
    finally:
        for call in calls:
            call.cancel()


def raced() -> Any:
    return race(*(work(n) for n in range(3)))


@pytest.mark.parametrize("begin", [gathered, grouped, waited, raced])
def test_c78_all_parallel_steps_of_a_cancelled_task_are_given_up(begin):
    """Through gather, TaskGroup, race, and by hand; the workflow that cancelled them goes on."""

    async def flow():
        together = asyncio.ensure_future(begin())
        await sleep(1)
        together.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await together
        return await tidy("next")

    sim = play(flow)
    assert len(sim.open(events.StepCreated)) == 3
    sim.wait(1)

    assert len(told(sim, "step_cancelled")) == 3
    assert len(sim.open(events.StepCreated)) == len(tidying(sim)) == 1
    assert sim.complete("tidy", "done").result == "done"


@pytest.mark.parametrize("outcome", ["result", "error"])
def test_c79_an_outcome_after_the_cancel_changes_no_branch(outcome):
    """The step ends just after it was given up: the workflow is on its other way, now and on replay."""

    async def flow():
        call = asyncio.ensure_future(work(1))
        await sleep(1)
        call.cancel()
        try:
            return await call
        except asyncio.CancelledError:
            return await tidy("cancelled")

    sim = play(flow)
    late: events.Event = sim.completed("work", "late")
    if outcome == "error":
        late = events.StepFailedEvent(at=0, op_id=late.op_id, attempt=1, error='{"t": "error"}')
    sim.turn(events.WaitCompleted(at=0, op_id="r#2"), late)

    assert len(sim.open(events.StepCreated)) == len(tidying(sim)) == 1
    assert sim.complete("tidy", "other way").result == "other way"


def test_c81_cancelling_what_has_ended_is_a_no_op():
    """A call, a task and a sleep that are over say False, and keep their results; so does a second cancel."""

    async def flow():
        call, nap = asyncio.ensure_future(work(1)), asyncio.ensure_future(sleep(1))
        task = asyncio.create_task(asyncio.wait_for(work(2), 60))
        results = await asyncio.gather(call, nap, task)
        ended = [each.cancel() for each in (call, nap, task)]
        other = asyncio.ensure_future(work(3))
        return results, ended, [other.cancel(), other.cancel()]

    sim = play(flow).complete("r#1", "a").complete("r#3", "b").wait(1)

    assert sim.result == (["a", None, "b"], [False, False, False], [True, False])
    assert told(sim, "step_cancelled") == []


VARIANTS = list(permutations(["abort", "payload", "step"]))


@pytest.mark.parametrize("together", [False, True], ids=["a turn each", "one turn"])
@pytest.mark.parametrize("order", VARIANTS, ids="-".join)
def test_c80_abort_payload_and_result_take_the_order_of_the_log(order, together):
    """A hook cancels the step: what came before it in the log has happened, what came after it has not."""

    async def flow():
        abort, data = create_hook(token="abort"), create_hook(token="data")
        happened = []

        async def cancels(call):
            await abort
            happened.append("abort")
            call.cancel()

        async def reads():
            happened.append(await data)

        async def works(call):
            happened.append(await call)

        call = asyncio.ensure_future(work("long"))
        await asyncio.gather(cancels(call), reads(), works(call), return_exceptions=True)
        return happened

    sim = play(flow)
    news = {
        "abort": sim.sent(None, "abort"),
        "payload": sim.sent("payload", "data"),
        "step": sim.completed("work", "step"),
    }
    before_abort = order.index("step") < order.index("abort")
    if together:
        sim.turn(*(news[each] for each in order))
    else:
        for each in order:
            if before_abort or each != "step":
                sim.turn(news[each])

    assert sim.result == [each for each in order if each != "step" or before_abort]
    # In one turn its outcome is in the log already, so that there is nothing left to withdraw.
    assert told(sim, "step_cancelled") == ([] if before_abort or together else ["r#3"])


# A run.


async def awaits_lock() -> None:
    lock = asyncio.Lock()
    async with lock, lock:
        pass


async def awaits_async_generator() -> None:
    async def numbers():
        try:
            for n in range(3):
                yield await work(n)
        finally:
            await tidy("generator")

    async for _ in numbers():
        pass


WAITING: dict[str, Callable[[], Any]] = {
    "step": lambda: work(1),
    "sleep": lambda: sleep(60),
    "asyncio.sleep": lambda: asyncio.sleep(60),
    "hook": lambda: create_hook(),
    "child": lambda: child(),
    "gather": gathered,
    "TaskGroup": grouped,
    "race": raced,
    "wait": waited,
    "wait_for": lambda: asyncio.wait_for(work(1), 60),
    "shield": lambda: asyncio.shield(work(1)),
    "shielded sleep": lambda: asyncio.shield(sleep(60)),
    "Queue": lambda: asyncio.Queue().get(),
    "Event": lambda: asyncio.Event().wait(),
    "Lock": awaits_lock,
    "async generator": awaits_async_generator,
    "as_completed": lambda: next(iter(asyncio.as_completed([work(1), work(2)]))),
}


@pytest.mark.parametrize("waiting", WAITING)
def test_a_cancel_reaches_every_await(waiting):
    """CancelledError once, whatever the workflow waits for; then its cleanup runs, and the run ends cancelled."""

    async def flow():
        seen = 0
        try:
            await WAITING[waiting]()
        except asyncio.CancelledError:
            seen += 1
            await tidy(seen)
            await sleep(1)
            await tidy("last")
            raise

    sim = play(flow).cancel().cancel()
    while tidying(sim):
        sim.complete("tidy")
    assert sim.outcome is None
    sim.wait(1).complete("tidy")

    assert sim.outcome == commands.Outcome(status="cancelled")
    assert told(sim, "run_cancelled") == ["r"]


def test_a_shielded_step_outlives_the_cancel_until_the_run_ends():
    """The cleanup may still await it."""

    async def flow():
        call = asyncio.ensure_future(work("precious"))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            await tidy(await call)

    sim = play(flow).cancel()
    assert told(sim, "step_cancelled") == []
    sim.complete("work", "kept")

    assert '"kept"' in sim.step("tidy").args
    assert sim.complete("tidy").outcome == commands.Outcome(status="cancelled")


def test_a_cancel_during_a_deadline_is_no_timeout():
    """`asyncio.timeout` lets it through, and its timer is withdrawn; in cleanup deadlines work as ever."""

    async def flow():
        try:
            async with asyncio.timeout(60):
                await work(1)
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(5):
                    await tidy("slow")
            except TimeoutError:
                await tidy("quick")

    sim = play(flow).cancel()
    assert len(told(sim, "wait_cancelled")) == 1
    sim.wait(5)

    assert '"quick"' in sim.step("tidy").args
    assert sim.complete("tidy").outcome == commands.Outcome(status="cancelled")


def test_cleanup_of_several_tasks_runs_side_by_side():
    """Each branch of a TaskGroup undoes its own work, and the run ends when all have."""

    async def branch(n):
        try:
            await work(n)
        finally:
            await tidy(n)

    async def flow():
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(branch(n))

    sim = play(flow).cancel()
    assert len(tidying(sim)) == 3
    for op_id in tidying(sim):
        assert sim.outcome is None
        sim.complete(op_id)

    assert sim.outcome == commands.Outcome(status="cancelled")


def test_c53_a_cancelled_race_leaves_the_payload_to_the_cleanup():
    """The next await of the hook gets the payload that arrives after the cancel."""

    async def flow():
        hook = create_hook(token="t")
        try:
            await race(hook, sleep(60))
        except asyncio.CancelledError:
            await tidy(await hook)

    sim = play(flow).cancel()
    assert len(told(sim, "wait_cancelled")) == 1
    sim.send("kept")

    assert '"kept"' in sim.step("tidy").args


@pytest.mark.parametrize("first", ["cancel", "result"])
def test_a_cancel_and_the_last_result_take_the_order_of_the_log(first):
    """In one turn too: the run completes when its result came first, else it is cancelled."""

    async def flow():
        return await work(1)

    sim = play(flow)
    news = [events.RunCancelRequested(at=0), sim.completed("work", "just in time")]
    sim.turn(*(news if first == "cancel" else reversed(news)))

    assert sim.outcome is not None
    assert sim.outcome.status == ("cancelled" if first == "cancel" else "completed")


def test_every_prefix_of_a_cancelled_run_replays_alike():
    """Wherever a worker dies in the cleanup, the next one asks for the same."""

    async def flow():
        hook = create_hook(token="t")
        try:
            await asyncio.gather(work(1), work(2), sleep(60))
        except asyncio.CancelledError:
            await tidy(await hook)
            await sleep(1)
            raise ValueError("not all of it") from None

    sim = play(flow).complete("r#2").cancel("enough").send("x").complete("tidy").wait(1)
    assert sim.outcome is not None

    for upto in range(2, len(sim.log)):
        replay = sim.cold(upto)
        asked = [command.op_id for command in replay.take()]
        recorded = [event.op_id for event in sim.log[upto:]]
        assert replay.fault is None
        assert [op_id for op_id in asked if op_id not in recorded] == []
        replay.park()
