"""Messages for other workers are sent on at once or after a pause, and none is left when the process ends."""

from __future__ import annotations

import queue

import pytest

from durable.engine.forwarder import LONGEST_SECS, SPACING_SECS, Forwarder


def test_every_second_hop_is_at_once_and_the_pauses_between_them_grow():
    """A message whose workers are busy does not go round without a pause."""
    now = [100.0]
    forwarder = Forwarder(lambda: now[0])
    pauses = []
    for hops in range(40):
        now[0] += 1
        pauses.append(forwarder.pause(hops))

    assert set(pauses[::2]) == {0.0}
    assert 0.025 <= pauses[1] <= 0.05
    assert all(LONGEST_SECS / 2 <= pause <= LONGEST_SECS for pause in pauses[11::2])


def test_many_messages_are_spaced():
    """A long queue of unknown messages keeps the process from sending more than so many each second."""
    forwarder = Forwarder(lambda: 100.0)
    pauses = [forwarder.pause(0) for _ in range(1000)]

    assert pauses[0] == 0.0
    assert pauses[-1] == pytest.approx(999 * SPACING_SECS)


def test_what_waits_is_sent_after_its_pause():
    """The one with the shorter pause comes first."""
    sent: queue.Queue[str] = queue.Queue()
    forwarder = Forwarder()
    forwarder.hold("late", 0.05, lambda: sent.put("late"))
    forwarder.hold("soon", 0.01, lambda: sent.put("soon"))

    assert [sent.get(timeout=10), sent.get(timeout=10)] == ["soon", "late"]
    forwarder.close()


def test_a_message_that_comes_twice_is_sent_once():
    """The sweep may have sent it again meanwhile: the copies do not add up."""
    sent: list[str] = []
    forwarder = Forwarder()
    for number in range(3):
        forwarder.hold("same", 60, lambda number=number: sent.append(f"copy {number}"))
    forwarder.close()

    assert sent == ["copy 2"]


def test_a_process_that_ends_sends_all_that_waits():
    """An error with one message leaves no other behind."""
    sent: list[str] = []
    forwarder = Forwarder()
    forwarder.hold("bad", 60, lambda: 1 / 0)
    forwarder.hold("good", 60, lambda: sent.append("good"))
    forwarder.close()

    assert sent == ["good"]
