"""Starts that follow each other become one run, which begins once no more have come for a while."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from driving import DATABASES
from limited import Process

from durable import ConfigurationError, debounce, set_limit, start_many, step, workflow
from durable.store import schema
from durable.testing import Environment

all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)

#: The runs that have begun, by their argument, in order.
began: list[Any] = []


@step(name="debounced.note", retry_backoff=0)
def note(what: Any) -> Any:
    began.append(what)
    return what


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    began.clear()
    made = Process(database)
    yield made
    made.close()


@workflow(name="debounced.reindex", limits=[debounce("debounced.reindex", "5s", at_most="12s", key="shop")])
async def reindex(shop: str, version: int) -> int:
    return int(await note(version))


def test_starts_that_follow_each_other_become_one_run_with_the_last_input():
    """They return the same run; one after its begin starts another."""
    began.clear()
    with Environment() as env:
        first = env.start(reindex, "acme", 1)
        env.advance("3s")
        second = env.start(reindex, "acme", 2)
        other = env.start(reindex, "other", 7)
        env.advance("4s")
        assert (first.id, first.status) == (second.id, "pending")
        env.advance("2s")
        assert first.result(timeout=0) == 2
        assert other.result(timeout=0) == 7
        third = env.start(reindex, "acme", 3)
        assert third.id != first.id
        env.finish(third)
    assert sorted(began) == [2, 3, 7]


def test_a_debounce_waits_no_longer_than_at_most():
    """A start every three seconds: the run begins twelve seconds after the first."""
    began.clear()
    with Environment() as env:
        first = env.start(reindex, "acme", 0)
        runs = [first]
        for number in range(1, 5):
            env.advance("3s")
            runs.append(env.start(reindex, "acme", number))
        env.finish(runs[-1])

        assert [run.id == first.id for run in runs] == [True] * 4 + [False]
        begin = first.started_at - first.created_at
    assert timedelta(seconds=12) <= begin < timedelta(seconds=14)
    assert began == [3, 4]


@all_databases
def test_starts_at_the_same_time_become_one_run(process):
    """From several threads, again and again."""
    found: list[str] = []
    # Tests share databases.
    before = len(process.rows(schema.runs))

    def starts(number: int) -> None:
        for turn in range(3):
            found.append(process.engine.start(reindex, "acme", 10 * number + turn).id)

    threads = [threading.Thread(target=starts, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(found) == 12
    assert len(set(found)) == len(process.rows(schema.runs)) - before == 1


@all_databases
def test_the_last_start_decides_about_the_priority(process):
    """As about the arguments."""
    first = reindex.with_options(priority=3).start("acme", 1)
    assert reindex.with_options(priority=7).start("acme", 2).id == first.id
    assert [row["level"] for row in process.rows(schema.run_limits) if row["run_id"] == first.id] == [2]
    first.cancel()
    process.turns()


@all_databases
def test_a_start_after_the_cancel_of_a_debounced_run_starts_another(process):
    """The cancelled run takes nothing."""
    first = process.engine.start(reindex, "acme", 1)
    first.cancel()
    second = process.engine.start(reindex, "acme", 2)
    process.turns()

    assert first.id != second.id
    assert (first.status, second.status) == ("cancelled", "pending")


@pytest.mark.parametrize("option", [{"run_id": "mine"}, {"idempotency_key": "k"}, {"countdown": "1s"}])
def test_a_debounced_start_takes_no_option_that_makes_no_sense(option):
    """With the option's name; nothing is recorded."""
    with Environment() as env:
        with pytest.raises(TypeError, match=next(iter(option))):
            reindex.with_options(**option).start("acme", 1)
        with pytest.raises(TypeError, match="debounced"):
            start_many(reindex, [("acme", 1)])
        with env.store.read() as tx:
            assert tx.execute(sa.select(schema.runs)).all() == []


def test_a_debounce_has_no_number_and_one_workflow(own_registry):
    """A mistake says what to do."""
    with Environment(), pytest.raises(ConfigurationError, match="no number"):
        set_limit("debounced.reindex", 2)
    with pytest.raises(ConfigurationError, match=re.escape("a debounce belongs to one workflow")):
        workflow(name="debounced.other", limits=[debounce("debounced.reindex", 5)])(reindex.function)
