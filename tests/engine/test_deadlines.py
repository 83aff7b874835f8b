"""Deadlines hit the body and nothing else, in the main thread and in others."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from durable.engine.deadlines import Deadlines, Limit, grace
from durable.engine.timer import TimerThread

pytestmark = pytest.mark.usefixtures("unmeasured")

SECOND = 1_000_000


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    timer = TimerThread()
    yield Deadlines(timer)
    timer.close()


@pytest.fixture(params=["main thread", "another thread"])
def somewhere(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Runs a function in the main thread, or in another one."""
    with ThreadPoolExecutor(1) as threads:
        yield (lambda f: f()) if request.param == "main thread" else lambda f: threads.submit(f).result(60)


def limited(deadlines: Deadlines, left: int, expire: Callable[[], object] = lambda: None) -> Limit:
    return Limit(deadlines, left, left, is_async=False, expire=expire)


def spin(seconds: float) -> None:
    """Run Python code for a while."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_the_grace_is_as_long_as_the_timeout_within_bounds():
    """At least a second, at most ten."""
    assert [grace(timeout) for timeout in (1, 3 * SECOND, 3600 * SECOND)] == [SECOND, 3 * SECOND, 10 * SECOND]


def test_what_comes_after_the_body_is_never_hit(deadlines, somewhere):
    """Bodies that end about when their time is up: each ends by its end or by the exception, and that is all."""

    def one(number: int) -> bool:
        limit = limited(deadlines, 2_000)
        try:
            limit.run(spin, 0.002 + (number % 40) * 0.0003)
            hit = False
        except SoftTimeLimitExceeded:
            hit = True
        spin(0.002)  # what records the outcome
        return hit

    hits = somewhere(lambda: [one(number) for number in range(300)])

    assert 0 < sum(hits) < 300


def test_shielded_code_is_not_hit_and_what_follows_is(deadlines, somewhere):
    """The deadline passes while a call of durable's own is under way: that comes to its end."""
    done = []

    def body(limit: Limit) -> None:
        with limit.shielded():
            spin(0.1)
            done.append("the call")
        spin(5)
        done.append("the body")

    limit = limited(deadlines, 20_000)
    with pytest.raises(SoftTimeLimitExceeded):
        somewhere(lambda: limit.run(body, limit))

    assert done == ["the call"]
    assert limit.notified


def test_a_thread_that_leaves_an_expired_body_waits_for_the_expiry_handler(deadlines, somewhere):
    """The handler may be about to kill the process, so the thread must not begin anything new."""
    expired, dealt_with = threading.Event(), threading.Event()

    def expire() -> None:
        expired.set()
        spin(0.1)
        dealt_with.set()

    def body() -> None:
        try:
            spin(10)
        except SoftTimeLimitExceeded:
            assert expired.wait(10)

    somewhere(lambda: limited(deadlines, 10_000, expire).run(body))

    assert dealt_with.is_set()


def test_another_signal_reaches_its_handler_in_a_body_too(deadlines):
    """Celery's soft time limit works in a step that has its own timeout."""
    before = signal.signal(signal.SIGUSR1, _raise)
    try:
        with pytest.raises(ZeroDivisionError):
            limited(deadlines, 60 * SECOND).run(signal.raise_signal, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def _raise(_number: int, _frame: object) -> None:
    raise ZeroDivisionError


def test_a_body_that_ends_while_its_deadline_passes_leaves_the_lock_free(deadlines, monkeypatch):
    """The thread leaves its body after the check that it may be hit: no exception meets it as it takes the lock."""
    leave, outcomes = threading.Event(), []
    limit = limited(deadlines, 1_000)

    def leaves_now(ident: int) -> bool:
        leave.set()
        until = time.monotonic() + 30
        while sys._current_frames()[ident].f_code.co_name != "__enter__":
            assert time.monotonic() < until
        return True

    monkeypatch.setattr("durable.engine.deadlines._may_be_interrupted", leaves_now)
    body = threading.Thread(target=lambda: outcomes.append(limit.run(leave.wait)), daemon=True)
    body.start()
    body.join(30)

    assert outcomes == [True]
    assert not limit.notified
