"""
The deterministic loop: asyncio unmodified in a workflow, the same on every replay and every Python.

``play`` turns a coroutine function into a workflow and starts it in the
simulator, which replays the whole log at each turn and compares.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import logging
import subprocess
import sys
import weakref
from asyncio import wait_for
from collections.abc import Callable
from typing import Any

import pytest
import stubborn
from simulator import Simulator

from durable import registry, sleep
from durable.errors import NonDeterministicCall
from durable.registry.decorators import step
from durable.registry.definitions import Workflow
from durable.replay import Replay, RunInfo


@step(name="test_loop.s")
def s(n: int) -> int:
    return n * 10


def play(function: Callable[..., Any], *args: Any, **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    made = Workflow(function, name=f"test_loop.{function.__name__}")
    return Simulator(made, args, **options).turn()


def ops(sim: Simulator) -> list[str]:
    """What was asked for: op ids, and numbers that a step was called with."""
    return [f"{e.op_id} {e.args.strip('{}')[4:]}" for e in sim.log if e.kind == "step_created"]


# Rule 2 of the recipe: one event at a time


def test_outcomes_resolve_in_the_order_of_the_log():
    """Two outcomes in one turn: what follows the first is asked for before what follows the second."""
    order = []

    async def follow(n):
        order.append(await s(n))
        await s(n + 100)

    async def flow():
        await asyncio.gather(follow(1), follow(2))

    sim = play(flow)
    order.clear()
    sim.checked = False
    sim.turn(sim.completed("r.2#1", 20), sim.completed("r.1#1", 10))

    assert order == [20, 10]
    assert ops(sim)[2:] == ["r.2#2 102", "r.1#2 101"]


def test_c95_a_queued_outcome_and_a_completed_wait_that_is_awaited_again():
    """Upstream's known failure: the wait is done, is raced again, and a payload is queued."""

    async def flow():
        wait, call, seen = sleep(5), s(1), []
        for _ in range(2):
            await asyncio.wait([wait, call], return_when=asyncio.FIRST_COMPLETED)
            seen.append((wait.done(), call.done()))
            await asyncio.sleep(0)
        await s(2)
        return seen

    sim = play(flow).wait(6)
    sim.turn(sim.completed("r#2", 10))
    sim.complete("r#3")

    assert sim.result == [(True, False), (True, False)]


# Names


def test_a_call_of_a_step_asks_at_once():
    """`a = s(1); b = s(2)` starts both, before either is awaited."""

    async def flow():
        a, b = s(1), s(2)
        return [await b, await a]

    sim = play(flow)

    assert ops(sim) == ["r#1 1", "r#2 2"]
    assert sim.complete("r#1", 1).complete("r#2", 2).result == [2, 1]


def test_names_follow_the_task_not_the_order_of_events():
    """Tasks count for themselves: what one does shifts nothing in another."""

    async def chain(n):
        for k in range(3):
            await s(n * 10 + k)

    async def flow():
        await asyncio.gather(chain(1), chain(2))

    sim = play(flow)
    for op_id in ("r.2#1", "r.2#2", "r.1#1", "r.2#3", "r.1#2", "r.1#3"):
        sim.complete(op_id)

    assert sim.outcome.status == "completed"
    assert sorted(ops(sim)) == ["r.1#1 10", "r.1#2 11", "r.1#3 12", "r.2#1 20", "r.2#2 21", "r.2#3 22"]


def test_tasks_of_tasks_have_paths():
    """r.1.1 is the first that the first of the main task made."""

    async def leaf():
        await s(7)

    async def branch():
        await asyncio.create_task(leaf(), name="the author's name")

    async def flow():
        await asyncio.ensure_future(branch())

    assert ops(play(flow)) == ["r.1.1#1 7"]


def test_a_callback_has_a_name_too():
    """call_later runs outside of any task."""

    async def flow():
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(1, lambda: (s(1), done.set()))
        await done.wait()
        await s(2)

    assert ops(play(flow).wait(2)) == ["cb#1 1", "r#2 2"]


# asyncio, unmodified


