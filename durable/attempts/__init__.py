"""
One attempt of a step: claim it, call the author's function, record the outcome.

Every write needs the attempt's claim, so an attempt that was given up can record nothing.

Files, in import order::

    cancellation.py     how a running attempt learns that its call was given up
    in_doubt.py         puts an at-most-once attempt in doubt when its process is gone
    event_loop.py       the event loop of ``async def`` steps
    attempt_end.py      the event that ends an attempt
    outcome.py          records an outcome, releases an attempt, or gives it up
    claim.py            claims the attempt that a message carries
    timeout.py          gives up an attempt whose time is over
    transaction.py      the transaction that a transactional step shares with its outcome
    running_attempt.py  the running attempt, as the step's function sees it
    pause.py            pauses a limit, as an attempt's error asks for
    attempt.py          runs one attempt from claim to record
    go_on.py            what follows an attempt: the turn, and the next offered step
"""

from .attempt import Conclude, Finished, StepBody, attempt, run_claimed
from .attempt_end import AttemptEnd
from .claim import Address, take_over_run
from .go_on import go_on, record_gathered, record_in_place
from .outcome import release
from .running_attempt import RunningAttempt

__all__ = [
    "Address",
    "AttemptEnd",
    "Conclude",
    "Finished",
    "RunningAttempt",
    "StepBody",
    "attempt",
    "go_on",
    "record_gathered",
    "record_in_place",
    "release",
    "run_claimed",
    "take_over_run",
]
