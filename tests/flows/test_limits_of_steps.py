"""Steps with limits wait in the database: no more run at once, or begin in a time, than the limit says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from driving import DATABASES
from limited import Process

from durable import concurrency, step, workflow
from durable.attempts.attempt import attempt
from durable.attempts.claim import Address
from durable.recovery import sweep
from durable.store import admit_steps, limits, schema
from durable.testing import Environment, crash_everywhere
from durable.turns.admission import admit

all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)

#: The calls that have run, in order.
ran: list[tuple[str, int]] = []


@step(
    name="limits.call", limits=[concurrency("limits.account", 2, key="account")], retry_backoff=60, retry_jitter=False
)
def call(account: str, number: int) -> int:
    ran.append((account, number))
    if number < 0:
        raise ValueError(number)
    return number


@workflow(name="limits.calls")
async def calls(*wanted: tuple[str, int]) -> list[int]:
    return await asyncio.gather(*(call(account, number) for account, number in wanted))


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    ran.clear()
    made = Process(database)
    yield made
    made.close()


@all_databases
def test_c77_no_message_is_sent_for_what_may_not_run(process):
    """Of five calls of one key two have a message; each that ends lets the next one in, in the order of the calls."""
    run = process.start(calls, *(("a", number) for number in range(5)))

    assert len(process.sent) == 2
    process.run_next()
    assert len(process.sent) == 2
    while process.sent:
        process.run_next()
        assert process.in_use()["a"] <= 2

    assert run.result(timeout=0) == [0, 1, 2, 3, 4]
    assert ran == [("a", number) for number in range(5)]


@all_databases
def test_c77_a_full_key_blocks_no_other_key(process):
    """Twenty calls of one key wait, and the two of another key have their messages at once."""
    process.start(calls, *(("busy", number) for number in range(20)), ("other", 1), ("other", 2))

    assert len(process.sent) == 4


@all_databases
def test_c77_runs_share_a_limit(process):
    """The limit is that of the name and the key, whatever run calls."""
    first, second = process.start(calls, ("a", 1), ("a", 2)), process.start(calls, ("a", 3), ("b", 4))

    assert len(process.sent) == 3
    while process.sent:
        process.run_next()
    assert (first.result(timeout=0), second.result(timeout=0)) == ([1, 2], [3, 4])


@all_databases
def test_c77_a_retry_gives_its_slot_back(process):
    """A call that fails and waits a minute for its next attempt lets another call in."""
    process.start(calls, ("a", -1), ("a", -2), ("a", 3))

    process.run_next()
    assert process.in_use()["a"] == 2
    process.run_next()
    assert process.in_use()["a"] == 1
    process.run_next()
    assert ran == [("a", -1), ("a", -2), ("a", 3)]
    assert process.sent == []


@all_databases
def test_c77_a_cancelled_run_frees_its_slots(process):
    """The calls of another run come next."""
    first, second = process.start(calls, ("a", 1), ("a", 2), ("a", 3)), process.start(calls, ("a", 4))
    assert len(process.sent) == 2

    first.cancel()
    process.turns()

    assert [message.run_id for message in process.sent if message.run_id == second.id] == [second.id]


@all_databases
def test_nothing_is_left(process):
    """When all has ended, no row of a limit's keys or steps is there."""
    process.start(calls, ("a", 1), ("a", 2), ("a", 3), ("b", 4))
    while process.sent:
        process.run_next()

    assert process.rows(schema.step_limits) == []
    assert process.rows(schema.limit_keys) == []


@all_databases
def test_a_process_that_dies_before_the_admission_costs_a_sweep(process, monkeypatch):
    """A turn commits, and its process dies before it admits anything: the sweep admits what may run."""

    def admit(*args: object, **kwargs: object) -> None:
        raise sa.exc.OperationalError("admit", {}, Exception("the process has died"))

    with monkeypatch.context() as dies:
        dies.setattr(admit_steps, "admit", admit)
        process.start(calls, ("a", 1), ("a", 2), ("a", 3))
    assert process.sent == []

    sweep.sweep(process.engine)

    assert len(process.sent) == 2


@all_databases
def test_c77_two_processes_never_admit_one_too_many(process, database):
    """Both admit a key at the same time, again and again: it has two slots."""
    process.start(calls, *(("a", number) for number in range(8)))
    for _ in range(2):
        message = process.broker.take()
        attempt(process.engine, call, Address(message.run_id, message.op_id, message.attempt), None)
    taken = len(process.sent)
    key = limits.LimitKey("limits.account", "a")

    threads = [threading.Thread(target=admit, args=(process.engine, [key])) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert taken == len(process.sent) == process.in_use()["a"] == 2


# In the environment, with its clock


@step(name="limits.alone", limits=[concurrency("limits.one", 1)], retry_backoff=0)
def alone(number: int) -> int:
    return number


@workflow(name="limits.three")
async def three() -> list[int]:
    return await asyncio.gather(*(alone(number) for number in range(3)))


@step(
    name="limits.both",
    limits=[concurrency("limits.all", 2), concurrency("limits.each", 1, key=lambda who, number: who)],
    retry_backoff=0,
)
def both(who: str, number: int) -> int:
    return number


@workflow(name="limits.several")
async def several() -> list[int]:
    wanted = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)]
    return await asyncio.gather(*(both(*each) for each in wanted))


@pytest.mark.parametrize("continuation", [0, "1s"], ids=["by messages", "in place"])
def test_c77_a_slot_outlives_no_crash(continuation):
    """One slot, three calls, and a crash or a lost message at each boundary: the run ends, and no row is left."""
    report = crash_everywhere(three, sample=10, continuation=continuation)

    assert report.played == 10


def test_two_limits_of_a_step_hold_together():
    """A step waits for the limit that has no room, and takes no slot of the other meanwhile."""
    with Environment() as env:
        assert env.run(several) == [1, 2, 3, 4, 5]
    assert crash_everywhere(several, sample=8).played == 8
