"""What the sweep sends again is noted as sent, on every database."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from servers import DATABASES

from durable import sleep, start, step, workflow
from durable.attempts import outcome
from durable.attempts.claim import Address, claim
from durable.recovery import sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import claimed_attempts, schema
from durable.turns.drive import drive

LATER = 6_000_000


@step(name="resending.noop")
def noop() -> int:
    return 1


@workflow(name="resending.steps_and_sleeps")
async def steps_and_sleeps() -> None:
    waiting = noop()
    await sleep("1s")
    await waiting


@pytest.fixture
def worker(engine):
    """This process is registered as one that runs steps; it is signed off at the end."""
    housekeeping = Housekeeping(engine)
    housekeeping._beat()
    yield
    housekeeping._unregister()


def due_again(engine, table, runs):
    """The times at which these runs' rows of a work list are looked at again, and how often each was sent."""
    with engine.store.read() as tx:
        rows = tx.execute(sa.select(table).where(table.c.run_id.in_([run.id for run in runs])))
        return [(row.next_send_at, row.sends) for row in rows]


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_what_is_sent_again_is_looked_at_again_only_later(engine, worker, monkeypatch):
    """The sweep sends a lost turn, step and ETA message once each, and not again in its next round."""
    begun, waiting = start(steps_and_sleeps), start(steps_and_sleeps)
    drive(engine, begun.id)
    engine.celery.control.purge()
    now = engine.now() + LATER
    monkeypatch.setattr(engine, "now", lambda: now)

    sweep.sweep(engine)

    for table in (schema.steps, schema.waits, schema.inbox):
        rows = due_again(engine, table, (begun, waiting))
        assert rows, table.name
        assert all(at > now and sends == 1 for at, sends in rows), table.name


@step(name="resending.pay")
def pay(order: str, amount: int) -> None: ...


@workflow(name="resending.pays")
async def pays(order: str) -> None:
    await pay(order, amount=7)


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_what_is_sent_again_shows_its_arguments(engine, worker, monkeypatch):
    """A message of the sweep, and the next attempt after a process has died, show Celery's tools the arguments."""
    short, long = start(pays, "A-1"), start(pays, "x" * 70_000)
    sent = []
    monkeypatch.setattr(engine.dispatch.broker, "send", lambda messages: sent.extend(messages) or True)
    for run in (short, long):
        drive(engine, run.id)
    engine.celery.control.purge()
    sent.clear()
    now = engine.now() + LATER
    monkeypatch.setattr(engine, "now", lambda: now)
    sweep.sweep(engine)
    monkeypatch.undo()
    # The sweep may send turns of other tests' runs too.
    messages = [each.what.first.options for each in sent if each.what.name == pay.name]
    shown = {each["headers"]["durable"]["run"]: each["kwargsrepr"] for each in messages}
    assert shown == {short.id: "{'order': 'A-1', 'amount': 7}", long.id: "{...}"}

    assert claim(engine, pay, Address(short.id, "r#1", 1), None)
    with engine.store.read() as tx:
        lost = claimed_attempts.find(tx, short.id, "r#1")
    row = outcome.give_up(engine, lost)
    assert engine.dispatch.shown_arguments(pay.name, row.args)["kwargsrepr"] == "{'order': 'A-1', 'amount': 7}"


@workflow(name="resending.fan_out")
async def fan_out() -> None:
    await asyncio.gather(*(noop() for _ in range(12)))


@pytest.mark.parametrize("database", DATABASES, indirect=True)
def test_steps_that_take_long_to_send_are_not_sent_again_before_they_are_sent(engine, worker, monkeypatch):
    """A turn asks for so many steps that sending them takes longer than a lost message is waited for."""
    run = start(fan_out)
    send, began = engine.dispatch.send_steps, engine.now()
    clock, begun = [began], []
    monkeypatch.setattr(engine.store, "now", lambda: clock[0])

    def slowly(rows):
        if [row.run_id for row in rows] != [run.id] or rows[0].op_id in begun:
            return send(rows)  # the sweep's own
        begun.append(rows[0].op_id)
        clock[0] += 1_000_000
        engine.celery.control.purge()  # workers take each at once
        sweep.sweep(engine)
        return send(rows)

    monkeypatch.setattr("durable.turns.finish.BATCH_SIZE", 1)
    monkeypatch.setattr(engine.dispatch, "send_steps", slowly)
    drive(engine, run.id)

    assert clock[0] == began + 12_000_000
    assert [sends for _, sends in due_again(engine, schema.steps, (run,))] == [0] * 12
