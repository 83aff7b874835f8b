"""Calls that are made later come after their pause, and none is left when the process ends."""

from __future__ import annotations

import queue

from no_threads import refuse_thread

from durable.engine.later import Later


def test_a_call_is_made_after_its_pause():
    """The one with the shorter pause comes first."""
    sent: queue.Queue[str] = queue.Queue()
    later = Later()
    later.call("late", 0.05, lambda: sent.put("late"))
    later.call("soon", 0.01, lambda: sent.put("soon"))

    assert [sent.get(timeout=10), sent.get(timeout=10)] == ["soon", "late"]
    later.close()


def test_of_calls_with_one_key_the_last_is_made():
    """The sweep may have sent a message again meanwhile: the copies do not add up."""
    sent: list[str] = []
    later = Later()
    for number in range(3):
        later.call("same", 60, lambda number=number: sent.append(f"copy {number}"))
    later.close()

    assert sent == ["copy 2"]


def test_a_process_that_ends_makes_the_calls_that_wait():
    """An error in one leaves no other behind."""
    sent: list[str] = []
    later = Later()
    later.call("bad", 60, lambda: 1 / 0)
    later.call("good", 60, lambda: sent.append("good"))
    later.close()

    assert sent == ["good"]


def test_a_call_waits_until_it_is_made():
    """While a key is there, its call is still to come."""
    made: queue.Queue[bool] = queue.Queue()
    later = Later()
    later.call("soon", 0.01, lambda: made.put("soon" in later))
    assert "soon" in later

    assert made.get(timeout=10) is False
    later.close()


def test_an_error_keeps_no_other_call_waiting(caplog):
    """It is logged, and the thread goes on."""
    made: queue.Queue[str] = queue.Queue()
    later = Later()
    later.call("bad", 0.01, lambda: 1 / 0)
    later.call("good", 0.02, lambda: made.put("good"))

    assert made.get(timeout=10) == "good"
    assert "could not be sent later" in caplog.text
    later.close()


def test_without_a_thread_a_call_is_made_at_once(monkeypatch, caplog):
    """Out of threads, it is made in the caller's thread, so that a lease is released; the next call gets a thread."""
    made: queue.Queue[str] = queue.Queue()
    later = Later()
    refuse_thread(monkeypatch, "durable-later")
    later.call("first", 60, lambda: made.put("first"))
    assert made.get_nowait() == "first"
    assert "first" not in later
    assert "can't start new thread" in caplog.text

    later.call("second", 0.01, lambda: made.put("second"))

    assert made.get(timeout=10) == "second"
    later.close()
    assert made.empty()
