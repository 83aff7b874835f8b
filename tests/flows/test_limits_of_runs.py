"""Runs of workflows with limits wait in the database: no more go on at once, or begin in a time, than they say."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from driving import DATABASES
from limited import Process

from durable import (
    ConfigurationError,
    concurrency,
    continue_as_new,
    debounce,
    rate,
    sleep,
    step,
    workflow,
)
from durable.cli import main
from durable.client import describe, operate, run_limits
from durable.recovery import Housekeeping, sweep
from durable.store import LimitKey, admit_runs, backlog, gauges, schema
from durable.testing import Environment
from durable.turns.drive import drive

PAGE = Path(__file__).parents[2] / "docs/how-to/limits-of-runs.md"
all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)

#: The runs that have begun, by their argument, in order.
began: list[Any] = []


@step(name="run_limits.note", retry_backoff=0)
def note(what: Any) -> Any:
    began.append(what)
    return what


@workflow(name="run_limits.import", limits=[concurrency("run_limits.customer", 1, key="customer")])
async def imports(customer: str, number: int) -> int:
    return int(await note(number))


@workflow(name="run_limits.parent")
async def parent(customer: str, count: int) -> list[int]:
    return [await each for each in [imports(customer, number) for number in range(count)]]


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    began.clear()
    made = Process(database)
    yield made
    made.close()


def messages_of(process: Process) -> set[str]:
    """The runs for which there are messages."""
    return {each.run_id for each in process.broker._messages}


def run_all(process: Process) -> None:
    """Take all turns, and run all steps, until nothing has a message."""
    process.turns()
    while process.sent:
        process.run_next()
        process.turns()


@all_databases
def test_runs_of_a_key_begin_one_after_the_other_in_the_order_of_their_starts(process):
    """The second has no message, and is pending; it begins once the first has ended."""
    first, second, third = (process.engine.start(imports, "acme", number) for number in range(3))
    other = process.engine.start(imports, "other", 9)

    assert messages_of(process) == {first.id, other.id}
    process.turns()
    assert (first.status, second.status, other.status) == ("running", "pending", "running")
    run_all(process)
    assert [run.result(timeout=0) for run in (first, second, third, other)] == [0, 1, 2, 9]
    assert [number for number in began if number != 9] == [0, 1, 2]
    assert process.rows(schema.run_limits) == process.rows(schema.run_limit_keys) == []


@all_databases
def test_runs_of_a_higher_priority_begin_first(process):
    """9 before 5 before none, whatever the broker; in the order of their starts within a priority."""
    priorities = [None, None, 5, 9, 5, 0]
    runs = [
        process.engine.start_with(imports, ("acme", number), {}, {"priority": priority})
        for number, priority in enumerate(priorities)
    ]
    run_all(process)
    assert [run.status for run in runs] == ["completed"] * 6
    # The first one was started when there was room.
    assert began == [0, 3, 2, 4, 1, 5]


@all_databases
def test_a_run_that_is_cancelled_frees_its_slot(process):
    """One that goes on, and one that waits: it ends at once, and the one after it begins."""
    first, second, third = (process.engine.start(imports, "acme", number) for number in range(3))
    process.turns()

    second.cancel()
    process.turns()
    assert second.status == "cancelled"
    first.cancel()
    run_all(process)

    assert (first.status, third.status) == ("cancelled", "completed")


@all_databases
def test_children_wait_too(process):
    """A parent that calls three children of one key."""
    run = process.engine.start(parent, "acme", 3)
    process.turns()

    assert len(process.sent) == 1
    run_all(process)
    assert run.result(timeout=0) == [0, 1, 2]
    assert began == [0, 1, 2]


@all_databases
def test_a_batch_waits_in_its_order(process):
    """``start_many`` sends one message for each key."""
    runs = process.engine.start_many(imports, [("acme", number) for number in range(5)])

    assert messages_of(process) == {runs[0].id}
    run_all(process)
    assert began == [0, 1, 2, 3, 4]


@all_databases
def test_a_process_that_dies_before_it_admits_a_run_costs_a_sweep(process, monkeypatch):
    """After a start, and after the end of a run."""

    def dies(*args: object, **kwargs: object) -> None:
        raise sa.exc.OperationalError("admit", {}, Exception("the process has died"))

    with monkeypatch.context() as dying:
        dying.setattr(admit_runs, "admit", dies)
        first = process.engine.start(imports, "acme", 1)
    assert messages_of(process) == set()
    sweep.sweep(process.engine)
    assert messages_of(process) == {first.id}

    second = process.engine.start(imports, "acme", 2)
    with monkeypatch.context() as dying:
        dying.setattr(admit_runs, "admit", dies)
        run_all(process)
    assert (first.status, second.status) == ("completed", "pending")
    sweep.sweep(process.engine)
    run_all(process)
    assert second.result(timeout=0) == 2


@all_databases
def test_two_processes_never_admit_one_run_too_many(process):
    """They admit one key at the same time, again and again."""
    process.engine.start_many(imports, [("acme", number) for number in range(8)])
    key = LimitKey("run_limits.customer", "acme")

    threads = [threading.Thread(target=run_limits.admit, args=(process.engine, [key])) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(messages_of(process)) == 1


@all_databases
def test_a_turn_that_comes_too_early_begins_nothing(process):
    """A message for a run that waits, from wherever it comes."""
    process.engine.start(imports, "acme", 1)
    second = process.engine.start(imports, "acme", 2)

    drive(process.engine, second.id)

    assert second.status == "pending"


# What happens when there is no room


@workflow(
    name="run_limits.newest", limits=[concurrency("run_limits.newest", 1, key="customer", on_conflict="cancel_running")]
)
async def newest(customer: str, number: int) -> int:
    await sleep("1h")
    return int(await note(number))


@workflow(name="run_limits.only", limits=[concurrency("run_limits.only", 1, key="customer", on_conflict="cancel_new")])
async def only(customer: str, number: int) -> int:
    await sleep("1h")
    return int(await note(number))


def reason_of(run: Any) -> str:
    return str(run.events()[-1].reason)


@all_databases
def test_cancel_new_records_the_run_as_cancelled(process):
    """The one that goes on is left alone, and the reason says how many slots there are."""
    first, second = process.start(only, "acme", 1), process.start(only, "acme", 2)
    other = process.start(only, "other", 3)

    assert (first.status, second.status, other.status) == ("running", "cancelled", "running")
    assert reason_of(second) == "the limit run_limits.only (key acme) has no room: 1 of 1 in use"
    first.cancel()
    process.turns()
    assert process.start(only, "acme", 4).status == "running"


@all_databases
def test_cancel_running_cancels_the_oldest_and_the_newest_begins_once_it_has_ended(process):
    """A run that still waits makes room for a newer one too."""
    first = process.start(newest, "acme", 1)
    second = process.engine.start(newest, "acme", 2)
    third = process.engine.start(newest, "acme", 3)
    other = process.start(newest, "other", 4)

    assert [run.status for run in (first, second, third, other)] == ["cancelled", "cancelled", "running", "running"]
    assert reason_of(first) == "a newer run has started, and the limit run_limits.newest (key acme) allows 1"
    assert second.started_at is None


@all_databases
def test_cancel_running_cancels_an_older_run_of_a_higher_priority_too(process):
    """The newest one counts."""
    first = process.start(newest, "acme", 1)
    second = newest.with_options(priority=9).start("acme", 2)
    third = newest.start("acme", 3)
    process.turns()
    assert [run.status for run in (first, second, third)] == ["cancelled", "cancelled", "running"]


@step(name="run_limits.clean", retry_backoff=0)
def clean(number: int) -> int:
    began.append(f"clean {number}")
    return number


@workflow(name="run_limits.tidy", limits=[concurrency("run_limits.tidy", 1, on_conflict="cancel_running")])
async def tidy(number: int) -> int:
    began.append(f"begins {number}")
    try:
        await sleep("1h")
    finally:
        await clean(number)
    return number


def test_the_newest_run_begins_when_the_one_before_has_cleaned_up():
    """A cancelled run keeps its slot until it has ended."""
    began.clear()
    with Environment() as env:
        env.start(tidy, 1)
        second = env.start(tidy, 2)
        env.finish(second)

    assert [each for each in began if each != "clean 2"] == ["begins 1", "clean 1", "begins 2"]


# Generations, rates, times


@workflow(name="run_limits.chain", limits=[concurrency("run_limits.chain", 1)])
async def chain(name: str, left: int) -> str:
    await note((name, left))
    if left:
        continue_as_new(name, left - 1)
    return name


@all_databases
def test_the_next_generation_keeps_the_slot(process):
    """Another run begins after the last generation."""
    first, second = process.engine.start(chain, "a", 2), process.engine.start(chain, "b", 0)

    run_all(process)

    assert (first.result(timeout=0), second.result(timeout=0)) == ("a", "b")
    assert began == [("a", 2), ("a", 1), ("a", 0), ("b", 0)]


@workflow(name="run_limits.paced", limits=[rate("run_limits.pace", 6, per="1m", burst=1)])
async def paced(number: int) -> int:
    return number


@workflow(
    name="run_limits.both",
    limits=[concurrency("run_limits.all", 2), concurrency("run_limits.each", 1, key=lambda who, number: who)],
)
async def both(who: str, number: int) -> int:
    await sleep("1m")
    return int(await note(number))


def test_a_rate_begins_no_more_runs_than_it_says():
    """Six a minute: every ten seconds one."""
    with Environment() as env:
        runs = env.engine.start_many(paced, [(number,) for number in range(5)])
        env.run_until_idle()
        for run in runs:
            env.finish(run)
        times = [run.started_at for run in runs]

    waits = [(later - sooner).total_seconds() for sooner, later in pairwise(times)]
    assert waits == pytest.approx([10] * 4, abs=1)


def test_two_limits_of_a_workflow_hold_together():
    """Two at once of all, and one of each: nothing is held up by a full key of the other limit."""
    began.clear()
    with Environment() as env:
        wanted = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)]
        runs = [env.start(both, *each) for each in wanted]
        assert [run.status for run in runs] == ["running", "pending", "pending", "running", "pending"]
        for run in runs:
            env.finish(run)
        took = max(run.completed_at for run in runs) - min(run.created_at for run in runs)
    assert sorted(began) == [1, 2, 3, 4, 5]
    assert took < timedelta(minutes=4)


def test_a_run_for_later_takes_no_slot_before_its_time():
    """A run with a countdown waits in line once it is due."""
    with Environment() as env:
        later = imports.with_options(countdown="1h").start("acme", 1)
        now = env.start(imports, "acme", 2)
        env.finish(now)
        assert (later.status, now.status) == ("pending", "completed")
        env.advance("61m")
        assert later.result(timeout=0) == 1


@workflow(name="run_limits.yearly", limits=[concurrency("run_limits.yearly", 1)])
async def yearly(customer: str) -> str:
    await sleep("365d")
    return customer


def test_a_year_behind_another_run_is_over_at_once():
    """In the environment's time, a run that waits for a slot needs no checks meanwhile."""
    with Environment() as env:
        first, second = env.start(yearly, "acme"), env.start(yearly, "acme")
        env.finish(second)
        assert second.started_at - first.created_at >= timedelta(days=365)


