"""A body that burns CPU is stopped where it runs, and nothing else ever is."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from no_threads import refuse_thread

from durable import TurnTooLong, sleep
from durable.engine.interrupts import Stopped
from durable.engine.timer import TimerThread
from durable.engine.watchdog import Watchdog
from durable.events import RunStarted
from durable.registry.definitions import Workflow
from durable.replay import Replay, RunInfo

pytestmark = pytest.mark.usefixtures("unmeasured")

LIMIT = 0.05


@pytest.fixture
def timer() -> Iterator[TimerThread]:
    made = TimerThread()
    yield made
    made.close()


@pytest.fixture
def watchdog(timer) -> Watchdog:
    return Watchdog(timer, LIMIT)


def spin(secs: float = 60) -> int:
    """Burn CPU time, in this thread's own count."""
    count, until = 0, time.thread_time() + secs
    while time.thread_time() < until:
        count += 1
    return count


def feed(watchdog: Watchdog, body: Callable[..., Any]) -> Replay:
    """The first turn of *body*, watched, and parked."""
    replay = Replay(Workflow(body, name="test_watchdog.flow"), RunInfo(run_id="run-1", name="x", started_at=0), "{}")
    watch = watchdog.watch("run-1")
    try:
        watch.run(replay.feed, [RunStarted(at=1, seq=1)])
    finally:
        watchdog.watch("run-1").run(replay.park)
    return replay


def line(function: Callable[..., Any], offset: int) -> str:
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


def test_a_spinning_body_is_stopped_and_the_line_is_told(watchdog):
    """The error says the run, the limit, the author's line, and what to do."""

    async def flow():
        while True:
            pass

    with pytest.raises(TurnTooLong) as stopped:
        feed(watchdog, flow)

    assert stopped.value.where in (line(flow, 1), line(flow, 2))
    assert re.search(r"Run 'run-1'.* 0\.05 s of CPU time, at .*test_watchdog\.py:\d+.* step", str(stopped.value))


def test_a_body_that_swallows_everything_is_stopped(watchdog):
    """Also one that catches BaseException around each round, within another that does so."""
    caught = []

    def poll():
        while True:
            try:
                for number in range(10_000):
                    divmod(number, 7)
            except BaseException as error:
                caught.append(error)

    async def flow():
        while True:
            try:
                poll()
            except BaseException as error:
                caught.append(error)

    with pytest.raises(TurnTooLong):
        feed(watchdog, flow)
    assert caught
    assert all(isinstance(error, Stopped) for error in caught)


def test_a_loop_that_only_yields_is_stopped(watchdog):
    """``while True: await asyncio.sleep(0)`` never waits for anything, and no line of its own is to blame."""

    async def flow():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(TurnTooLong):
        feed(watchdog, flow)


def test_a_task_beside_the_main_one_is_stopped(watchdog):
    """And the main one does not go on instead."""

    async def child():
        while True:
            pass

    async def flow():
        await asyncio.gather(child(), sleep(5), return_exceptions=True)
        await child()

    with pytest.raises(TurnTooLong):
        feed(watchdog, flow)


def test_cleanup_that_spins_while_the_run_is_parked_is_stopped(watchdog):
    """A ``finally`` runs each time the workflow is put away."""

    async def flow():
        try:
            await sleep(5)
        finally:
            while True:
                pass

    with pytest.raises(TurnTooLong):
        feed(watchdog, flow)


def test_a_body_that_logs_without_end_is_stopped_and_logging_still_works(watchdog, caplog):
    """It is never stopped while a handler's lock is held: the next line would wait for ever."""
    logger = logging.getLogger("test_watchdog.chatty")
    caplog.set_level(logging.CRITICAL, "test_watchdog.chatty")
    handler = logging.StreamHandler(open("/dev/null", "w"))  # noqa: SIM115
    logger.addHandler(handler)

    async def flow():
        while True:
            logger.critical("again")

    for _ in range(5):
        with pytest.raises(TurnTooLong):
            feed(watchdog, flow)

    said = threading.Thread(target=logger.critical, args=("still there",))
    said.start()
    said.join(20)
    logger.removeHandler(handler)
    handler.stream.close()
    assert not said.is_alive()


def test_the_thread_is_left_as_it_was(watchdog):
    """No loop runs in it, the collector is on, and asynchronous generators are nobody's business."""

    async def flow():
        while True:
            await asyncio.sleep(0)

    for _ in range(5):
        with pytest.raises(TurnTooLong):
            feed(watchdog, flow)

        assert asyncio._get_running_loop() is None
        assert gc.isenabled()
        assert sys.get_asyncgen_hooks() == (None, None)


