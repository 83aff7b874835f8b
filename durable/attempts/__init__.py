"""
One attempt of a step: claim it, run the author's function, record the outcome.

Every write is guarded by the attempt's claim, so an attempt that was given up can record nothing.

Files, in import order::

    cancellation.py     how a running attempt learns that nobody wants its result any more
    doubt.py            puts an at-most-once attempt in doubt when its process is lost
    event_loop.py       the event loop on which ``async def`` steps run
    outcome.py          records an outcome, releases an attempt, or gives it up
    claim.py            claims the attempt that a message carries
    timeout.py          gives an attempt up whose time is over
    transaction.py      the transaction that a transactional step shares with its outcome
    running_attempt.py  what the author's function sees of its attempt
    attempt.py          runs one attempt from claim to record
"""

from .attempt import Body, Conclude, attempt, run_claimed
from .claim import Address, take_over_run
from .outcome import release
from .running_attempt import RunningAttempt

__all__ = [
    "Address",
    "Body",
    "Conclude",
    "RunningAttempt",
    "attempt",
    "release",
    "run_claimed",
    "take_over_run",
]
