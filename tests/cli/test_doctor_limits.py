"""What ``durable doctor`` finds of limits: each fault is made, found, and answered with what to change."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from limited import Process
from servers import DATABASES

from durable import concurrency, doctor, registry, step, workflow
from durable.cli import main
from durable.doctor import Finding
from durable.recovery import sweep
from durable.recovery.housekeeping import Housekeeping
from durable.store import admit_steps, schema

all_databases = pytest.mark.parametrize("database", DATABASES, indirect=True)
HOUR = 3600 * 1_000_000


@step(name="doctor_limits.call", limits=[concurrency("doctor_limits.one", 1, key="account")])
def call(account: str) -> int:
    return 1


@workflow(name="doctor_limits.calls")
async def calls(account: str, count: int) -> int:
    pending = [call(account) for _ in range(count)]
    return sum([await each for each in pending])


@pytest.fixture
def process(database: str) -> Iterator[Process]:
    """A worker in this process, whose messages the test takes."""
    made = Process(database)
    made.engine.celery.conf.worker_enable_remote_control = False
    keeper = Housekeeping(made.engine)
    keeper._beat()
    yield made
    keeper._unregister()
    made.close()


def found(process: Process, name: str) -> Finding:
    return next(each for each in doctor.examine(process.engine) if each.name == name)


def change(process: Process, statement: sa.Update | sa.Delete) -> None:
    with process.engine.store.begin() as tx:
        assert tx.execute(statement).rowcount > 0


@all_databases
def test_limits_that_work_are_well(process):
    """One of three calls has the slot, and two wait: no fault, at no moment."""
    process.start(calls, "acme", 3)
    while process.sent:
        assert (found(process, "limits").ok, found(process, "slots").ok) == (True, True)
        process.run_next()


def test_numbers_that_differ_between_processes_are_found(process):
    """Two workers of an old deploy declare 5, and this process 1."""
    for number in range(2):
        with process.engine.store.begin() as tx:
            row = dict(tx.execute(sa.select(schema.workers)).mappings().first() or {})
            old = {"id": f"old-{number}", "limits": json.dumps({"doctor_limits.one": [5, None, None]})}
            tx.execute(sa.insert(schema.workers).values(row | old))

    finding = found(process, "limits")
    assert not finding.ok
    assert "doctor_limits.one is 1 in 2 processes and 5 in 2 processes" in finding.detail
    assert "finish the deploy" in finding.fix


def test_a_set_number_that_no_code_declares_is_found(process, monkeypatch):
    """The limit has got another name in the code, and the number stays behind."""
    process.start(calls, "acme", 1)
    process.engine.set_limit("doctor_limits.one", 7)
    assert found(process, "limits").ok
    monkeypatch.delitem(registry.limits, "doctor_limits.one")
    change(process, sa.update(schema.workers).values(limits="{}"))

    finding = found(process, "limits")
    assert "doctor_limits.one is set to 7, and no code declares it any more" in finding.detail
    assert "durable limits set NAME N" in finding.fix
    change(process, sa.update(schema.workers).values(limits=None))
    assert found(process, "limits").ok, "a worker of an older version may know the limit"


@all_databases
def test_a_long_pause_is_found_and_can_be_ended(process, monkeypatch):
    """A service has asked for two hours, as it seems; half an hour is no fault."""
    process.start(calls, "acme", 2)
    now = process.engine.store.now()
    change(process, sa.update(schema.limit_keys).values(paused_until=now + HOUR // 2))
    assert found(process, "limits").ok
    change(process, sa.update(schema.limit_keys).values(paused_until=now + 2 * HOUR))
    process.run_next()
    assert process.sent == []

    finding = found(process, "limits")
    assert "doctor_limits.one (key acme) is paused until" in finding.detail
    assert "durable limits resume" in finding.fix
    monkeypatch.setattr("durable.cli.common.Context.engine", process.engine)
    done = CliRunner().invoke(main, ["limits", "resume", "doctor_limits.one"])
    assert (done.exit_code, done.output) == (0, "Pauses ended: 1.\n")
    refused = CliRunner().invoke(main, ["limits", "resume", "doctor_limits.one", "--key", "acme"])
    assert (refused.exit_code, "not paused" in refused.output) == (1, True)
    sweep.sweep(process.engine)
    assert len(process.sent) == 1


@all_databases
def test_steps_that_wait_although_there_is_room_are_found(process, monkeypatch):
    """No process admits anything for two minutes."""

    def admit(*args: object, **kwargs: object) -> None:
        raise sa.exc.OperationalError("admit", {}, Exception("the process has died"))

    monkeypatch.setattr(admit_steps, "admit", admit)
    process.start(calls, "acme", 1)
    assert process.sent == []
    assert found(process, "limits").ok
    earlier = schema.step_limits.c.ready_at - 120_000_000
    change(process, sa.update(schema.step_limits).values(ready_at=earlier))

    finding = found(process, "limits")
    assert "steps wait for doctor_limits.one (key acme) since" in finding.detail
    assert "room for 1" in finding.detail
    change(process, sa.update(schema.limits).values(set_n=5))
    change(process, sa.update(schema.step_limits).values(state="admitted"))
    assert found(process, "limits").ok


WAITS = sa.update(schema.step_limits).values(state="waiting")
RUNS = {"status": "claimed", "claim": "c", "worker_id": "gone", "claimed_at": 1}
WRONG: dict[str, list[sa.Update | sa.Delete]] = {
    "no message will be sent": [sa.update(schema.steps).values(sent_at=None, next_send_at=None)],
    "for a process that is gone": [sa.update(schema.steps).values(**RUNS)],
    "runs without a slot": [sa.update(schema.steps).values(**RUNS), WAITS],
    "a limit that is not checked": [WAITS, sa.delete(schema.limit_keys)],
}


@all_databases
@pytest.mark.parametrize("what", WRONG)
def test_slots_that_do_not_fit_their_attempts_are_found(process, what):
    """Each way to lose a slot, or to run without one, is made by hand: durable's own code makes none."""
    run = process.start(calls, "acme", 1)
    for each in WRONG[what]:
        change(process, each)

    finding = found(process, "slots")
    assert not finding.ok
    assert what in finding.detail
    assert run.id in finding.detail
    assert "report" in finding.fix
