"""The loop in which the coroutines of steps run: outcomes, cancelling, and interrupts of the thread that waits."""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from celery import Celery, current_task
from forking import in_child
from no_threads import refuse_thread

from durable.attempts import event_loop

who: ContextVar[str] = ContextVar("who")


def test_a_result_and_an_exception_come_back():
    """As they are, from a loop in another thread."""

    async def tells() -> tuple[str, int]:
        return who.get(), threading.get_ident()

    async def raises() -> None:
        raise ValueError("here")

    who.set("the caller")
    said, thread = event_loop.RunningCoroutine(tells()).result()
    assert (said, thread == threading.get_ident()) == ("the caller", False)
    with pytest.raises(ValueError, match="here"):
        event_loop.RunningCoroutine(raises()).result()


def test_an_exit_ends_the_coroutine_and_not_the_loop():
    """`sys.exit()` raises `SystemExit` in the thread that waits, and the next coroutine runs as usual."""

    async def leaves() -> None:
        raise SystemExit(3)

    async def one() -> int:
        return 1

    with pytest.raises(SystemExit) as left:
        event_loop.RunningCoroutine(leaves()).result()
    assert left.value.code == 3
    assert event_loop.RunningCoroutine(one()).result() == 1


def test_what_is_cancelled_may_clean_up_first():
    """`result()` raises `CancelledError` after the cleanup has ended."""
    told: list[str] = []

    async def tidies(begun: threading.Event) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            told.append("tidied up")

    begun = threading.Event()
    running = event_loop.RunningCoroutine(tidies(begun))
    assert begun.wait(10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        running.result()

    assert told == ["tidied up"]


def test_what_is_cancelled_at_once_never_begins():
    """The body runs no line, and the end is a CancelledError all the same."""
    told: list[str] = []
    has_begun, occupied = threading.Event(), threading.Event()

    async def occupies() -> None:
        has_begun.set()
        occupied.wait(10)

    async def begins() -> None:
        told.append("begun")

    first = event_loop.RunningCoroutine(occupies())
    assert has_begun.wait(10)
    running = event_loop.RunningCoroutine(begins())
    running.cancel()
    occupied.set()
    with pytest.raises(asyncio.CancelledError):
        running.result()
    first.result()

    assert told == []


def test_cancelling_what_has_ended_changes_nothing():
    """Its result stays."""

    async def one() -> int:
        return 1

    running = event_loop.RunningCoroutine(one())
    assert running.result() == 1
    running.cancel()
    assert running.result() == 1


def test_what_interrupts_the_wait_ends_the_coroutine():
    """A soft time limit is raised in the waiting thread: the coroutine does not go on beside the next attempt."""
    ended = threading.Event()

    class SoftLimit(Exception):
        pass

    async def goes_on() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def limit(*_: Any) -> None:
        raise SoftLimit

    before = signal.signal(signal.SIGALRM, limit)
    try:
        with pytest.raises(SoftLimit):
            event_loop.RunningCoroutine(goes_on()).result()
    finally:
        signal.signal(signal.SIGALRM, before)

    assert ended.wait(10)


@pytest.mark.parametrize("exit_type", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_task_reaches_the_coroutine_that_awaits_it_and_ends_no_loop(exit_type):
    """asyncio raises it out of the loop too; the step and the other coroutines go on."""

    async def leaves() -> None:
        raise exit_type

    async def awaits_it() -> None:
        await asyncio.create_task(leaves())

    async def bare() -> str:
        asyncio.get_running_loop().call_soon(lambda: (_ for _ in ()).throw(exit_type()))
        await asyncio.sleep(0.01)
        return "went on"

    with pytest.raises(exit_type):
        event_loop.RunningCoroutine(awaits_it()).result()
    assert event_loop.RunningCoroutine(bare()).result() == "went on"


def test_each_coroutine_has_the_celery_task_of_its_caller():
    """Two at once, in their tasks too, across what they await; nothing of it is left in the loop's thread."""
    app = Celery("current", broker="memory://", set_as_current=False)
    both_run = threading.Barrier(2, timeout=10)
    left: list[asyncio.Task[Any]] = []

    def seen() -> tuple[str, str]:
        return current_task.name, current_task.request.id

    async def looks_late(gate: asyncio.Event) -> Any:
        await gate.wait()
        return current_task._get_current_object()

    async def looks() -> list[tuple[str, str]]:
        gate = asyncio.Event()
        left.append(asyncio.create_task(looks_late(gate)))
        found = [seen()]
        await asyncio.get_running_loop().run_in_executor(None, both_run.wait)

        async def child() -> tuple[str, str]:
            await asyncio.sleep(0)
            return seen()

        found += [await asyncio.create_task(child()), other.apply(task_id="within").get(), seen()]
        gate.set()
        return found

    @app.task(name="other")
    def other() -> tuple[str, str]:
        return seen()

    @app.task(name="carrier")
    def carrier() -> list[tuple[str, str]]:
        return event_loop.RunningCoroutine(looks()).result()

    # Celery makes a task at its first use, and two threads that use it first at the same time are in each other's way.
    app.finalize()
    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda name: carrier.apply(task_id=name).get(), ["one", "two"]))

    for name, found in zip(["one", "two"], results, strict=True):
        assert [tuple(each) for each in found] == [
            ("carrier", name),
            ("carrier", name),
            ("other", "within"),
            ("carrier", name),
        ]

    async def afterwards() -> list[Any]:
        return [current_task._get_current_object(), *await asyncio.gather(*left)]

    assert event_loop.RunningCoroutine(afterwards()).result() == [None, None, None]


def test_a_forked_child_has_a_loop_of_its_own():
    """The parent's loop goes on after a child has run a coroutine, and collected what it has inherited."""

    async def which() -> int:
        return id(asyncio.get_running_loop())

    async def waits(released: asyncio.Event) -> str:
        await released.wait()
        return "released"

    def in_its_own() -> bool:
        child_runs_in = event_loop.RunningCoroutine(which()).result()
        gc.collect()
        return child_runs_in != parent_runs_in

    released = asyncio.Event()
    parent_runs_in = event_loop.RunningCoroutine(which()).result()
    waiting = event_loop.RunningCoroutine(waits(released))

    assert in_child(in_its_own)

    async def release() -> None:
        released.set()

    event_loop.RunningCoroutine(release()).result()
    assert waiting.result() == "released"
    assert event_loop.RunningCoroutine(which()).result() == parent_runs_in


def test_a_fork_while_the_loop_is_being_started_locks_nothing_in_the_child():
    """The lock that another thread held at the fork is a new one in the child."""

    async def one() -> int:
        return 1

    with event_loop._lock:
        assert in_child(lambda: event_loop.RunningCoroutine(one()).result() == 1)


def test_a_loop_that_got_no_thread_is_started_for_the_next_step(monkeypatch):
    """Out of threads, one step fails, and those after it have a loop."""

    async def one() -> int:
        return 1

    def check() -> bool:
        refuse_thread(monkeypatch, "durable-async-steps")
        failing = one()
        with pytest.raises(RuntimeError, match="can't start new thread"):
            event_loop.RunningCoroutine(failing)
        assert inspect.getcoroutinestate(failing) == inspect.CORO_CLOSED
        return event_loop.RunningCoroutine(one()).result() == 1

    # A child has no loop yet.
    assert in_child(check)
