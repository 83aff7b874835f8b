"""``durable runs stream``: the streams of a run, and their items."""

from __future__ import annotations

import json
import threading

import pytest
from click.testing import CliRunner, Result
from driving import settle

from durable import resume_hook
from durable.cli import main


def stream(*args: str) -> Result:
    return CliRunner().invoke(main, ["runs", "stream", *args], prog_name="durable")


@pytest.fixture
def counted(yard):
    """A run that has emitted three items, and goes on."""
    run = yard.engine.start(yard.module.counting, "c-9")
    settle(yard.engine, run)
    yield run
    run.cancel()
    settle(yard.engine, run)


def test_streams_are_a_table_or_a_list(counted):
    printed = stream(counted.id).stdout
    assert [word for word in ("lifts", "3", "open") if word not in printed] == []
    (listed,) = json.loads(stream(counted.id, "--json").stdout)
    assert (listed["name"], listed["items"], listed["is_over"]) == ("lifts", 3, False)


def test_items_are_a_line_each(counted):
    printed = stream(counted.id[:20], "lifts", "--start", "1").stdout.splitlines()
    assert printed == ['1  {"crate": "c-9", "lift": 1}', '2  {"crate": "c-9", "lift": 2}']
    lines = [json.loads(line) for line in stream(counted.id, "lifts", "--json").stdout.splitlines()]
    assert [(each["number"], each["item"]["lift"], each["step"]) for each in lines] == [(n, n, None) for n in range(3)]
    assert stream(counted.id, "nothing").stdout == ""


def test_follow_prints_what_comes_until_the_stream_is_over(yard, counted):
    def go_on() -> None:
        resume_hook("count-c-9", None)
        settle(yard.engine, counted)

    later = threading.Timer(0.3, go_on)
    later.start()
    done = stream(counted.id, "lifts", "--follow", "--start", "2", "--interval", "100ms")
    later.join()
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ['2  {"crate": "c-9", "lift": 2}', "3  last"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--follow"], 2, "need the NAME"),
        (["--start", "1"], 2, "need the NAME"),
        ([" x"], 2, "no spaces"),
        (["lifts", "--start", "-1"], 2, "--start"),
    ],
)
def test_what_is_asked_wrongly_is_said(counted, args, code, said):
    done = stream(counted.id, *args)
    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_streams_of_an_unknown_run(yard):
    assert "There is no run" in stream("ffff").output
