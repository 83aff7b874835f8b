"""``list_runs`` on every database: which runs it finds, in pages, and what it does to all of them."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from driving import all_databases, settle

from durable import create_hook, list_runs, set_attributes, workflow
from durable.client import describe
from durable.duration import to_datetime

pytestmark = all_databases()


#: Whether the workflow has a mistake, which blocks its runs.
broken = {"is": False}


@workflow(name="listed.waits")
async def waits(customer: str, ends: bool = False) -> None:
    set_attributes(customer=customer)
    if broken["is"]:
        undefined_name  # type: ignore[name-defined]  # noqa: B018, F821
    if not ends:
        await create_hook()


@pytest.fixture
def customer() -> str:
    """An attribute of this test alone, since tests share databases."""
    return secrets.token_hex(4)


def test_runs_are_found_newest_first_over_pages(engine, customer, monkeypatch):
    monkeypatch.setattr("durable.client.run_lists._PAGE", 2)
    runs = [engine.start(waits, customer) for _ in range(5)]
    settle(engine, *runs)
    found = list_runs(attributes={"customer": customer})
    assert next(found) == runs[-1]
    assert list(found) == runs[-2::-1]


def test_all_conditions_count(engine, customer):
    ended, running = engine.start(waits, customer, ends=True), engine.start(waits, customer)
    settle(engine, ended, running)
    mine = {"customer": customer}
    assert list(list_runs(attributes=mine, status="completed")) == [ended]
    assert list(list_runs(attributes=mine, status="running", name="listed.waits")) == [running]
    assert list(list_runs(attributes=mine, name="listed.other")) == []
    assert list(list_runs(attributes=mine, since="1h")) == [running, ended]
    assert list(list_runs(attributes=mine, until="1h")) == []
    moment = to_datetime(engine.now()) + timedelta(hours=1)
    assert list(list_runs(attributes=mine, until=moment)) == [running, ended]
    assert list(list_runs(attributes=mine, since=moment)) == []


def test_all_that_match_are_cancelled(engine, customer):
    """Those that have ended are not, and a later call has nothing to do."""
    runs = [engine.start(waits, customer) for _ in range(3)]
    ended, other = engine.start(waits, customer, ends=True), engine.start(waits, "another")
    settle(engine, *runs, ended, other)
    mine = list_runs(attributes={"customer": customer})
    assert mine.cancel("not wanted") == 3
    settle(engine, *runs, ended, other)
    assert [run.status for run in runs] == ["cancelled"] * 3
    assert (ended.status, other.status) == ("completed", "running")
    assert mine.cancel() == 0
    assert list_runs(attributes={"customer": customer}, status="completed").cancel() == 0


def test_blocked_runs_are_retried(engine, customer, monkeypatch):
    labelled = waits.with_options(attributes={"customer": customer})
    runs = [labelled.start(customer) for _ in range(2)]
    monkeypatch.setitem(broken, "is", True)
    settle(engine, *runs)
    assert [run.status for run in runs] == ["blocked"] * 2
    monkeypatch.setitem(broken, "is", False)
    assert runs[0].retry()
    settle(engine, runs[0])
    assert not runs[0].retry()
    assert list_runs(attributes={"customer": customer}).retry() == 1
    settle(engine, *runs)
    assert [run.status for run in runs] == ["running"] * 2


def test_a_filter_that_cannot_be_is_refused(engine):
    with pytest.raises(ValueError, match="Did you mean failed"):
        list_runs(status="faild")
    with pytest.raises(ValueError, match="since"):
        list_runs(since="yesterday")
    with pytest.raises(ValueError, match="no time zone"):
        list_runs(until=datetime(2026, 1, 1))
    assert list_runs(since=datetime(2999, 1, 1, tzinfo=UTC)) is not None


@workflow(name="listed.looks")
async def looks() -> None:
    list_runs()


def test_a_workflow_cannot_list_runs(engine):
    """The answer would be another on a replay."""
    run = engine.start(looks)
    settle(engine, run)
    described = describe.describe(engine, run.id)
    assert described["status"] == "blocked"
    assert "list_runs" in described["error"]
