"""The first turns of runs that are started one after the other come together, and none waits for long."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest
from forking import in_child

from durable.engine.first_turns import HOLD_SECS, MANY, MOST_TOGETHER, WINDOW_SECS, FirstTurns
from durable.engine.later import Later
from durable.store import DriveRow

#: What was sent: the runs, and how many of them one message may carry.
Sent = list[tuple[list[str], int]]


def row(number: int, priority: int | None = None, trace_context: str | None = None) -> DriveRow:
    return DriveRow(f"run-{number}", None, priority, trace_context=trace_context)


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.secs = 100.0

    def __call__(self) -> float:
        return self.secs


@pytest.fixture
def sent() -> Sent:
    return []


@pytest.fixture
def send(sent) -> Callable[[Sequence[DriveRow], int], None]:
    return lambda rows, together: sent.append(([each.run_id for each in rows], together))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def later() -> Iterator[Later]:
    """It makes no call before it is closed: its clock stands still."""
    made = Later(lambda: 0.0)
    yield made
    made.close()


@pytest.fixture
def first_turns(send, later, clock) -> Iterator[FirstTurns]:
    made = FirstTurns(send, lambda: later, clock=clock)
    yield made
    made.close()


def test_runs_that_are_started_now_and_then_have_their_messages_at_once(first_turns, sent, clock):
    """However many there are."""
    for number in range(3 * MANY):
        clock.secs += 1.01 * WINDOW_SECS / MANY
        first_turns.add(row(number))

    assert sent == [([f"run-{number}"], 1) for number in range(3 * MANY)]


def test_of_many_runs_at_once_the_later_ones_share_messages(first_turns, sent):
    """The first ones reach as many processes, each by a message of its own."""
    for number in range(MANY + 2 * MOST_TOGETHER):
        first_turns.add(row(number))

    assert sent[:MANY] == [([f"run-{number}"], 1) for number in range(MANY)]
    shared = [f"run-{number}" for number in range(MANY, MANY + 2 * MOST_TOGETHER)]
    assert sent[MANY:] == [(shared[:MOST_TOGETHER], MOST_TOGETHER), (shared[MOST_TOGETHER:], MOST_TOGETHER)]


def test_a_message_waits_a_moment_for_those_of_other_runs(send, sent):
    """Then it is sent, with those that have come."""
    done: queue.Queue[list[str]] = queue.Queue()
    later = Later()
    first_turns = FirstTurns(lambda rows, _: done.put([each.run_id for each in rows]), lambda: later, clock=Clock())
    for number in range(MANY + 3):
        first_turns.add(row(number))

    assert [done.get(timeout=10) for _ in range(MANY)] == [[f"run-{number}"] for number in range(MANY)]
    assert done.get(timeout=10) == [f"run-{number}" for number in range(MANY, MANY + 3)]
    first_turns.close()
    later.close()
    assert HOLD_SECS < WINDOW_SECS


@pytest.mark.parametrize("other", [row(99, priority=3), row(99, trace_context="00-1-1-01")], ids=["priority", "trace"])
def test_a_priority_or_a_trace_needs_a_message_of_its_own(first_turns, sent, other):
    """Celery applies both to messages."""
    for number in range(MANY + 1):
        first_turns.add(row(number))
    first_turns.add(other)

    assert sent[-1] == (["run-99"], 1)
    first_turns.add_all([row(number) for number in range(2 * MANY)] + [other])
    assert sent[-2:] == [([f"run-{number}" for number in range(2 * MANY)], 2), (["run-99"], 1)]


@pytest.mark.parametrize(("count", "together"), [(1, 1), (2 * MANY - 1, 1), (2 * MANY, 2), (1000, MOST_TOGETHER)])
def test_runs_that_are_started_by_one_call_have_sixteen_messages_or_more(first_turns, sent, count, together):
    """If there are as many: each message makes one process work."""
    first_turns.add_all([row(number) for number in range(count)])

    assert (len(sent[0][0]), sent[0][1]) == (count, together)


def test_nothing_waits_where_continuation_is_off(send, sent, later, clock):
    """Then each run has a message of its own, as each step has."""
    first_turns = FirstTurns(send, lambda: later, holds=lambda: False, clock=clock)
    for number in range(2 * MANY):
        first_turns.add(row(number))
    first_turns.add_all([row(number) for number in range(2 * MANY)])
    first_turns.close()

    alone = [([f"run-{number}"], 1) for number in range(2 * MANY)]
    assert sent[: 2 * MANY] == alone
    assert [some for some in sent[2 * MANY :] if some[0]] == [([f"run-{number}" for number in range(2 * MANY)], 1)]


def test_close_sends_what_waits(first_turns, sent):
    """The process does not need the engine any more."""
    for number in range(MANY + 1):
        first_turns.add(row(number))
    first_turns.close()

    assert sent[-1] == ([f"run-{MANY}"], MOST_TOGETHER)


def test_a_child_process_does_not_send_what_its_parent_holds(first_turns, sent):
    """The parent sends it."""
    for number in range(MANY + 1):
        first_turns.add(row(number))

    def sends_nothing() -> bool:
        sent.clear()
        first_turns.flush()
        return not any(rows for rows, _ in sent)

    assert in_child(sends_nothing)
    first_turns.flush()
    assert sent[-1] == ([f"run-{MANY}"], MOST_TOGETHER)


PROGRAM = """
from durable.engine.first_turns import MANY, FirstTurns
from durable.engine.later import Later
from durable.store import DriveRow
later = Later(lambda: 0.0)
first_turns = FirstTurns(lambda rows, _: print(len(rows), flush=True), lambda: later)
for number in range(MANY + 3):
    first_turns.add(DriveRow(f"run-{number}", None, None))
"""


def test_a_program_that_ends_sends_what_waits():
    """It need not close its engine."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, env=dict(os.environ), check=True
    )

    assert ended.stdout.split() == ["1"] * MANY + ["3"]
