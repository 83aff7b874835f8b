"""
Bodies that Hypothesis writes, with their news in every order it likes: every replay agrees with every other.

``HYPOTHESIS_PROFILE=long`` tries many more, and others each time.
"""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from bodies_drawn import programs
from deliveries import World, leftovers, scripts
from hypothesis import HealthCheck, Phase, given, settings
from simulator import plain, state

from durable.replay.hooks import Hook
from durable.replay.loop import DurableLoop

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

fixed = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
profile = settings(fixed, max_examples=30_000, derandomize=False) if LONG else fixed

pytestmark = [
    pytest.mark.timeout(0 if LONG else 600),
    # A `finally` that awaits gather() of coroutines is refused at the first of them, while it is put away.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def _young_heap():
    """What earlier tests have left is not looked at again by every collection: these tests make much garbage."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quiet():
    """Bodies end with errors all the time, and say so."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.slow
def test_c95_whatever_is_written_and_however_news_come_all_replays_agree():
    """
    After each turn, a kept replay and a fresh one make the same decisions, and so does each turn repeated from its log.

    ``World`` checks after each turn that no replay diverged or raised an unexpected error, that payloads are
    received or queued in the order in which they were sent, none lost or doubled, and that exactly those
    operations are open in the log that the program still awaits: cancelled timers and steps are withdrawn.
    """
    loops: weakref.WeakSet[DurableLoop] = weakref.WeakSet()

    @profile
    @given(programs, scripts)
    def agree(program, script):
        world = World(program).play(script)
        loops.add(world.kept._loop)
        followed = world.replay()
        for n in range(len(world.turns)):
            assert plain(world.said(n), world.drawn) == plain(world.again(n), world.drawn)
            followed.feed(world.said(n), world.requests, replaying=True)
            assert followed.take() == []
        assert state(followed) == state(world.kept)
        followed.park()
        world.kept.park()
        assert leftovers(world.kept) == leftovers(followed) == []

    agree()
    gc.collect()
    assert len(loops) <= 1, "parked workflows are still in memory"


@pytest.mark.slow
def test_histories_of_written_bodies_replay_alike_under_every_hash_seed(tmp_path):
    """Two processes, in which sets and dicts of strings iterate otherwise, think the same at every turn."""

    @settings(fixed, max_examples=80, phases=[Phase.generate])
    @given(programs, scripts)
    def record(program, script):
        world = World(program).play(script)
        world.kept.park()
        world.save(tmp_path / f"{len(list(tmp_path.iterdir())):03}.json")

    record()
    said = [_replayed_elsewhere(tmp_path, seed) for seed in ("1", "4711")]

    assert len(said[0].splitlines()) == 80
    assert said[0] == said[1]


def _replayed_elsewhere(folder: Path, hash_seed: str) -> str:
    script = Path(__file__).parents[1] / "replay_bodies.py"
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _last_first(hook, received):
    hook._buffer.appendleft(received)
    hook._wake()


def _take_both(hook, received):
    hook._buffer.extend([received, received])
    hook._wake()


def _swallow(hook, received):
    hook._wake_all()


def _forget(hook):
    hook._buffer.clear()


BREAKAGES = {
    "a timer that lost is not withdrawn": (DurableLoop, "withdraw", lambda loop, op_id: None),
    "payloads are delivered last first": (Hook, "put", _last_first),
    "payloads are doubled": (Hook, "put", _take_both),
    "payloads are lost": (Hook, "put", _swallow),
    "a hook that is closed forgets what is queued": (Hook, "_wake_all", _forget),
}


@pytest.mark.slow
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_the_bodies_find_what_is_broken_on_purpose(breakage, monkeypatch):
    """The same examples as above, and a mistake in the library: one of them fails."""
    owner, name, broken = BREAKAGES[breakage]
    monkeypatch.setattr(owner, name, broken)

    @settings(fixed, phases=[Phase.generate])
    @given(programs, scripts)
    def play(program, script):
        World(program).play(script).kept.park()

    with pytest.raises(AssertionError):
        play()