def test_waiting_is_no_cpu_time(watchdog):
    """A body that is blocked for longer than the limit is not stopped."""

    async def flow():
        threading.Event().wait(4 * LIMIT)
        return "done"

    assert feed(watchdog, flow).outcome is not None


def test_the_calls_of_one_turn_count_together(watchdog):
    """Each below the limit, together above it: the turn is what is limited."""
    watch = watchdog.watch("run-1")

    def turn():
        for _ in range(10):
            watch.run(spin, LIMIT / 2)

    with pytest.raises(TurnTooLong):
        turn()


def test_a_new_turn_starts_from_nothing(watchdog):
    """What earlier turns of the same thread burned is no matter."""
    counts = []
    for _ in range(5):
        watchdog.watch("run-1").run(lambda: counts.append(spin(LIMIT / 2)))

    assert len(counts) == 5
    assert all(counts)


def test_the_authors_own_errors_pass(watchdog):
    """What the watched code raises arrives as it is."""

    def fails():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        watchdog.watch("run-1").run(fails)


def test_nothing_arrives_after_the_body_was_left(watchdog):
    """Bodies that end at the very moment at which they are stopped: what follows them is never hit."""
    for n in range(60):
        with suppress(TurnTooLong):
            watchdog.watch("run-1").run(spin, LIMIT + (n - 30) * 0.0001)
        spin(0.002)

    with pytest.raises(TurnTooLong):
        watchdog.watch("run-1").run(spin)


def test_only_the_thread_that_spins_is_stopped(watchdog):
    """In a pool of threads the others burn what they like, watched or not, as long as each is within its limit."""
    begun, go_on, outcomes = threading.Barrier(3), threading.Event(), {}

    def run(name: str, work: Callable[[], object]) -> None:
        begun.wait()
        try:
            watchdog.watch(name).run(work)
            outcomes[name] = "done"
        except TurnTooLong:
            outcomes[name] = "stopped"
            go_on.set()

    works: dict[str, Callable[[], object]] = {"spins": spin, "waits": lambda: go_on.wait(20)}
    threads = [threading.Thread(target=run, args=item) for item in works.items()]
    for thread in threads:
        thread.start()
    begun.wait()
    spin(3 * LIMIT)  # not watched
    for thread in threads:
        thread.join()

    assert outcomes == {"spins": "stopped", "waits": "done"}


def test_no_limit_watches_nothing(timer):
    """0 turns it off, and no thread is started."""
    before = threading.active_count()
    off = Watchdog(timer, 0)

    off.watch("run-1").run(spin, 0.01)

    assert threading.active_count() == before


def test_one_thread_watches_and_goes_away_when_it_is_closed(timer, watchdog):
    """It starts with the first turn, is there once, and ends with the engine."""

    def watching() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "durable-timer"]

    before = watching()
    for _ in range(3):
        watchdog.watch("run-1").run(int)
    (thread,) = set(watching()) - set(before)

    timer.close()
    thread.join(20)

    assert not thread.is_alive()


