"""The order in which steps with limits begin: priorities first, then turns between runs, then the order of calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from driving import DATABASES
from limited import Process

from durable import RetryableError, concurrency, get_step_metadata, rate, step, workflow
from durable.recovery import sweep
from durable.store.limit_lines import LimitedCall
from durable.testing import Environment, crash_everywhere

all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)

one_line = concurrency("order.line", 2)

#: What has run, in order.
ran: list[str] = []


@step(name="order.call", limits=[one_line])
def call(what: str) -> None:
    ran.append(what)


@step(name="order.urgent", limits=[one_line], priority=9)
def urgent(what: str) -> None:
    ran.append(what)


@step(name="order.mail", limits=[rate("order.sent", 5, per="1s")])
def mail(what: str) -> None:
    ran.append(what)


@step(name="order.both", limits=[concurrency("order.customer", 3, key="customer"), concurrency("order.shared", 2)])
def both(customer: str) -> None:
    ran.append(customer)


@step(name="order.again", limits=[one_line], retry_jitter=False)
def again(what: str) -> None:
    ran.append(what)
    if ran.count(what) < 2:
        raise RetryableError("once more", retry_after=0)


@workflow(name="order.calls")
async def calls(what: str, count: int) -> None:
    await asyncio.gather(*(call(f"{what}{number}") for number in range(count)))


@workflow(name="order.mails")
async def mails(what: str, count: int) -> None:
    await asyncio.gather(*(mail(f"{what}{number}") for number in range(count)))


@workflow(name="order.mixed")
async def mixed(count: int) -> None:
    await asyncio.gather(*(call(f"low{n}") for n in range(count)), *(urgent(f"high{n}") for n in range(count)))


@workflow(name="order.child")
async def child(what: str) -> None:
    await call(what)


@workflow(name="order.parent")
async def parent(what: str, count: int) -> None:
    await asyncio.gather(*(child(f"{what}{number}") for number in range(count)))


@workflow(name="order.of_customer")
async def of_customer(customer: str) -> None:
    await both(customer)


@workflow(name="order.one_by_one")
async def one_by_one(what: str, count: int) -> None:
    for number in range(count):
        await call(f"{what}{number}")


@workflow(name="order.retried")
async def retried(what: str) -> None:
    await again(what)


@step(name="order.unsteady", limits=[concurrency("order.each", 2, key="key"), concurrency("order.slot", 1)])
def unsteady(key: str) -> None:
    if get_step_metadata().attempt == 1:
        raise RetryableError("once more", retry_after=0)


@workflow(name="order.unsteady_three")
async def unsteady_three() -> None:
    await asyncio.gather(*(unsteady(key) for key in ("a", "a", "b")))


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    ran.clear()
    made = Process(database)
    yield made
    made.close()


def run_all(process: Process) -> None:
    while process.sent:
        process.run_next()


@all_databases
def test_a_higher_priority_comes_first(process):
    """Urgent steps overtake those that wait; within a priority, calls keep their order."""
    process.start(mixed, 4)
    run_all(process)

    assert ran == ["high0", "high1", "high2", "high3", "low0", "low1", "low2", "low3"]


@all_databases
def test_a_step_without_a_priority_has_that_of_its_run(process):
    """A run that was started with priority 5 comes before one without."""
    process.start(calls, "first", 4)
    calls.with_options(priority=5).start("second", 2)
    process.turns()
    run_all(process)

    assert ran == ["first0", "first1", "second0", "second1", "first2", "first3"]


@all_databases
def test_a_run_with_many_steps_does_not_hold_up_another(process):
    """60 steps of a run wait; ten of another come later, and every second step is one of theirs."""
    process.start(calls, "many", 60)
    process.start(calls, "few", 10)
    run_all(process)

    assert len(ran) == 70
    assert [what for what in ran if what.startswith("few")] == [f"few{number}" for number in range(10)]
    assert [what for what in ran if what.startswith("many")] == [f"many{number}" for number in range(60)]
    assert max(ran.index(f"few{number}") - 2 * number for number in range(10)) <= 4


@all_databases
def test_a_run_whose_steps_come_one_by_one_has_its_turns(process):
    """It never has more than one step in line, and waits for at most two of the other run's each time."""
    process.start(calls, "many", 60)
    process.start(one_by_one, "step", 10)
    run_all(process)

    places = [ran.index(f"step{number}") for number in range(10)]
    assert max(later - earlier for earlier, later in itertools.pairwise(places)) <= 4


@all_databases
def test_children_of_a_run_have_its_turns(process):
    """Forty runs that one parent starts are one owner: another run's steps do not wait for all of them."""
    process.start(parent, "child", 40)
    process.start(calls, "few", 5)
    run_all(process)

    assert len(ran) == 45
    assert max(ran.index(f"few{number}") - 2 * number for number in range(5)) <= 4


@all_databases
def test_customers_whose_items_are_runs_of_their_own_have_turns_by_their_key(process):
    """In a line that all customers share, the owner is the key of the line that a step comes from."""
    for _ in range(30):
        process.start(of_customer, "busy")
    for _ in range(3):
        process.start(of_customer, "quiet")
    run_all(process)

    assert len(ran) == 33
    assert max(place for place, customer in enumerate(ran) if customer == "quiet") <= 10


def test_a_rate_keeps_the_same_order():
    """Turns hold for every kind of limit."""
    ran.clear()
    with Environment() as env:
        runs = [env.start(mails, what, count) for what, count in (("many", 30), ("few", 3))]
        for run in runs:
            env.finish(run)

    assert len(ran) == 33
    assert max(ran.index(f"few{number}") - 2 * number for number in range(3)) <= 4


@all_databases
def test_a_retry_waits_in_line_when_its_time_has_come(process):
    """It goes behind no more than one step of each other run."""
    process.start(retried, "again")
    process.start(calls, "many", 20)
    process.run_next()
    process.run_next()
    sweep.sweep(process.engine)
    run_all(process)

    assert ran.count("again") == 2
    assert len(ran) - 1 - ran[::-1].index("again") <= 6


@pytest.mark.parametrize("continuation", [0, "1s"], ids=["by messages", "in place"])
def test_a_crash_costs_no_retry_its_place(continuation):
    """Three calls of one slot fail once, and there is a crash or a lost message at each boundary: all end."""
    assert crash_everywhere(unsteady_three, sample=10, continuation=continuation).played == 10


def test_the_order_of_the_levels_is_that_of_the_priorities():
    """9 comes first, as in RabbitMQ; none is 0, and what is beyond counts as the end."""
    assert [LimitedCall("r", [], priority).level for priority in (9, 5, 0, None, 200, -1)] == [0, 4, 9, 9, 0, 9]
