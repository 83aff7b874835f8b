"""Schedules in ``durable.testing``: they fire with the clock that the test moves, and survive every crash."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durable import create_schedule, failpoints, get_schedule, get_workflow_metadata, schedule, workflow
from durable.testing import Environment, export, replay
from durable.testing.clock import Crashed

BEGIN = datetime(2026, 3, 28, 12, tzinfo=UTC)


@workflow(name="testing.scheduled")
async def scheduled() -> datetime | None:
    return get_workflow_metadata().scheduled_for


@pytest.fixture(autouse=True)
def _own_definitions(own_registry):
    """Schedules that a test declares are not declared for the next one."""


def results(name):
    return [run.result(timeout=0) for run in get_schedule(name).runs()]


def test_time_that_the_test_lets_pass_fires_schedules():
    """Also over the change of the clock: in Vienna there is no 02:30 on the 29th."""
    schedule("nightly", scheduled, cron="30 2 * * *", tz="Europe/Vienna")
    with Environment(now=BEGIN) as env:
        env.advance("3d")
        assert [each.isoformat() for each in results("nightly")] == [
            "2026-03-31T00:30:00+00:00",
            "2026-03-30T00:30:00+00:00",
            "2026-03-29T01:00:00+00:00",
        ]


def test_a_run_that_is_finished_fires_no_schedule():
    """``run`` lets time pass for one run; other runs would disturb its test."""
    with Environment(now=BEGIN) as env:
        create_schedule("hourly", scheduled, every="1h")
        env.run(scheduled)
        env.jump()
        assert results("hourly") == []
        env.advance("1h")
        assert len(results("hourly")) == 1


def test_a_history_has_the_planned_time():
    with Environment(now=BEGIN) as env:
        found = create_schedule("hourly", scheduled, every="1h")
        env.advance("1h")
        (run,) = found.runs()
        outcome = replay(export(run))
    assert "2026-03-28T13:00" in outcome.value


def _play(crash_at):
    """The planned times of the runs of two hours, with a crash at one boundary; and how many boundaries there are."""
    hits = 0

    def on_hit(_point):
        nonlocal hits
        env.store.check_alive()
        hits += 1
        if hits == crash_at:
            env.store.crashed = True
            raise Crashed

    with Environment(now=BEGIN) as env:
        create_schedule("hourly", scheduled, every="1h", overlap="queue", catch_up="all")
        until = BEGIN + timedelta(hours=2, minutes=5)
        with failpoints.watched(on_hit):
            while env.now < until:
                try:
                    env.advance(until - env.now)
                except Crashed:
                    env.restart()
        env.advance("1m")
        return sorted(results("hourly")), hits


def test_a_crash_between_any_two_effects_neither_loses_nor_doubles_a_time():
    expected, boundaries = _play(None)
    assert expected == [BEGIN + timedelta(hours=1), BEGIN + timedelta(hours=2)]
    for crash_at in range(1, boundaries + 1):
        assert _play(crash_at)[0] == expected, f"crash at boundary {crash_at} of {boundaries}"
