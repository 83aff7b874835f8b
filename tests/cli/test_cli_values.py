"""``durable runs values``: what a run has published."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result
from driving import settle

from durable.cli import main


def values(*args: str) -> Result:
    return CliRunner().invoke(main, ["runs", "values", *args], prog_name="durable")


@pytest.fixture
def told(yard):
    """A run that has published two values, and goes on."""
    run = yard.engine.start(yard.module.telling, "c-1")
    settle(yard.engine, run)
    return run


def test_all_values_are_a_table_or_a_list(told):
    printed = values(told.id).stdout
    assert "c-1" in printed
    assert '{"kg": 7}' in printed
    listed = json.loads(values(told.id, "--json").stdout)
    assert [(each["name"], each["value"]) for each in listed] == [("crate", "c-1"), ("weight", {"kg": 7})]


def test_one_value_is_one_object(told):
    shown = json.loads(values(told.id[:20], "weight", "--json").stdout)
    assert (shown["name"], shown["value"]) == ("weight", {"kg": 7})


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["price"], 1, "has not published 'price'"),
        (["price", "--wait", "10ms"], 1, "has not published 'price'"),
        ([""], 2, "NAME"),
        (["--wait", "1s"], 2, "--wait needs the NAME"),
    ],
)
def test_what_there_is_not_is_told(told, args, code, said):
    done = values(told.id, *args)
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_a_run_that_has_ended_publishes_no_more(yard, told):
    told.cancel()
    settle(yard.engine, told)
    done = values(told.id, "price", "--wait", "1h")
    assert done.exit_code == 1
    assert "is cancelled and has not published 'price'" in done.output
    assert "c-1" in values(told.id, "crate").output


def test_an_unknown_run_is_told(yard):
    assert "There is no run" in values("ffff").output
