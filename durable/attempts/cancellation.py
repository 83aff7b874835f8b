"""
How a running attempt learns that its call was given up.

The turn that gives a call up marks the step's row.  A step sees the mark when it asks for it
(``get_step_metadata().cancelled``).  The coroutine of an ``async def`` step is cancelled by its process's
housekeeping, which reads the marks in each of its rounds.
"""

from __future__ import annotations

import time

from ..engine import Engine
from ..store import Claim, claims, is_unavailable, steps

#: A step that asks in a loop costs the database one query in this time.
CHECK_EVERY_SECS = 0.5


class CancellationCheck:
    """
    Tells whether a running attempt's call was given up.

    Attributes:
        given_up: What the last check found.  Once it is true it stays true.
    """

    def __init__(self, engine: Engine, held: Claim) -> None:
        self._engine = engine
        self._held = held
        self.given_up = False
        self._checked_at = float("-inf")

    def is_given_up(self) -> bool:
        """Return what the last check found, if it is recent; else check again."""
        if not self.given_up and time.monotonic() - self._checked_at >= CHECK_EVERY_SECS:
            self.check()
        return self.given_up

    def check(self) -> bool:
        """Ask the database.  While that is unreachable, the answer stays what it was."""
        self._checked_at = time.monotonic()
        try:
            with self._engine.store.read() as tx:
                self.given_up = self.given_up or not claims.is_wanted(tx, self._held)
        except Exception as error:
            if not is_unavailable(error):
                raise
        return self.given_up


def interrupt(engine: Engine) -> None:
    """Cancel the coroutines of this process whose calls were given up; each once, so that its cleanup can finish."""
    if not engine.interrupts:
        return
    with engine.store.read() as tx:
        given_up = steps.cancelled_claims(tx, engine.process_id)
    for claim in given_up:
        cancel = engine.interrupts.pop(claim, None)
        if cancel is not None:
            cancel()
