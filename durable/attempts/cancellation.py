"""
How an attempt that runs learns that its call was given up.

The turn that gives a call up marks the step's row.  An attempt sees the mark
when it asks for it (``get_step_metadata().cancelled``).  One that can be
interrupted, the coroutine of an ``async def`` step, is interrupted by the
housekeeping of its process, which looks for marks at each of its rounds.
"""

from __future__ import annotations

import time

from ..engine import Engine
from ..store import Claim, claims, is_unavailable, steps

#: An attempt that asks in a loop costs the database one query in this time.
LOOK_EVERY_SECS = 0.5


class Watch:
    """Whether anybody still wants the outcome of a running attempt.  Once it is given up, it stays so."""

    def __init__(self, engine: Engine, held: Claim) -> None:
        self._engine = engine
        self._held = held
        #: What the last look said.
        self.given_up = False
        self._looked_at = float("-inf")

    def is_given_up(self) -> bool:
        """What the last look said, if that was a moment ago; else what a new one says."""
        if not self.given_up and time.monotonic() - self._looked_at >= LOOK_EVERY_SECS:
            self.look()
        return self.given_up

    def look(self) -> bool:
        """Ask the database.  While it is away, nothing is known to be given up."""
        self._looked_at = time.monotonic()
        try:
            with self._engine.store.read() as tx:
                self.given_up = self.given_up or not claims.is_wanted(tx, self._held)
        except Exception as error:
            if not is_unavailable(error):
                raise
        return self.given_up


def interrupt(engine: Engine) -> None:
    """Interrupt what runs here for calls that were given up; each once, so that it may clean up in peace."""
    if not engine.interrupts:
        return
    with engine.store.read() as tx:
        given_up = steps.cancelled_claims(tx, engine.process_id)
    for claim in given_up:
        act = engine.interrupts.pop(claim, None)
        if act is not None:
            act()
