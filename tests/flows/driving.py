"""A worker's part, played in this process: turns and attempts run one after the other, without Celery."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa

from durable import Durable, Run, alarms, registry
from durable.drive import drive
from durable.schema import steps, waits
from durable.steps import Address, attempt

DATABASES = ("sqlite", "postgresql", "mariadb")


def all_databases() -> Any:
    """The mark of tests whose ``engine`` comes on every database."""
    return pytest.mark.parametrize("database", DATABASES, indirect=True)


def settle(engine: Durable, *runs: Run[Any], within_secs: float = 10) -> None:
    """Do all that these runs ask for now: turns, attempts that are due within a second, sleeps that are over."""
    deadline = time.monotonic() + within_secs
    pause = threading.Event()
    while True:
        for run in runs:
            drive(engine, run.id)
        did = [work(engine, run) for run in runs]
        if not any(did) and not any(_soon(engine, run) for run in runs):
            return
        assert time.monotonic() < deadline, f"still busy: {[run.events() for run in runs]}"
        pause.wait(0 if any(did) else 0.002)


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
        attempt(engine, registry.steps[row.name], Address(run.id, row.op_id, row.attempt), None)
    rung = [alarms.ring(engine, run.id, row.op_id) for row in over]
    return bool(due) or any(rung)


def _soon(engine: Durable, run: Run[Any]) -> bool:
    """Whether something is due within a second: a short backoff, a short sleep."""
    horizon = engine.now() + 1_000_000
    with engine.store.read() as tx:
        retry = sa.select(steps.c.op_id).where(
            steps.c.run_id == run.id, steps.c.status == "pending", steps.c.not_before <= horizon
        )
        sleep = sa.select(waits.c.op_id).where(waits.c.run_id == run.id, waits.c.due_at <= horizon)
        return bool(tx.execute(retry).all() or tx.execute(sleep).all())


def kinds(run: Run[Any]) -> list[str]:
    """The run's log, by the kinds of its events; its ``seq`` is dense."""
    found = run.events()
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    assert [event.at for event in found] == sorted(event.at for event in found)
    return [event.kind for event in found]