def test_c14_gather_gives_results_in_call_order():
    """Whatever order they come in."""

    async def flow():
        return await asyncio.gather(*[s(n) for n in range(3)])

    assert play(flow).complete("r#3", 2).complete("r#1", 0).complete("r#2", 1).result == [0, 1, 2]


def test_c15_the_first_success_can_win():
    """An "any" over as_completed passes over those that raise."""

    async def flow():
        for first in asyncio.as_completed([s(1), s(2), s(3)]):
            try:
                return await first
            except ValueError:
                pass

    assert play(flow).fail("r#2", ValueError()).complete("r#3", 30).result == 30


@pytest.mark.parametrize("width", [3, 100])
def test_a_task_group_aborts_its_tasks_in_the_order_they_were_made(width):
    """TaskGroup keeps a set: ours hash by an ordinal, not by address."""
    told = []

    async def child(n):
        try:
            await s(n)
        except asyncio.CancelledError:
            told.append(n)
            raise

    async def flow():
        async with asyncio.TaskGroup() as group:
            for n in range(width):
                group.create_task(child(n))

    sim = play(flow)
    told.clear()
    sim.checked = False
    sim.fail("r.2#1", ValueError())

    assert sorted(told) == [n for n in range(width) if n != 1]
    again, told[:] = list(told), []
    sim.cold()
    assert told == again


async def _raises_when_cancelled():
    try:
        await s(1)
    finally:
        raise ValueError("in the cleanup")


def test_a_task_group_that_fails_when_it_is_cancelled_does_not_hide_that():
    """A timeout around it is a TimeoutError on every Python, though the group's error was caught."""

    async def flow():
        told = []
        try:
            async with asyncio.timeout(5):
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_raises_when_cancelled())
                except* ValueError:
                    told.append("group")
                told.append(await s(2))
        except TimeoutError:
            told.append("late")
        return [*told, await s(3)]

    sim = play(flow).wait(6).work()

    assert sim.result == ["group", "late", 30]
    assert ops(sim) == ["r.1#1 1", "r#3 3"]


def test_a_task_group_that_is_timed_out_as_a_whole_is_cancelled_once():
    """Its errors get through the timeout, and nothing is cancelled after that."""

    async def flow():
        try:
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                group.create_task(_raises_when_cancelled())
        except* ValueError:
            pass
        return await s(2)

    assert play(flow).wait(6).work().result == 20


def test_a_task_group_that_failed_leaves_no_cancel_behind():
    """A timeout around it that comes later is a TimeoutError on every Python."""

    async def flow():
        try:
            async with asyncio.timeout(5):
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(s_of(1))
                except* ValueError:
                    await s(2)
        except TimeoutError:
            return "late"

    async def s_of(n):
        await s(n)

    assert play(flow).fail("s", ValueError()).wait(6).result == "late"


@pytest.mark.slow
def test_wait_gives_sets_that_iterate_alike():
    """`for task in done` issues in the same order everywhere."""

    async def flow():
        done, _ = await asyncio.wait([asyncio.create_task(asyncio.sleep(1, n)) for n in range(50)])
        for task in done:
            await s(task.result())

    sim = play(flow).wait(1)
    sim.work()

    assert sim.outcome.status == "completed"
    assert ops(sim) == [f"r#{n + 1} {n}" for n in range(50)]


def test_gathers_can_be_waited_for_too():
    """gather's own kind of future is ordered as well."""

    async def flow():
        groups = [asyncio.gather(s(n)) for n in range(20)]
        done, _ = await asyncio.wait(groups)
        return [future.result() for future in done]

    sim = play(flow)
    for n in range(20):
        sim.complete(f"r#{n + 1}", n)

    assert sim.result == [[n] for n in range(20)]


def test_as_completed_makes_its_tasks_in_the_order_of_the_list():
    """It goes through a set of coroutines, whose order is that of addresses."""

    async def twice(n):
        return await s(n)

    async def flow():
        for next_done in asyncio.as_completed([twice(n) for n in range(30)]):
            await next_done

    assert ops(play(flow)) == [f"r.{n + 1}#1 {n}" for n in range(30)]


