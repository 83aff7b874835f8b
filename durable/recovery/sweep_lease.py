"""
The sweep's lease: one process at a time sweeps, and any other one can take its place.

The more processes there are, the less often each of them looks whether the lease is free.
"""

from __future__ import annotations

from random import Random

from ..engine import Engine
from ..store import workers

LEASE = "sweep"
#: How many processes look in each interval of the sweep, all together.
_LOOKING = 4


class LeaseOfSweep:
    """
    The lease as one process sees it.

    Attributes:
        is_held: Whether this process has it.
    """

    def __init__(self, engine: Engine, draw: Random) -> None:
        """
        Args:
            draw: Keeps processes that started together from staying in step.
        """
        self.is_held = False
        self._engine = engine
        self._draw = draw
        self._looks_at = 0

    def take(self) -> bool:
        """Take or renew the lease.  Returns whether this process has it."""
        engine, now = self._engine, self._engine.now()
        interval = engine.settings.sweep_interval
        if not self.is_held:
            if now < self._looks_at:
                return False
            with engine.store.read() as tx:
                seen = workers.look_at_lease(tx, LEASE)
            if seen is not None and seen.expires_at >= now and seen.owner != engine.process_id:
                self._looks_at = now + self._wait(seen.processes)
                return False
        self.is_held = workers.take_lease(engine.store, LEASE, engine.process_id, now, 3 * interval)
        return self.is_held

    def _wait(self, processes: int) -> int:
        """Return how long to wait before the next look; 0 where each process looks in each round."""
        settings = self._engine.settings
        # However many die at once, one of the others takes the lease in about the time in which they count as dead.
        longest = settings.dead_after // 2
        wait = min(longest, settings.sweep_interval * processes // _LOOKING)
        return int(wait * self._draw.uniform(0.8, 1.0)) if wait > settings.sweep_interval else 0