def run_python(source: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_forked_child_has_a_watchdog_of_its_own():
    """A thread does not cross a fork; the child's first turn starts another."""
    said = run_python(
        """
        import os, time
        from durable.errors import TurnTooLong
        from durable.engine.timer import TimerThread
        from durable.engine.watchdog import Watchdog

        def spin():
            while True: pass

        def stopped():
            try: watchdog.watch("run-1").run(spin)
            except TurnTooLong: return True

        watchdog = Watchdog(TimerThread(), 0.05)
        assert stopped()
        child = os.fork()
        if not child:
            os._exit(7 if stopped() else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )

    assert said == "7"


def test_under_gevent_it_is_off():
    """There all threads are one: a body that spins would stop the watchdog as well."""
    said = run_python(
        """
        from gevent import monkey
        monkey.patch_all()
        import threading
        from durable.engine.timer import TimerThread
        from durable.engine.watchdog import Watchdog

        Watchdog(TimerThread(), 0.05).watch("run-1").run(lambda: sum(range(5_000_000)))
        print([t.name for t in threading.enumerate() if t.name == "durable-timer"])
        """
    )

    assert said == "[]"


# Time, where no CPU time is burned.


@pytest.fixture
def patient(timer) -> tuple[Watchdog, list[TurnTooLong]]:
    """A watchdog that limits time, and the turns that it gave up."""
    given_up: list[TurnTooLong] = []
    return Watchdog(timer, 10, LIMIT, given_up.append), given_up


def waits_for_ever() -> None:
    threading.Event().wait()


def takes_what_is_taken() -> None:
    lock = threading.Lock()
    lock.acquire()
    with lock:
        pass


def waits_again_and_again() -> None:
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            continue


@pytest.mark.parametrize("hang", [waits_for_ever, takes_what_is_taken, waits_again_and_again])
def test_a_body_that_hangs_in_the_main_thread_is_interrupted(patient, hang):
    """Without any CPU time, at a lock that nobody gives back; the error says that it waited, and where."""
    watchdog, given_up = patient

    async def flow():
        hang()

    with pytest.raises(TurnTooLong) as stopped:
        feed(watchdog, flow)

    assert stopped.value.hung
    assert re.search(r"after 0\.05 s of waiting, at .*test_watchdog\.py:\d+.* turn_timeout", str(stopped.value))
    assert not given_up


def test_a_body_that_polls_in_another_thread_is_stopped(patient):
    """Where signals do not interrupt it is stopped when it wakes up by itself."""
    watchdog, _ = patient
    outcome: list[BaseException] = []

    async def flow():
        while True:
            threading.Event().wait(0.03)

    def run() -> None:
        try:
            feed(watchdog, flow)
        except TurnTooLong as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)

    assert not thread.is_alive()
    assert [error.hung for error in outcome] == [True]


def test_what_cannot_be_interrupted_is_given_up_once(patient, monkeypatch):
    """A turn waits for a lock: the watchdog calls `give_up` once, which may end the process."""
    watchdog, given_up = patient
    monkeypatch.setattr("durable.engine.watchdog.HOPELESS_SECS", 0.1)
    gate, told = threading.Event(), threading.Event()
    watchdog._give_up = lambda reason: (given_up.append(reason), told.set())
    thread = threading.Thread(target=_quietly, args=(lambda: watchdog.watch("run-1").run(gate.wait),))
    thread.start()

    assert told.wait(10)
    gate.set()
    thread.join(10)

    assert [(reason.run_id, reason.hung) for reason in given_up] == [("run-1", True)]


def test_what_is_given_up_without_a_thread_is_given_up_at_a_later_check(patient, monkeypatch):
    """Out of threads, the timer thread lives on, and tries again to start the one that calls `give_up`."""
    watchdog, _ = patient
    monkeypatch.setattr("durable.engine.watchdog.HOPELESS_SECS", 0.1)
    gate, told = threading.Event(), threading.Event()
    watchdog._give_up = lambda reason: told.set()
    refused = refuse_thread(monkeypatch, "durable-give-up")
    thread = threading.Thread(target=_quietly, args=(lambda: watchdog.watch("run-1").run(gate.wait),))
    thread.start()

    assert told.wait(10)
    gate.set()
    thread.join(10)

    assert refused


def _quietly(act: Callable[[], object]) -> None:
    with suppress(TurnTooLong):
        act()


def test_time_in_which_the_process_was_paused_does_not_count():
    """After SIGSTOP and SIGCONT the turn has the time that it had before."""
    said = run_python(
        """
        import os, signal, subprocess, sys, threading, time
        from durable.engine.timer import TimerThread
        from durable.engine.watchdog import Watchdog

        watchdog = Watchdog(TimerThread(), 10, 1.0)
        def turn():
            # Another process continues this one, long after the limit.
            subprocess.Popen(["sh", "-c", f"sleep 2; kill -CONT {os.getpid()}"])
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.1)
            print("went on")

        watchdog.watch("run-1").run(turn)
        """
    )

    assert said == "went on"


def test_a_handler_of_the_signal_that_was_there_before_is_called(patient):
    """Another handler of SIGURG is still called; a signal that arrives outside a turn stops nothing."""
    said = run_python(
        """
        import os, signal
        from durable.engine.timer import TimerThread
        from durable.engine.watchdog import SIGNAL, Watchdog

        signal.signal(SIGNAL, lambda *_: print("heard"))
        watchdog = Watchdog(TimerThread(), 10, 0.5)
        watchdog.watch("run-1").run(int)
        os.kill(os.getpid(), SIGNAL)
        """
    )

    assert said == "heard"


def test_the_garbage_collector_does_not_run_during_a_turn(watchdog):
    """The watchdog's exception could be raised in a collector's callback, and be lost there."""
    collected: list[str] = []

    def note(phase: str, _info: object) -> None:
        collected.append(phase)

    async def flow():
        while True:
            [[] for _ in range(10_000)]

    gc.callbacks.append(note)
    try:
        with suppress(TurnTooLong):
            watchdog.watch("run-1").run(feed_unwatched, flow, collected)
    finally:
        gc.callbacks.remove(note)
    assert gc.isenabled()


def feed_unwatched(body: Callable[..., Any], collected: list[str]) -> None:
    """Take a turn within a watch, and check that the collector has not run before its end."""
    replay = Replay(Workflow(body, name="test_watchdog.flow"), RunInfo(run_id="run-1", name="x", started_at=0), "{}")
    try:
        replay.feed([RunStarted(at=1, seq=1)])
    finally:
        assert collected == []