def test_as_completed_times_out():
    """Its timeout is a durable timer."""

    async def flow():
        seen = []
        try:
            for next_done in asyncio.as_completed([s(1), s(2)], timeout=5):
                seen.append(await next_done)
        except TimeoutError:
            seen.append("late")
        return seen

    assert play(flow).complete("r#2", 20).wait(6).result == [20, "late"]


def test_as_completed_refuses_what_it_always_refused():
    """A single future is no list of them."""

    async def flow():
        with pytest.raises(TypeError):
            list(asyncio.as_completed(s(1)))

    assert play(flow).outcome.status == "completed"


@pytest.mark.parametrize("function", [wait_for, asyncio.wait_for], ids=["taken by name", "by module"])
def test_wait_for_makes_no_task(function):
    """3.11's wrapped a coroutine in one: names would change with Python.  However it was imported."""

    async def twice():
        return await s(1) + await s(2)

    async def flow():
        return await function(twice(), 10)

    sim = play(flow)

    assert ops(sim) == ["r#2 1"]
    assert sim.complete("r#2", 1).complete("r#3", 2).result == 3


def test_wait_for_times_out_and_cancels():
    """The step is given up; the workflow goes on."""

    async def flow():
        try:
            await asyncio.wait_for(s(1), 10)
        except TimeoutError:
            return "late"

    sim = play(flow).wait(11)

    assert sim.result == "late"
    assert [e.op_id for e in sim.log if e.kind == "step_cancelled"] == ["r#1"]


@pytest.mark.parametrize("limit", [0, -1])
def test_wait_for_nothing_starts_nothing(limit):
    """With no time at all, a coroutine does not begin."""

    async def flow():
        try:
            await asyncio.wait_for(asyncio.sleep(1), limit)
        except TimeoutError:
            return "late"

    sim = play(flow)

    assert sim.result == "late"
    assert [e for e in sim.log if e.kind == "wait_created"] == []


def test_timeout_zero_makes_no_timer():
    """Its body may ask for one step and give it up, which the log never hears of."""

    async def flow():
        try:
            async with asyncio.timeout(0):
                await s(1)
        except TimeoutError:
            return "late"

    sim = play(flow)

    assert sim.result == "late"
    assert [e.kind for e in sim.log] == ["run_created", "run_started", "run_completed"]


