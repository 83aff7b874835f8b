"""TODO"""

from .attempt import Body, Conclude, attempt, run_claimed
from .claim import Address, take_over_run
from .outcome import hand_back
from .running_attempt import RunningAttempt

__all__ = [
    "Address",
    "Body",
    "Conclude",
    "RunningAttempt",
    "attempt",
    "hand_back",
    "run_claimed",
    "take_over_run",
]
