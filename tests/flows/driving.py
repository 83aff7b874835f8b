"""
A worker's part, played in this process: turns and attempts run one after the other, without Celery.

It goes on with a run where the engine's ``continuation`` says so.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery

from durable import Durable, Run, registry
from durable.attempts.attempt import StepBody, attempt, run_claimed
from durable.attempts.claim import Address
from durable.store.schema import runs, steps, waits
from durable.turns import wake
from durable.turns.conclude import conclude
from durable.turns.continuation import Continuation
from durable.turns.drive import drive

DATABASES = ("sqlite", "postgresql", "mariadb")


def all_databases() -> Any:
    """The mark of tests whose ``engine`` comes on every database."""
    return pytest.mark.parametrize("database", DATABASES, indirect=True)


@contextmanager
def more_engines(database: str) -> Iterator[Callable[..., Durable]]:
    """Makes more engines on the same database, as processes that start later; they are closed afterwards."""
    made: list[Durable] = []

    def make(**settings: Any) -> Durable:
        celery = Celery(f"test-{secrets.token_hex(4)}", broker="memory://")
        made.append(Durable(celery, database_url=database, continuation=0, **settings))
        return made[-1]

    yield make
    for each in made:
        each.celery.close()
        each.close()


def settle(engine: Durable, *runs: Run[Any], within_secs: float = 10) -> None:
    """Do all that these runs ask for now: turns, attempts that are due within a second, sleeps that are over."""
    deadline = time.monotonic() + within_secs
    pause = threading.Event()
    while True:
        for run in runs:
            go(engine, partial(_turn, engine, run.id))
        did = [work(engine, run) for run in runs]
        if not any(did) and not any(_soon(engine, run) for run in runs):
            return
        assert time.monotonic() < deadline, f"still busy: {[run.events() for run in runs]}"
        pause.wait(0 if any(did) else 0.002)


def settle_family(engine: Durable, run: Run[Any], within_secs: float = 20) -> None:
    """The same for a run, the runs that it calls, those that they call, until none has moved."""
    deadline = time.monotonic() + within_secs
    before: Any = None
    while (now := family(engine, run)) != before:
        assert time.monotonic() < deadline, f"still busy: {now}"
        settle(engine, *(engine.get_run(run_id) for run_id in now), within_secs=within_secs)
        before = now


def family(engine: Durable, run: Run[Any]) -> dict[str, int]:
    """The run and its descendants, oldest first, each with the number of its last turn."""
    known: dict[str, int] = {}
    generation = [run.id]
    while generation:
        with engine.store.read() as tx:
            query = sa.select(runs.c.id, runs.c.turn).where(runs.c.id.in_(generation)).order_by(runs.c.id)
            known |= {row.id: row.turn for row in tx.execute(query)}
            children = sa.select(runs.c.id).where(runs.c.parent_run_id.in_(generation))
            generation = list(tx.execute(children).scalars())
    return known


def work(engine: Durable, run: Run[Any]) -> bool:
    """Run every attempt and ring every alarm that is due; whether there was one."""
    now = engine.now()
    with engine.store.read() as tx:
        due = tx.execute(
            sa.select(steps.c.op_id, steps.c.name, steps.c.attempt)
            .where(steps.c.run_id == run.id, steps.c.status == "pending", steps.c.not_before <= now)
            .order_by(steps.c.op_id)
        ).all()
        over = tx.execute(sa.select(waits.c.op_id).where(waits.c.run_id == run.id, waits.c.due_at <= now)).all()
    for row in due:
        step, address = registry.steps[row.name], Address(run.id, row.op_id, row.attempt)
        go(engine, lambda continuation: attempt(engine, step, address, None, conclude=_conclude(engine, continuation)))  # noqa: B023
    rung = [_ring(engine, run.id, row.op_id) for row in over]
    return bool(due) or any(rung)


def _ring(engine: Durable, run_id: str, op_id: str) -> bool:
    """End a wait, and go on with its run if that took its turn."""
    rung: list[bool] = []
    go(engine, lambda continuation: rung.append(wake.fire(engine, run_id, op_id, continuation)))
    return rung[0]


def _turn(engine: Durable, run_id: str, continuation: Continuation | None) -> None:
    drive(engine, run_id, continuation=continuation)


def go(engine: Durable, act: Callable[[Continuation | None], object]) -> None:
    """Do what a message is for, and what its worker goes on with."""
    if not engine.settings.continuation:
        act(None)
        return
    continuation = Continuation(engine, "celery")
    act(continuation)
    while (held := continuation.begin()) is not None:
        run_claimed(engine, held, StepBody(registry.steps[held.name]), _conclude(engine, continuation))
        if not continuation.has_turned:
            drive(engine, held.run_id, continuation=continuation)


def _conclude(engine: Durable, continuation: Continuation | None) -> Any:
    return continuation and partial(conclude, engine, continuation)


def _soon(engine: Durable, run: Run[Any]) -> bool:
    """Whether something is due within a second: a short backoff, a short sleep."""
    horizon = engine.now() + 1_000_000
    with engine.store.read() as tx:
        retry = sa.select(steps.c.op_id).where(
            steps.c.run_id == run.id, steps.c.status == "pending", steps.c.not_before <= horizon
        )
        sleep = sa.select(waits.c.op_id).where(waits.c.run_id == run.id, waits.c.due_at <= horizon)
        return bool(tx.execute(retry).all() or tx.execute(sleep).all())


def restart(engine: Durable) -> None:
    """Another process takes the place of the one that played the worker: what it kept in memory is gone."""
    engine.replays.close()


def kinds(run: Run[Any]) -> list[str]:
    """The run's log, by the kinds of its events; its ``seq`` is dense."""
    found = run.events()
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert [event.at for event in found] == sorted(event.at for event in found)
    return [event.kind for event in found]


def call_threads() -> int:
    """How many threads of this process make calls for event loops."""
    return sum(thread.name.startswith("durable-call") for thread in threading.enumerate())