def test_a_timeout_that_is_rescheduled_is_another_wait():
    """The first timer is withdrawn before the log ever saw it."""

    async def flow():
        async with asyncio.timeout(5) as limit:
            limit.reschedule(asyncio.get_running_loop().time() + 50)
            await asyncio.sleep(20)
        return "in time"

    sim = play(flow)

    assert [(e.due_at - sim.log[0].at) // 1_000_000 for e in sim.log if e.kind == "wait_created"] == [50, 20]
    assert sim.wait(25).result == "in time"


def test_queues_events_locks_semaphores_conditions_work():
    """All of them, in one workflow."""

    async def flow():
        queue, event, lock = asyncio.Queue(1), asyncio.Event(), asyncio.Lock()
        two, condition = asyncio.Semaphore(2), asyncio.Condition()

        async def produce(n):
            async with two, lock:
                await s(n)
                await queue.put(n)
            async with condition:
                condition.notify_all()

        tasks = [asyncio.create_task(produce(n)) for n in range(4)]
        got = [await queue.get() for _ in tasks]
        async with condition:
            await condition.wait_for(lambda: all(task.done() for task in tasks) or len(got) == 4)
        event.set()
        await event.wait()
        return got

    sim = play(flow)
    sim.work()

    assert sim.result == [0, 1, 2, 3]


def test_a_cancelled_waiter_of_a_condition_wakes_nobody_else():
    """Unless it was notified: the same on every Python."""

    async def flow():
        condition, told = asyncio.Condition(), []

        async def wait(name):
            async with condition:
                await condition.wait()
                told.append(name)

        async def notify():
            async with condition:
                condition.notify()

        first, second, third = [asyncio.create_task(wait(name)) for name in "abc"]
        await s(1)
        first.cancel()
        await s(2)
        told.append("cancelled")
        await notify()
        second.cancel()
        await asyncio.wait([first, second, third])
        return [*told, second.cancelled()]

    assert play(flow).work().result == ["cancelled", "c", True]


def test_shield_keeps_the_step():
    """The waiter is cancelled, the step goes on."""

    async def flow():
        call = s(1)
        try:
            await asyncio.wait_for(asyncio.shield(call), 1)
        except TimeoutError:
            return await call

    sim = play(flow).wait(2)

    assert not sim.outcome
    assert sim.complete("r#1", 5).result == 5


def test_c41_a_sleep_in_the_background_still_fires():
    """A task that nobody awaits goes on while the run does."""

    async def flow():
        seen = []

        async def later():
            await asyncio.sleep(1)
            seen.append("fired")

        asyncio.create_task(later())  # noqa: RUF006  the loop keeps it
        await s(1)
        return seen

    assert play(flow).wait(2).complete("r#1").result == ["fired"]


def test_an_async_generator_left_by_break_runs_its_finally():
    """It is closed by a task of its own, and may await steps."""

    async def flow():
        async def numbers():
            try:
                for n in range(5):
                    yield await s(n)
            finally:
                await s(99)

        async for _ in numbers():
            break
        await s(50)

    sim = play(flow).complete("r#1")

    assert sorted(ops(sim)) == ["r#1 0", "r#2 50", "r.1#1 99"]


def test_c13_what_was_called_but_not_awaited_is_asked_for():
    """Also by a task that had not begun when the workflow returned."""

    async def flow():
        async def helper():
            await s(2)

        s(1)
        asyncio.create_task(helper())  # noqa: RUF006

    sim = play(flow)

    assert ops(sim) == ["r#1 1", "r.1#1 2"]
    assert sim.log[-1].kind == "run_completed"


def test_a_task_that_spins_does_not_keep_a_finished_run():
    """After the workflow's end, what is ready runs once more, and no longer."""

    async def flow():
        async def spin():
            while True:
                await asyncio.sleep(0)

        asyncio.create_task(spin())  # noqa: RUF006
        await asyncio.sleep(0)
        return "over"

    assert play(flow).result == "over"


# Time


def test_time_is_that_of_the_log():
    """loop.time() is seconds since the start, by the events."""

    async def flow():
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(1.5)
        await s(1)
        return [before, loop.time()]

    sim = play(flow).wait(2)
    sim.wait(8).complete("r#2")

    assert sim.result == [0.0, 10.0]


@pytest.mark.parametrize("delay", [float("inf"), float("nan")])
def test_a_sleep_without_end_is_refused(delay):
    """No row could hold when it is due."""

    async def flow():
        with pytest.raises(ValueError, match=r"nan|NaN|no end"):
            await asyncio.sleep(delay)

    assert play(flow).outcome.status == "completed"


@pytest.mark.parametrize("delay", [300_000_000_000, 10**13])
def test_a_sleep_beyond_the_calendar_is_refused(delay):
    """Its end would have no date, or be larger than what a column holds."""

    async def flow():
        with pytest.raises(ValueError, match="ends after the year 9999"):
            await asyncio.sleep(delay)
        with pytest.raises(ValueError, match="ends after the year 9999"):
            async with asyncio.timeout(delay):
                await sleep(5)

    assert play(flow).outcome.status == "completed"


def test_sleeps_are_told_from_timeouts():
    """wake_up() ends the one and leaves the other: the digest says which it is."""

    async def flow():
        async with asyncio.timeout(60):
            await asyncio.gather(asyncio.sleep(10), sleep(20))

    digests = {e.digest for e in play(flow).log if e.kind == "wait_created"}

    assert digests == {"timer:60000000", "sleep:10000000", "sleep:20000000"}


# No I/O, no ambient context


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.run_in_executor(None, print),
        lambda loop: loop.call_soon_threadsafe(print),
        lambda loop: loop.create_connection(asyncio.Protocol, "localhost", 1),
        lambda loop: loop.add_reader(0, print),
        lambda loop: loop.add_signal_handler(2, print),
        lambda loop: loop.set_task_factory(None),
        lambda loop: loop.stop(),
    ],
)
def test_what_reaches_out_of_the_loop_is_refused(call):
    """With the fix in the message."""

    async def flow():
        with pytest.raises(NonDeterministicCall, match="move it into a step"):
            call(asyncio.get_running_loop())

    assert play(flow).outcome.status == "completed"


