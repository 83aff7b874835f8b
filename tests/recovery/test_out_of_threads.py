"""Housekeeping in a process that is out of threads goes on, and does in a later round what it could not."""

from __future__ import annotations

import threading
from typing import Any

from eventually import eventually
from no_threads import refuse_thread

from durable import Durable
from durable.recovery import Housekeeping
from durable.store import workers


def test_spans_that_get_no_thread_are_emitted_in_a_later_round(engine: Durable, monkeypatch: Any, caplog: Any) -> None:
    """The round ends in an error that is logged, and the heartbeats go on: the thread of housekeeping does not end."""
    emitted = threading.Event()
    keeper = Housekeeping(engine)
    refuse_thread(monkeypatch, "durable-spans")
    engine.tracing.batch.add(emitted.set)

    keeper.tick()
    assert "can't start new thread" in caplog.text
    assert not emitted.is_set()
    keeper.tick()

    assert emitted.wait(10)
    keeper.stop()


def test_a_process_that_could_not_prune_aside_ends_as_others_do(engine: Durable, monkeypatch: Any) -> None:
    """``stop`` waits for no thread that never began, and removes the process from the database."""
    refused = refuse_thread(monkeypatch, "durable-payloads", times=100)
    monkeypatch.setattr(type(engine.store.vault.payloads), "is_outside", True)
    keeper = Housekeeping(engine)
    keeper.start()
    eventually(lambda: refused)

    keeper.stop()

    with engine.store.read() as tx:
        assert workers.count(tx) == 0
