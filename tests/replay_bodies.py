"""
``python replay_bodies.py FOLDER``: replay the histories of ``bodies.flow`` in it, and print what that comes to.

Run by test_bodies.py in processes with different hash seeds.
"""

import hashlib
import logging
import sys
from pathlib import Path

import bodies  # noqa: F401  it registers the workflow
from deliveries import inside
from simulator import Simulator, plain, state


def summary(history: Simulator) -> str:
    """What each turn asks for when it is thought again, and all that a replay of the whole log holds."""
    turns = [plain(history.again(n), history.drawn) for n in range(len(history.turns))]
    assert turns == [plain(history.said(n), history.drawn) for n in range(len(history.turns))]
    replay = history.cold()
    known = (turns, state(replay), inside(replay))
    replay.park()
    return hashlib.sha256(repr(known).encode()).hexdigest()


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        print(path.stem, summary(Simulator.load(path)))
