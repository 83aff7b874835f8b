"""``durable schedules``: what it prints, and what it does."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from click.testing import CliRunner

from durable import cli, get_run
from durable.duration import to_datetime


@pytest.fixture
def run(yard):
    """Runs a command in this process; its output."""

    def invoke(*args, fails=False):
        result = CliRunner().invoke(cli.main, ["--app", "yard", "schedules", *args])
        assert (result.exit_code == 1) is fails, result.output
        return result.output

    return invoke


def test_a_schedule_is_made_watched_steered_and_deleted(run, yard):
    """All commands, one after the other."""
    made = json.loads(run("create", "naps", "yard.nap", '["from the shell"]', "--every", "1h", "--json"))
    assert (made["status"], made["declared"], made["timing"]) == ("active", False, "every 1h")
    assert "naps" in run("list")
    assert "paused" in run("pause", "naps")
    assert "paused already" in run("pause", "naps", fails=True)
    (listed,) = json.loads(run("list", "--json"))
    assert listed["status"] == "paused"
    assert "next planned time is" in run("resume", "naps")
    started = json.loads(run("trigger", "naps", "--json"))["run_id"]
    assert get_run(started).name == "yard.nap"
    now = to_datetime(yard.module.engine.now())
    span = [(now - timedelta(hours=3)).isoformat(), now.isoformat()]
    assert len(json.loads(run("backfill", "naps", *span, "--json"))["run_ids"]) == 3
    assert "started: 0" in run("backfill", "naps", *span)
    shown = json.loads(run("show", "naps", "--json"))
    assert len(shown["next"]) == 10
    assert len(shown["runs"]) == 4
    assert started in run("show", "naps")
    (planned,) = [each["scheduled_for"] for each in shown["runs"] if each["run_id"] == started]
    described = CliRunner().invoke(cli.main, ["--app", "yard", "runs", "show", started, "--json"]).stdout
    assert json.loads(described)["scheduled_for"] == planned
    assert "deleted" in run("delete", "naps")
    assert "no schedule 'naps'" in run("show", "naps", fails=True)


def test_a_time_that_utc_has_not_is_a_usage_error():
    """Exit code 2 and a message, for a time that its offset puts after the year 9999."""
    args = ["--app", "yard", "schedules", "create", "naps", "yard.nap", "--every", "1h"]
    result = CliRunner().invoke(cli.main, [*args, "--until", "9999-12-31T23:59:59-05:00"])
    assert (result.exit_code, "1 to 9999 in UTC" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["yard.nap", "--cron", "0 0 30 2 *"], "never fires"),
        (["yard.nap", "--cron", "0 3 * * *", "--tz", "Mars/Olympus"], "no time zone"),
        (["yard.nap", "[1, 2, 3]", "--every", "1h"], "do not fit"),
        (["yard:lift", '["x"]', "--every", "1h"], "@workflow"),
        (["yard.nap"], "either cron"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(run, options, says):
    assert says in run("create", "bad", *options, fails=True)
