"""The totals in the database: added to by several processes at once, and never lower than before."""

from __future__ import annotations

import random
import threading
from functools import partial

import pytest
import sqlalchemy as sa
from servers import DATABASES

from durable.measures import MESSAGES_SENT, TURN_SECONDS
from durable.store import totals

pytestmark = pytest.mark.parametrize("database", DATABASES, indirect=True)


@pytest.fixture(autouse=True)
def empty(engine):
    """The databases of a test run are shared."""
    with engine.store.begin() as tx:
        tx.execute(sa.text("DELETE FROM durable_totals"))


def read(engine):
    with engine.store.read() as tx:
        return totals.read(tx)


def test_deltas_are_summed(engine):
    """A second flush adds to the first, key by key; names keep their case and their characters."""
    key, other = ("durable_messages_sent", "Zahlung.prüfen", ""), ("durable_messages_sent", "zahlung.prüfen", "")
    for deltas in ({key: 2}, {key: 3, other: 1}):
        with engine.store.begin() as tx:
            totals.add(tx, deltas)

    assert read(engine) == {key: 5, other: 1}


def test_a_flush_moves_what_was_measured(engine):
    """After a flush the process has nothing to add, and a second one writes nothing."""
    engine.measures.take()
    engine.measures.count(MESSAGES_SENT, "turn", by=3)
    engine.measures.observe(TURN_SECONDS, 1_500, "w")
    engine.flush_measures()
    engine.flush_measures()

    assert read(engine) == {
        (MESSAGES_SENT.name, "turn", ""): 3,
        (TURN_SECONDS.name, "w", "0.0025"): 1,
        (TURN_SECONDS.name, "w", "sum"): 1_500,
    }


def test_a_flush_that_fails_loses_nothing(engine, monkeypatch):
    """The database refuses once: the next flush adds what the first could not."""
    engine.measures.take()
    engine.measures.count(MESSAGES_SENT, "turn", by=3)
    with engine.store.begin() as tx:
        tx.execute(sa.text("ALTER TABLE durable_totals RENAME TO durable_totals_away"))
    try:
        with pytest.raises(sa.exc.DBAPIError):
            engine.flush_measures()
    finally:
        with engine.store.begin() as tx:
            tx.execute(sa.text("ALTER TABLE durable_totals_away RENAME TO durable_totals"))
    engine.flush_measures()

    assert read(engine) == {(MESSAGES_SENT.name, "turn", ""): 3}


def test_processes_that_flush_at_once_lose_nothing(engine):
    """Six threads add to the same new rows, each in an order of its own."""
    keys = [("durable_messages_sent", f"kind-{n}", "") for n in range(20)]

    def flush(seed):
        for _ in range(5):
            mixed = random.Random(seed).sample(keys, len(keys))
            engine.store.write(partial(totals.add, deltas=dict.fromkeys(mixed, 1)))

    threads = [threading.Thread(target=flush, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert read(engine) == dict.fromkeys(keys, 30)
