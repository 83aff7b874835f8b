"""An outcome is recorded in the turn that it asks for, also while other steps of its run are under way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from driving import all_databases, more_engines, settle
from sqlalchemy.exc import OperationalError

from durable import Durable, Run, registry, step, workflow
from durable.attempts.attempt import StepBody, attempt
from durable.attempts.claim import Address
from durable.engine.later import Later
from durable.store import schema, turn_leases
from durable.turns import finish
from durable.turns.conclude import conclude
from durable.turns.continuation import Continuation
from durable.turns.drive import drive
from durable.turns.turn_lease import MANY, TTL

pytestmark = all_databases()

WIDTH = MANY + 4


@step(name="beside.noop")
def noop(number: int) -> int:
    return number


@workflow(name="beside.wide")
async def wide() -> int:
    return sum(await asyncio.gather(*map(noop, range(WIDTH))))


@workflow(name="beside.bounded")
async def bounded() -> int:
    slots = asyncio.Semaphore(3)

    async def one(number: int) -> int:
        async with slots:
            return await noop(number)

    return sum(await asyncio.gather(*map(one, range(WIDTH))))


@pytest.fixture
def manner() -> dict[str, Any]:
    """In place on every database."""
    return {"continuation": "60s"}


@pytest.fixture
def other(engine: Durable, database: str) -> Iterator[Durable]:
    """Another process."""
    with more_engines(database) as make:
        yield make()


def run_step(engine: Durable, run: Run[Any], body: StepBody | None = None) -> bool:
    """
    Run one of the steps that wait, as the worker of a message does.

    Return whether its outcome was recorded in a turn, and not in the inbox.
    """
    query = sa.select(schema.steps.c.op_id).where(schema.steps.c.run_id == run.id, schema.steps.c.claim.is_(None))
    with engine.store.read() as tx:
        op_id = tx.execute(query.order_by(schema.steps.c.op_id).limit(1)).scalar_one()
    # It begins no step in place: its time is up.
    clock = itertools.count(step=3600).__next__
    continuation = Continuation(engine, "celery", in_batches=True, clock=clock)
    address = Address(run.id, op_id, 1)
    concludes = partial(conclude, engine, continuation)
    assert attempt(engine, registry.steps[noop.name], address, None, body, conclude=concludes) is not None
    return continuation.has_turned


def turns(engine: Durable, run: Run[Any]) -> int:
    """How many turns of the run are committed."""
    with engine.store.read() as tx:
        return tx.execute(sa.select(schema.runs.c.turn).where(schema.runs.c.id == run.id)).scalar_one()


def ended(run: Run[Any]) -> list[str]:
    """The steps whose outcome is in the log."""
    return [event.op_id for event in run.events() if event.kind == "step_completed"]


def has_lease(engine: Durable, run: Run[Any]) -> bool:
    """Whether a drive has the lease of the run's turns."""
    with engine.store.read() as tx:
        found = tx.execute(sa.select(schema.turn_leases).where(schema.turn_leases.c.run_id == run.id)).all()
    return bool(found)


def test_the_turn_takes_in_what_others_have_left_and_releases_the_lease(engine, other):
    run = engine.start(bounded)
    drive(engine, run.id)
    assert not run_step(other, run)  # it has no replay of the run

    assert run_step(engine, run)

    assert turns(engine, run) == 2
    assert len(ended(run)) == 2
    assert not has_lease(engine, run)
    settle(engine, run)
    assert run.result(timeout=0) == sum(range(WIDTH))


@pytest.mark.parametrize(
    "error", [RuntimeError("the broker's client has a bug"), OperationalError("SELECT 1", {}, OSError("gone"))]
)
def test_an_outcome_is_recorded_once_though_what_follows_its_turn_fails(engine, monkeypatch, caplog, error):
    """The turn is committed then.  An error is logged, that of a database in one line, and nothing is given up."""
    run = engine.start(bounded)
    drive(engine, run.id)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(finish, "_send_steps", fail)
        assert run_step(engine, run)

    assert len(ended(run)) == 1
    assert [bool(each.exc_info) for each in caplog.records if run.id in each.message] == [
        isinstance(error, RuntimeError)
    ]
    settle(engine, run)
    assert run.result(timeout=0) == sum(range(WIDTH))


def test_an_outcome_that_begins_nothing_keeps_the_lease_for_those_that_follow(engine):
    """While the workflow waits for many, those that come within a moment are taken in by one turn."""
    engine.later = Later(clock=lambda: 0.0)
    run = engine.start(wide)
    drive(engine, run.id)

    assert run_step(engine, run)
    assert has_lease(engine, run)
    assert not run_step(engine, run)
    assert turns(engine, run) == 2

    engine.later.close()
    engine.later = Later()
    assert not has_lease(engine, run)
    settle(engine, run)
    assert run.result(timeout=0) == sum(range(WIDTH))


def test_an_outcome_goes_into_the_inbox_while_another_drive_has_the_lease(engine):
    run = engine.start(wide)
    drive(engine, run.id)
    assert turn_leases.take(engine.store, run.id, "its holder", worker_id="another", ttl=TTL)

    assert not run_step(engine, run)

    assert turns(engine, run) == 1
    turn_leases.release(engine.store, run.id, "its holder")
    settle(engine, run)
    assert run.result(timeout=0) == sum(range(WIDTH))
    assert len(ended(run)) == WIDTH


def test_an_attempt_that_was_given_up_ends_no_step_and_takes_no_turn(engine):
    """The turn fails at its fence, and the lease is free again."""
    run = engine.start(wide)
    drive(engine, run.id)

    class GivenUp(StepBody):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            steps = schema.steps
            is_own = (steps.c.run_id == run.id, steps.c.claim.is_not(None))
            with engine.store.begin() as tx:
                tx.execute(sa.update(steps).where(*is_own).values(claim="another"))
            return super().run(*args, **kwargs)

    assert not run_step(engine, run, GivenUp(registry.steps[noop.name]))

    assert turns(engine, run) == 1
    assert not ended(run)
    assert not has_lease(engine, run)
