"""One thread checks turns and attempts, each by its own rules."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from forking import in_child
from no_threads import refuse_thread

from durable.engine.deadlines import Deadlines, Limit
from durable.engine.timer import TimerThread
from durable.engine.watchdog import Watchdog
from durable.errors import TurnTooLong

pytestmark = pytest.mark.usefixtures("unmeasured")


@pytest.fixture
def timer() -> Iterator[TimerThread]:
    made = TimerThread()
    yield made
    made.close()


def spin(seconds: float = 60) -> None:
    """Run Python code for a while."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def timer_threads() -> int:
    return sum(thread.name == "durable-timer" for thread in threading.enumerate())


def limited(deadlines: Deadlines, left: int) -> Limit:
    return Limit(deadlines, left, left, is_async=False, expire=lambda: None)


def stops_a_turn(watchdog: Watchdog) -> bool:
    with pytest.raises(TurnTooLong):
        watchdog.watch("run-1").run(spin)
    return True


def stops_an_attempt(deadlines: Deadlines) -> bool:
    with pytest.raises(SoftTimeLimitExceeded):
        limited(deadlines, 50_000).run(spin)
    return True


def test_a_turn_and_an_attempt_share_one_thread(timer):
    """Both are stopped, at the same time, and one thread was started for them."""
    before = timer_threads()
    watchdog, deadlines = Watchdog(timer, 0.05), Deadlines(timer)

    with ThreadPoolExecutor(2) as threads:
        both = threads.submit(stops_a_turn, watchdog), threads.submit(stops_an_attempt, deadlines)
        assert [each.result(60) for each in both] == [True, True]

    assert timer_threads() == before + 1


def test_a_near_deadline_wakes_the_thread_that_waits_for_a_far_one(timer):
    """A step with an hour left does not delay the check of a step, or of a turn, with less."""
    watchdog, deadlines = Watchdog(timer, 0.05), Deadlines(timer)

    def in_an_hour() -> bool:
        return stops_an_attempt(deadlines) and stops_a_turn(watchdog)

    assert limited(deadlines, 3_600_000_000).run(in_an_hour)


def test_a_forked_child_has_a_thread_of_its_own_for_both(timer):
    """Whatever the parent watched at the fork, even with the lock held, the child watches only its own."""
    watchdog, deadlines = Watchdog(timer, 0.05), Deadlines(timer)
    assert stops_a_turn(watchdog)

    with timer.changed:
        assert in_child(lambda: stops_a_turn(watchdog) and stops_an_attempt(deadlines) and timer_threads() == 1)

    assert stops_an_attempt(deadlines)


def test_turns_in_a_row_do_not_wake_the_thread(timer):
    """It was woken once at most: it checks at its own pace, and many short turns pass between two checks."""
    watchdog, checks = Watchdog(timer, 10), []

    class Counting:
        def begin(self) -> None:
            checks.clear()

        def check(self) -> None:
            checks.append(time.monotonic())

    timer.add(Counting())
    for _ in range(1000):
        watchdog.watch("run-1").run(int)

    assert len(checks) <= 3


def test_a_thread_that_could_not_be_started_is_started_by_the_next(timer, monkeypatch, caplog):
    """Out of threads, an attempt begins all the same; the turn after it starts the thread, which checks both."""
    watchdog, deadlines = Watchdog(timer, 0.05), Deadlines(timer)
    refused = refuse_thread(monkeypatch, "durable-timer")
    limit = limited(deadlines, 3_600_000_000)

    def body() -> None:
        assert refused
        assert stops_a_turn(watchdog)
        deadlines.move(limit, time.monotonic())
        spin()

    with pytest.raises(SoftTimeLimitExceeded):
        limit.run(body)

    assert caplog.text.count("can't start new thread") == 1


def test_while_no_thread_can_be_started_work_goes_on(timer, monkeypatch, caplog):
    """Turns and attempts run unchecked, which is logged once; they are checked when there are threads again."""
    watchdog, deadlines = Watchdog(timer, 0.05), Deadlines(timer)
    refuse_thread(monkeypatch, "durable-timer", times=4)
    for _ in range(2):
        watchdog.watch("run-1").run(int)
        assert limited(deadlines, 50_000).run(lambda: 5) == 5
    assert caplog.text.count("can't start new thread") == 1

    assert stops_a_turn(watchdog)
    assert stops_an_attempt(deadlines)


def test_an_expiry_that_gets_no_thread_gets_one_later(timer, monkeypatch):
    """The timer thread lives on, and ``expire`` is called at a later check."""
    refused, expired = refuse_thread(monkeypatch, "durable-expiry"), threading.Event()
    deadlines = Deadlines(timer)

    def body() -> bool:
        try:
            spin()
        except SoftTimeLimitExceeded:
            return expired.wait(20)
        return False

    assert Limit(deadlines, 10_000, 10_000, is_async=False, expire=expired.set).run(body)
    assert refused
    assert stops_an_attempt(deadlines)