def test_threads_are_refused():
    """asyncio.to_thread goes through the executor."""

    async def flow():
        with pytest.raises(NonDeterministicCall):
            await asyncio.to_thread(print)

    assert play(flow).outcome.status == "completed"


AMBIENT: contextvars.ContextVar[str] = contextvars.ContextVar("AMBIENT", default="nothing")


def test_nothing_of_the_workers_context_leaks_in():
    """The main task begins with an empty context; child tasks inherit as in asyncio."""

    async def child():
        return AMBIENT.get()

    async def flow():
        before = AMBIENT.get()
        AMBIENT.set("the workflow's")
        return [before, await asyncio.create_task(child())]

    token = AMBIENT.set("the worker's")
    try:
        assert play(flow).result == ["nothing", "the workflow's"]
    finally:
        AMBIENT.reset(token)


def test_a_replay_inside_a_running_loop_leaves_it_as_it_was():
    """A worker may itself be on asyncio; its loop and its task are current again afterwards."""

    async def flow():
        return await asyncio.gather(s(1), asyncio.create_task(asyncio.sleep(0, 2)))

    async def outer():
        before = asyncio.current_task()
        assert play(flow).complete("r#1", 1).result == [1, 2]
        assert asyncio.current_task() is before
        return await asyncio.wait_for(asyncio.sleep(0, "outer"), 1)

    assert asyncio.run(outer()) == "outer"


def test_on_another_loop_the_patched_functions_are_asyncios_own():
    """On another loop, wait_for and as_completed behave as in asyncio."""

    async def plain():
        with pytest.raises(TimeoutError):
            await wait_for(asyncio.Event().wait(), 0.001)
        first = next(iter(asyncio.as_completed([asyncio.sleep(0, n) for n in range(3)])))
        both = asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        return await first in range(3), len({both, both}), await wait_for(asyncio.sleep(0, 7), None), await both

    assert asyncio.run(plain()) == (True, 1, 7, [None, None])
    assert inspect.iscoroutinefunction(wait_for)


def test_all_tasks_of_other_loops_are_not_ours():
    """Parked workflows stay out of asyncio's registry."""

    async def flow():
        await s(1)

    async def outer():
        kept = play(flow)
        return len(asyncio.all_tasks()), kept

    assert asyncio.run(outer())[0] == 1


def test_the_collector_is_off_while_a_workflow_runs():
    """It would run finalizers at moments that no replay repeats; it is on again afterwards."""

    async def flow():
        return gc.isenabled()

    assert play(flow).result is False
    assert gc.isenabled()


def test_an_unheard_error_of_a_task_is_logged_once(caplog):
    """As asyncio does, but not again at each replay."""

    async def flow():
        async def broken():
            raise ValueError("unheard")

        asyncio.create_task(broken())  # noqa: RUF006
        await s(1)

    # What other tests left unheard is told when it is collected: not in this test.
    gc.collect()
    caplog.clear()
    sim = play(flow, checked=False)
    gc.collect()
    before = len(caplog.records)
    sim.cold().park()
    gc.collect()

    assert [(r.name, r.levelno) for r in caplog.records] == [("durable", logging.ERROR)]
    assert before == 1


# Parking


@pytest.fixture
def told() -> list[str]:
    return []


def test_parking_runs_finally_and_nothing_else(told):
    """No except Exception, no except CancelledError: those would compensate for what has not failed."""

    async def flow():
        try:
            await s(1)
        except asyncio.CancelledError:
            told.append("cancelled")
        except Exception:
            told.append("exception")
        except BaseException as error:
            told.append(type(error).__name__)
            raise
        finally:
            told.append("finally")

    play(flow, checked=False).kept.park()

    assert told == ["GeneratorExit", "finally"]


