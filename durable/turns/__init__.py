"""
One turn of a run: read the run and its inbox, replay, write what was decided, send messages.

``drive`` is the way in.  Two turns of one run at once are harmless: the commit of the second fails its fence.

Files, in import order::

    decision.py      what a turn decides, and what its commit has to send
    children.py      child runs: begun, cancelled, and their end reported to the parent
    run_end.py       a run's last turn: hooks close, and open requests are answered
    commit.py        writes a decision in one transaction
    continuation.py  goes on with a run in place, instead of sending a message
    view.py          what a turn reads
    decide.py        replays the view, and decides
    poison.py        counts turns that end their process, and blocks the run after three
    drive.py         drives a run until nothing is new
    wake.py          records that a wait is over
"""

from .continuation import Continuation
from .drive import conclude, drive, take_in

__all__ = [
    "Continuation",
    "conclude",
    "drive",
    "take_in",
]
