"""A failed run is told: one log record, and the application's handlers, which are called at least once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, more_engines, settle

from durable import ConfigurationError, Durable, Run, failpoints, step, workflow
from durable.client import operate
from durable.recovery.sweep import sweep
from durable.sandbox import ProcessEnd
from durable.store.schema import run_calls
from durable.turns.drive import drive


class Declined(Exception):
    pass


@step(name="reports.charge", max_retries=0)
def charge(card: str) -> str:
    if card == "empty":
        raise Declined("no money")
    return card


@workflow(name="reports.order")
async def order(card: str) -> str:
    return await charge(card)


@workflow(name="reports.wrapping")
async def wrapping(card: str) -> str:
    try:
        return await charge(card)
    except Declined as error:
        raise RuntimeError("order failed") from error


@workflow(name="reports.refusing")
async def refusing() -> None:
    raise ValueError("no such customer")


@workflow(name="reports.mistaken")
async def mistaken() -> None:
    raise NameError("chrage")


@workflow(name="reports.endless")
async def endless() -> None:
    while True:
        await charge("card")


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="durable.runs")


def records(caplog: pytest.LogCaptureFixture, level: int) -> list[Any]:
    return [record for record in caplog.records if record.name == "durable.runs" and record.levelno == level]


@all_databases()
@pytest.mark.parametrize("definition", [order, wrapping], ids=["the step's error", "an error raised from it"])
def test_a_failed_run_leaves_one_error_record(engine, caplog, definition):
    """It names the workflow, the id, the failing step and the error, and has the tracebacks of body and step."""
    run = definition.start("empty")
    settle(engine, run)
    settle(engine, run)

    (record,) = records(caplog, logging.ERROR)
    text = logging.Formatter().format(record)
    assert run.status == "failed"
    assert (record.run_id, record.workflow, record.step) == (run.id, definition.name, "reports.charge")
    assert f"Run {run.id} of {definition.name} failed at step reports.charge" in text
    assert "Declined: no money" in text
    assert "raise Declined" in text, "the step's traceback"
    assert "await charge(card)" in text, "the workflow's traceback"


def test_a_run_that_fails_without_a_step_names_none(engine, caplog):
    """The record has the workflow's own error."""
    run = refusing.start()
    settle(engine, run)

    (record,) = records(caplog, logging.ERROR)
    assert not hasattr(record, "step")
    assert record.getMessage().startswith(f"Run {run.id} of reports.refusing failed after")
    assert record.exc_info[0] is ValueError


@pytest.mark.parametrize("manner", [{"max_events": 20, "continuation": 0}], ids=["short logs"])
def test_a_run_with_too_long_a_log_leaves_an_error_record_too(engine, caplog, manner):
    """This failure is not the body's."""
    run = endless.start()
    settle(engine, run)

    (record,) = records(caplog, logging.ERROR)
    assert "LogTooLong" in record.getMessage()


def test_start_and_end_are_told_at_level_info(engine, caplog):
    """With the workflow and the run; a cancelled run is told at the same level."""
    run = order.start("card")
    settle(engine, run)
    cancelled = order.start("card")
    cancelled.cancel()
    settle(engine, cancelled)

    said = [(record.getMessage().partition(" after")[0], record.run_id) for record in records(caplog, logging.INFO)]
    assert said == [
        (f"Run {run.id} of reports.order started.", run.id),
        (f"Run {run.id} of reports.order completed", run.id),
        (f"Run {cancelled.id} of reports.order was cancelled.", cancelled.id),
    ]
    assert not records(caplog, logging.ERROR)


def test_a_blocked_run_leaves_a_warning(engine, caplog):
    """Once: a retry that does not help changes nothing."""
    run = mistaken.start()
    settle(engine, run)
    operate.retry(engine, run.id)
    settle(engine, run)

    (record,) = records(caplog, logging.WARNING)
    assert (record.run_id, record.workflow) == (run.id, "reports.mistaken")
    assert f"Run {run.id} is blocked." in record.getMessage()
    assert record.exc_info[0] is NameError
    assert not records(caplog, logging.ERROR)


# Handlers


@all_databases()
def test_handlers_are_called_with_the_run_after_the_commit(engine):
    """A failed run has failed for all to see when `on_run_failed` is called; a blocked one is blocked."""
    seen: list[tuple[str, str, str]] = []

    @engine.on_run_failed
    def failed(run: Run[Any]) -> None:
        seen.append(("failed", run.id, run.status))

    @engine.on_run_failed
    def failed_too(run: Run[Any]) -> None:
        seen.append(("failed too", run.id, run.name))

    @engine.on_run_blocked
    def blocked(run: Run[Any]) -> None:
        seen.append(("blocked", run.id, run.status))

    completed, lost, stuck = order.start("card"), order.start("empty"), mistaken.start()
    settle(engine, completed, lost, stuck)

    assert sorted(seen) == [
        ("blocked", stuck.id, "blocked"),
        ("failed", lost.id, "failed"),
        ("failed too", lost.id, "reports.order"),
    ]
    assert due(engine) == []