# What people see, and the page


@all_databases
def test_it_shows_which_runs_wait_for_what(process, monkeypatch):
    """In ``durable runs show``, and in ``durable limits list``; a higher number lets the next one in."""
    keeper = Housekeeping(process.engine)
    keeper.tick()
    first, second = process.start(imports, "acme", 1), process.start(imports, "acme", 2)
    monkeypatch.setattr("durable.cli.common.Context.engine", process.engine)

    shown = CliRunner().invoke(main, ["runs", "show", second.id]).output
    assert "a slot of run_limits.customer (key acme): 1 of 1 in use" in shown
    (listed,) = json.loads(CliRunner().invoke(main, ["limits", "list", "--json"]).output)
    expected = {"limit": "run_limits.customer", "key": "acme", "n": 1, "of": "runs", "in_use": 1, "waiting": 1}
    assert expected.items() <= listed.items()
    done = CliRunner().invoke(main, ["limits", "set", "run_limits.customer", "2"])
    assert done.exit_code == 0
    sweep.sweep(process.engine)
    process.turns()
    keeper._unregister()
    assert (first.status, second.status) == ("running", "running")


@all_databases
def test_a_run_that_waits_for_a_limit_is_no_backlog_of_the_workers(process):
    """Neither for the metrics nor for ``durable doctor``: one turn waits, of the run that may begin."""
    process.engine.start_many(imports, [("acme", number) for number in range(3)])

    with process.engine.store.read() as tx:
        assert sum(each.waiting for each in gauges.waiting_turns(tx, process.engine.now())) == 1
        assert len(backlog.runs_with_inbox_items(tx)) == 1