def test_parking_closes_the_newest_first(told):
    """A child's finally runs before that of the task that made it."""

    async def child(n):
        try:
            await s(n)
        finally:
            told.append(f"child {n}")

    async def flow():
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child(1))
                group.create_task(child(2))
        finally:
            told.append("main")

    play(flow, checked=False).kept.park()

    assert told == ["child 2", "child 1", "main"]


def test_nothing_can_be_asked_while_parking(told):
    """A cleanup that awaits is cut short there, and asks for nothing."""

    async def flow():
        try:
            await s(1)
        finally:
            told.append("cleanup")
            await s(2)
            told.append("never")

    sim = play(flow, checked=False)
    sim.kept.park()

    assert told == ["cleanup"]
    assert sim.kept.take() == []


def test_parking_reaches_what_an_async_generator_waits_for(told):
    """Not left to the collector, which would come when no run is there, and call the step's function."""

    @step(name="test_loop.outside")
    def outside():
        told.append("ran in the worker's turn")

    async def waiting():
        try:
            await s(1)
        finally:
            told.append("finally")
            await outside()

    async def numbers():
        yield await waiting()

    async def flow():
        made = numbers()
        cycle = [made]
        cycle.append(cycle)
        async for _ in made:
            pass

    sim = play(flow, checked=False)
    sim.kept.park()
    assert told == ["finally"]
    del sim
    gc.collect()

    assert told == ["finally"]


def test_parking_runs_in_the_tasks_own_context():
    """A ContextVar token can be reset by the finally of the task that set it."""

    async def flow():
        token = AMBIENT.set("here")
        try:
            await s(1)
        finally:
            AMBIENT.reset(token)
            told_ok.append(AMBIENT.get())

    told_ok: list[str] = []
    play(flow, checked=False).kept.park()

    assert told_ok == ["nothing"]


def test_what_is_cancelled_while_parking_is_not_withdrawn():
    """timeout, TaskGroup and race cancel things in their __aexit__; the author did not ask for it."""

    async def flow():
        async with asyncio.timeout(60):
            call = s(1)
            try:
                await asyncio.sleep(10)
            finally:
                call.cancel()

    sim = play(flow, checked=False)
    sim.kept.park()

    assert sim.kept.take() == []


def test_parking_twice_is_no_error():
    """A caller need not remember: the body is closed once."""
    closed = []

    async def flow():
        try:
            await s(1)
        finally:
            closed.append("closed")

    sim = play(flow, checked=False)
    sim.kept.park()
    sim.kept.park()

    assert closed == ["closed"]


@pytest.mark.slow
@pytest.mark.parametrize("which", stubborn.WAITS)
def test_a_workflow_that_swallows_everything_does_not_hang_the_worker(which):
    """`except BaseException: pass` in a loop: closing gives up, says where, and keeps the coroutine."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", stubborn.__file__, which],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"task r at {stubborn.__file__}:")


def test_parking_leaks_nothing():
    """After many parks nothing is left: no loop, no task, no coroutine."""

    async def child():
        await asyncio.sleep(5)

    async def flow():
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.gather(s(1), asyncio.wait_for(asyncio.Event().wait(), 60))

    made = Workflow(flow, name="test_loop.leaky")
    loops = weakref.WeakSet()
    for n in range(300):
        sim = Simulator(made, run_id=f"run-{n}", checked=False).turn()
        loops.add(sim.kept._loop)
        sim.kept.park()
    del sim
    gc.collect()

    assert len(loops) == 0


def test_a_loop_without_a_workflow_is_not_needed_to_make_a_replay():
    """Making one starts nothing: the body runs with run_started."""
    ran = []

    async def flow():
        ran.append(1)

    made = Workflow(flow, name="test_loop.idle")
    Replay(made, RunInfo(run_id="x", name="y", started_at=0), "{}")

    assert ran == []
    assert "test_loop.idle" not in registry.workflows
