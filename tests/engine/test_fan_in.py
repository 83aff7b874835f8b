"""Outcomes of many steps at once wait for each other, and none is left waiting."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator

import pytest

from durable.engine.fan_in import BATCH_DELAY_SECS, MANY, FanIn


class Clock:
    """Says the time that it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sent() -> queue.Queue[str]:
    return queue.Queue()


@pytest.fixture
def fan_in(sent: queue.Queue[str]) -> Iterator[FanIn]:
    made = FanIn(sent.put)
    yield made
    made.close()


def test_an_outcome_waits_only_while_many_others_are_out():
    """The first is taken in at once; those right after it wait, unless few are out."""
    fan_in = FanIn(lambda run_id: None, Clock())

    assert not fan_in.defer("run", MANY)
    assert fan_in.defer("run", MANY)
    assert not fan_in.defer("run", MANY - 1)
    assert not fan_in.defer("other", MANY)
    fan_in.close()


def test_after_a_moment_the_next_outcome_takes_the_others_along():
    """A turn is taken once per moment, however many outcomes there are."""
    clock = Clock()
    fan_in = FanIn(lambda run_id: None, clock)
    taken_in = 0
    for _ in range(100):
        taken_in += not fan_in.defer("run", 1000)
        clock.now += BATCH_DELAY_SECS / 10

    assert taken_in == 10
    fan_in.close()


def test_a_moment_begins_when_the_turn_is_over():
    """A turn that takes longer than outcomes wait is not followed by another at once."""
    clock = Clock()
    fan_in = FanIn(lambda run_id: None, clock)
    assert not fan_in.defer("run", MANY)
    clock.now += 10 * BATCH_DELAY_SECS
    fan_in.turn_ended("run")

    assert fan_in.defer("run", MANY)
    fan_in.close()


def test_what_waits_is_sent_when_no_other_outcome_follows(fan_in, sent):
    """The timer sends one turn for all that wait, not before their time."""
    began = time.monotonic()
    assert not fan_in.defer("run", MANY)
    assert all(fan_in.defer("run", MANY) for _ in range(3))

    assert sent.get(timeout=10) == "run"
    assert time.monotonic() - began >= BATCH_DELAY_SECS
    assert sent.empty()


def test_what_another_process_takes_in_is_looked_at_again(fan_in, sent):
    """It may die before it does."""
    assert not fan_in.defer("run", MANY)
    fan_in.postpone("run")

    assert sent.get(timeout=10) == "run"


def test_a_turn_that_cannot_be_sent_keeps_no_other_waiting(sent, caplog):
    """It is logged, and left to the sweep."""

    def send(run_id: str) -> None:
        if run_id == "bad":
            raise KeyError(run_id)
        sent.put(run_id)

    fan_in = FanIn(send)
    for run_id in ("bad", "good"):
        assert not fan_in.defer(run_id, MANY)
        assert fan_in.defer(run_id, MANY)

    assert sent.get(timeout=10) == "good"
    assert "No turn could be sent for run bad" in caplog.text
    fan_in.close()


def test_a_process_that_ends_leaves_nothing_waiting(sent):
    """What waits is sent before, once."""
    fan_in = FanIn(sent.put, Clock())
    assert not fan_in.defer("run", MANY)
    assert fan_in.defer("run", MANY)
    fan_in.close()
    fan_in.close()

    assert sent.get_nowait() == "run"
    assert sent.empty()


def test_it_knows_a_bounded_number_of_runs():
    """A process that drives runs for months keeps no note of each."""
    fan_in = FanIn(lambda run_id: None, Clock())
    for number in range(5000):
        fan_in.defer(f"run {number}", MANY)

    assert len(fan_in._taken_at) == 1000
    fan_in.close()
