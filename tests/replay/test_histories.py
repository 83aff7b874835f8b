"""Recorded logs, replayed for ever: tests/programs.py says how each came about."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from simulator import Simulator, plain, plain_outcome, state

from durable import codec, events

PATHS = sorted(programs.HISTORIES.glob("*.json"))


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def history(request) -> Simulator:
    return Simulator.load(request.param)


def test_every_recording_has_its_history():
    """A program added to programs.py comes with the log of a run."""
    assert sorted(programs.RECORDINGS) == [path.stem for path in PATHS]


@pytest.mark.parametrize("name", programs.RECORDINGS)
def test_a_run_of_today_writes_the_log_that_was_recorded(name):
    """The same events in the same order, on every Python."""
    recorded = Simulator.load(programs.HISTORIES / f"{name}.json")

    live = programs.RECORDINGS[name]()

    assert plain(recorded.log, recorded.drawn) == plain(live.log, live.drawn)


def test_a_finished_log_asks_for_nothing_and_ends_as_it_did(history):
    """Replaying the whole of it gives no command, no fault, and the recorded outcome."""
    replay = history.cold()

    assert replay.fault is None
    assert replay.take() == []
    assert recorded_end(history) == plain_outcome(replay.outcome)


def test_every_prefix_asks_for_what_was_recorded_after_it(history):
    """At each turn: fed the log before it and its news, a fresh replay asks for what the log holds next."""
    for n in range(len(history.turns)):
        assert plain(history.said(n), history.drawn) == plain(history.again(n), history.drawn)


def test_turn_by_turn_is_the_same_as_all_at_once(history):
    """A replay that is kept, and fed each turn's part of the log, ends as a fresh one does."""
    kept = history.replay()
    for n in range(len(history.turns)):
        kept.feed(history.said(n), history.requests)
        assert kept.take() == []

    assert recorded_end(history) == plain_outcome(kept.outcome)
    assert state(history.cold()) == state(kept)


@pytest.mark.slow
def test_histories_are_the_same_under_every_hash_seed():
    """Sets of tasks, of strings in arguments: nothing depends on PYTHONHASHSEED."""
    for seed in ("1", "4711"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                __file__,
                "-k",
                "prefix or today",
            ],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def recorded_end(history: Simulator):
    """The recorded outcome, as ``plain_outcome`` has it."""
    match history.log[-1]:
        case events.RunCompleted(result=result):
            return "completed", result
        case events.RunFailedEvent(error=error):
            summary = codec.error_summary(error)
            return "failed", (summary.error_type, summary.message)
        case events.RunCancelledEvent(error=None):
            return "cancelled", None
    raise AssertionError(history.log[-1])
