"""The waits that a process knows come by their time, each once, and never more than a bounded number."""

from __future__ import annotations

import os

from durable.engine import known_waits
from durable.engine.known_waits import KnownWait, KnownWaits


def noted(*due: int) -> KnownWaits:
    found = KnownWaits()
    for at in due:
        found.note(KnownWait(at, f"run-{at}", "r#1"))
    return found


def test_the_wait_that_has_been_due_for_longest_comes_first():
    """One that is not due yet does not come."""
    found = noted(30, 10, 20)

    assert [found.take_due(20) for _ in range(3)] == [
        KnownWait(10, "run-10", "r#1"),
        KnownWait(20, "run-20", "r#1"),
        None,
    ]
    assert len(found) == 1


def test_a_wait_that_was_taken_by_its_name_does_not_come_again():
    """Its message came first."""
    found = noted(10, 20)

    assert found.take("run-10", "r#1") == KnownWait(10, "run-10", "r#1")
    assert found.take("run-10", "r#1") is None
    assert found.take_due(30) == KnownWait(20, "run-20", "r#1")
    assert found.take_due(30) is None


def test_a_wait_too_many_is_not_known(monkeypatch):
    """Its message ends it, as that of each wait of another process does."""
    monkeypatch.setattr(known_waits, "MOST", 2)

    found = noted(10, 20, 5)

    assert len(found) == 2
    assert found.take("run-5", "r#1") is None


def test_waits_that_are_over_long_before_they_are_due_make_room(monkeypatch):
    """As timeouts of quick steps are; what is kept of them is bounded."""
    monkeypatch.setattr(known_waits, "MOST", 2)
    found = noted(50)

    for at in range(100, 200):
        found.note(KnownWait(at, f"run-{at}", "r#1"))
        assert found.take(f"run-{at}", "r#1") is not None
        assert len(found._by_time) <= 4

    found.note(KnownWait(10, "run-10", "r#1"))
    assert [found.take_due(99) for _ in range(3)] == [
        KnownWait(10, "run-10", "r#1"),
        KnownWait(50, "run-50", "r#1"),
        None,
    ]


def test_the_end_of_a_wait_is_remembered_for_one_message(monkeypatch):
    """And of no more than a bounded number of waits."""
    monkeypatch.setattr(known_waits, "MOST", 2)
    found = KnownWaits()
    for at in (10, 20, 30):
        found.note_end(KnownWait(at, f"run-{at}", "r#1"))

    assert [found.take_end(f"run-{at}", "r#1") for at in (10, 20, 30)] == [False, True, True]
    assert not found.take_end("run-30", "r#1")


def test_a_child_process_knows_none():
    """The replays of its parent are not its own."""
    found = noted(10)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, str(len(found)).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert (os.read(reader, 10), len(found)) == (b"0", 1)
    os.close(reader)
    os.close(writer)