def test_the_examples_of_the_page_run(own_registry):
    """As they are written: two imports of a customer, one after the other, and saves that become one run."""
    found: dict[str, Any] = {"__name__": "limits_page"}
    source = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    exec(compile(source, "<page>", "exec"), found)

    with Environment() as env:
        first, second = (env.engine.start(found["import_file"], "acme", file) for file in ("a", "b"))
        env.finish(second)
        assert first.completed_at <= second.started_at
        assert second.result(timeout=0) == "b of acme is loaded"
        ids = {found["save"]("acme", version) for version in range(3)}
        assert len(ids) == 1
        run = env.engine.get_run(ids.pop())
        env.finish(run)
        assert run.result(timeout=0) == "version 2 of acme is loaded"
        assert env.run(found["newsletter"], 1)
        assert env.run(found["preview"], "home", "text") == "text of home is loaded"


# Mistakes


def key_of_run(what: str) -> Any:
    return {"raises": lambda: 1 / 0, "number": lambda: 7, "good": lambda: "k"}[what]()


@workflow(name="run_limits.keyed", limits=[concurrency("run_limits.bad", 1, key=key_of_run)])
async def keyed_run(what: str) -> str:
    return what


@workflow(name="run_limits.calls_keyed")
async def calls_keyed(what: str) -> str:
    return await keyed_run(what)


