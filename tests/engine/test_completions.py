"""Waiters learn of a run's end by a hint over a real Redis, and look again by themselves if hints are lost."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from eventually import eventually
from servers import new_broker

from durable.broker import Notifier, PollingNotifier, make_notifier
from durable.engine import completions
from durable.engine.completions import Completions

# A real Redis.
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a hint nobody would look again within the test."""
    monkeypatch.setattr(completions, "SLOW_SECS", 60.0)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """A Redis database that nobody else uses."""
    with new_broker("redis", tmp_path) as url:
        yield url


@pytest.fixture
def process(broker: str) -> Iterator[Callable[[str], Completions]]:
    """Makes what a process has, by its name."""
    made: list[Notifier] = []

    def one(name: str) -> Completions:
        made.append(make_notifier(broker))
        return Completions(made[-1], name)

    yield one
    for notifier in made:
        notifier.close()


def told(end: completions.Completion, within_secs: float = 10.0) -> bool:
    """Whether a hint comes in time."""
    return end.notified.wait(within_secs)


def test_all_who_wait_for_a_run_are_told_of_its_end(process):
    """Each waiting thread of several processes gets one hint; a thread that waits for another run gets none."""
    one, other, worker = process("one"), process("other"), process("worker")
    wanted = [one.expected("a"), one.expected("a"), other.expected("a")]
    with ExitStack() as waiting:
        bystander = waiting.enter_context(other.expected("b"))
        waiters = [waiting.enter_context(each) for each in wanted]
        worker.notifier.notify_subscribers("a")

        assert all(told(end) for end in waiters)
        assert not bystander.notified.is_set()


def test_what_is_sent_to_the_process_itself_needs_no_subscription(process, broker):
    """A reply: who gives it knows who has asked.  Nothing of the question is left in Redis."""
    asking, worker = process("one"), process("worker")
    with asking.expected("q", is_addressed=True) as reply:
        with redis.Redis.from_url(broker) as server:
            assert list(server.scan_iter("durable:expecting:*")) == []
        worker.notifier.notify("one", "q")
        assert told(reply)


def test_an_end_that_comes_before_anybody_listens_is_told(process):
    """What was asked for is in Redis before the look that finds the run going on."""
    waiting, worker = process("one"), process("worker")
    waiting.notifier.subscribe("a", "one")
    worker.notifier.notify_subscribers("a")
    with waiting.expected("a") as end:
        assert told(end)


def test_an_end_that_nobody_waits_for_leaves_nothing_behind(process, broker):
    """A run that ends costs a look, and no key."""
    process("worker").notifier.notify_subscribers("a")
    with redis.Redis.from_url(broker) as server:
        assert list(server.scan_iter("durable:expecting:*")) == []
        assert list(server.scan_iter("durable:inbox:*")) == []


def test_who_waits_no_longer_is_not_kept(process):
    """Memory does not grow with the runs that were waited for."""
    waiting = process("one")
    for number in range(100):
        with waiting.expected(f"run {number}"):
            pass

    assert not waiting._waiters


def test_a_wait_returns_at_once_when_told(process):
    """The hint wakes the waiting thread long before its timeout of 60 s."""
    waiting, worker = process("one"), process("worker")
    with waiting.expected("a") as end, ThreadPoolExecutor() as threads:
        eventually(lambda: waiting.notifier.healthy)
        done = threads.submit(end.wait, 60.0)
        worker.notifier.notify_subscribers("a")
        concurrent.futures.wait([done], timeout=10)

        assert done.done()


def test_without_hints_it_looks_often_at_first():
    """A broker that has no lists: the pauses grow from 5 ms to 0.2 s."""
    waiting = Completions(PollingNotifier(), "one")
    with waiting.expected("a") as end:
        began = time.monotonic()
        for _ in range(4):
            end.wait(60.0)

    assert sum(completions.PAUSES_SECS[:4]) <= time.monotonic() - began < 5