def test_what_a_handler_raises_is_logged_and_harms_nothing(engine, caplog):
    """The other handlers are called, and the run has failed as it would have."""
    seen: list[str] = []

    @engine.on_run_failed
    def broken(run: Run[Any]) -> None:
        raise SystemExit("no pager")

    @engine.on_run_failed
    def works(run: Run[Any]) -> None:
        seen.append(run.id)

    run = order.start("empty")
    settle(engine, run)

    assert (run.status, seen) == ("failed", [run.id])
    assert [r.exc_info[0] for r in records(caplog, logging.ERROR) if "on_run_failed" in r.message] == [SystemExit]
    assert due(engine) == []


def test_a_handler_may_use_the_run_and_start_another_one(engine):
    """It is called outside of the turn: with the run's events at hand, and free to start runs."""
    started: list[Run[Any]] = []

    @engine.on_run_failed
    def start_another(run: Run[Any]) -> None:
        assert run.events()[-1].kind == "run_failed"
        started.append(order.start("card"))

    run = order.start("empty")
    settle(engine, run)
    settle(engine, *started)
    assert [each.status for each in started] == ["completed"]


@all_databases()
@pytest.mark.parametrize("definition", [refusing, mistaken], ids=["failed", "blocked"])
def test_a_crash_before_the_handlers_are_called_loses_no_call(engine, other, definition):
    """The sweep of another process sends a turn, which calls them; then nothing is left."""
    seen: list[str] = []
    survivor = other()
    for each in (engine, survivor):
        each.on_run_failed(lambda run: seen.append(run.id))
        each.on_run_blocked(lambda run: seen.append(run.id))

    run = engine.start(definition)
    # The process ends right after the commit.
    with failpoints.armed("turn.committed=raise"), pytest.raises(failpoints.Failed):
        settle(engine, run)
    assert run.status in ("failed", "blocked")
    assert seen == []

    sent: list[str] = []
    later(survivor)
    survivor.send_turns = lambda *ids, **_: sent.extend(ids)
    sweep(survivor)
    assert sent == [run.id]
    drive(survivor, run.id)
    assert seen == [run.id]
    assert due(survivor) == []

    drive(survivor, run.id)
    assert seen == [run.id]


def test_a_process_without_handlers_writes_no_calls(engine, other):
    """Nor does it take those that another process has left."""
    left = other()
    left.on_run_failed(lambda run: None)
    run = engine.start(order, "empty")
    settle(engine, run)
    assert due(engine) == []

    with engine.store.begin() as tx:
        row = {"run_id": run.id, "status": "failed", "tries": 0, "next_send_at": 0, "sends": 0}
        tx.execute(sa.insert(run_calls).values(row))
    drive(engine, run.id)
    assert due(engine) == [(run.id, "failed")]
    drive(left, run.id)
    assert due(engine) == []


def test_a_handler_that_always_ends_its_process_is_given_up(engine, caplog):
    """After five tries the log says that it was not called."""

    @engine.on_run_failed
    def deadly(run: Run[Any]) -> None:
        raise ProcessEnd

    run = order.start("empty")
    with pytest.raises(ProcessEnd):
        settle(engine, run)
    for _ in range(5):
        with pytest.raises(ProcessEnd):
            drive(engine, run.id)
    drive(engine, run.id)

    assert due(engine) == []
    assert "5 tries have not ended" in caplog.text


@pytest.mark.parametrize("wrong", ["a text", None])
def test_what_is_no_handler_is_refused(engine, wrong):
    """When the module is imported, not when a run fails."""
    with pytest.raises(ConfigurationError, match="on_run_failed"):
        engine.on_run_failed(wrong)

    async def coroutine(run: Run[Any]) -> None: ...

    with pytest.raises(ConfigurationError, match="make it a `def`"):
        engine.on_run_blocked(coroutine)


def due(engine: Durable) -> list[tuple[str, str]]:
    """The calls that are due."""
    with engine.store.read() as tx:
        return [(row.run_id, row.status) for row in tx.execute(sa.select(run_calls.c.run_id, run_calls.c.status))]


def later(engine: Durable) -> None:
    """Let the time pass that a process has to call the handlers."""
    with engine.store.begin() as tx:
        tx.execute(sa.update(run_calls).values(next_send_at=0))


@pytest.fixture
def other(database: str) -> Iterator[Callable[..., Durable]]:
    with more_engines(database) as make:
        yield make