@pytest.mark.parametrize(("what", "error"), [("raises", ZeroDivisionError), ("number", TypeError)])
def test_a_bad_key_is_an_error_of_the_start(what, error):
    """The note names limit and workflow; nothing is recorded."""
    with Environment() as env:
        with pytest.raises(error) as raised:
            env.start(keyed_run, what)
        assert "run_limits.bad" in raised.value.__notes__[0]
        with env.store.read() as tx:
            assert tx.execute(sa.select(schema.runs)).all() == []


def test_a_bad_key_of_a_child_blocks_the_parent(monkeypatch):
    """As a bad key of a step does; corrected code goes on."""
    with Environment() as env:
        run = env.start(calls_keyed, "raises")
        assert run.status == "blocked"
        assert "run_limits.bad" in str(describe.describe(env.engine, run.id)["error"])
        monkeypatch.setattr(keyed_run, "limits", ())
        operate.retry(env.engine, run.id)
        env.finish(run)
        assert run.result(timeout=0) == "raises"


@all_databases
def test_a_run_that_another_process_has_started_gets_its_limits_with_its_first_turn(process, monkeypatch):
    """As a schedule may, whose process does not have the workflow."""
    first = process.start(imports, "acme", 1)
    with monkeypatch.context() as unknown:
        unknown.setattr(imports, "limits", ())
        second = process.engine.start(imports, "acme", 2)
    process.turns()

    assert (first.status, second.status) == ("running", "pending")
    run_all(process)
    assert began == [1, 2]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: concurrency("x", 1, on_conflict="cancel"), "on_conflict='cancel'"),
        (lambda: debounce("x", "0s"), "wait='0s'"),
        (lambda: debounce("x", None), "wait"),  # type: ignore[arg-type]
        (lambda: debounce("x", "5s", at_most="1s"), "at_most='1s'"),
        (lambda: step(limits=[debounce("x", "5s")])(clean.function), "a debounce"),
        (lambda: step(limits=[concurrency("x", 1, on_conflict="cancel_new")])(clean.function), "on_conflict"),
        (lambda: workflow(limits=[concurrency("x", 1, key="custmer")])(imports.function), "Did you mean customer?"),
        (lambda: workflow(limits=[debounce("x", 1), debounce("y", 1)])(imports.function), "2 debounces, x, y"),
        (lambda: workflow(name="o", limits=[concurrency("run_limits.customer", 2)])(tidy.function), "numbers differ"),
        (lambda: step(name="o", limits=[concurrency("run_limits.customer", 1)])(clean.function), "share no limit"),
    ],
)
def test_what_can_be_no_limit_of_a_workflow_is_refused(make, says, own_registry):
    """With the value, and what to write instead."""
    with Environment(), pytest.raises(ConfigurationError, match=re.escape(says)):
        make()
