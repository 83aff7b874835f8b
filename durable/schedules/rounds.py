"""What a process does for schedules in its rounds: it writes what its code declares, and fires if it has the lease."""

from __future__ import annotations

from ..engine import Engine
from ..store import schedules, workers
from . import declared
from .fire import fire_due

#: How often removed declarations are looked for: when the live processes have changed, and when they have not.
_LOOK_FOR_CHANGES = 5_000_000
_LOOK_ANYWAY = 60_000_000
#: How many batches one round fires.
_MOST_BATCHES = 6


class Rounds:
    """
    The schedules of one process.

    Attributes:
        next_at: When the next schedule is to be fired; None while this process does not fire, or nothing is planned.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._written: tuple[object, ...] = ()
        self._looked_at = self._compared_at = 0
        self._registered: set[str] | None = None
        self.next_at: int | None = None

    def write_declared(self) -> None:
        """Write what this process declares, unless it has done so."""
        current = tuple(declared.definitions.values())
        if current != self._written:
            declared.write_all(self._engine)
            self._written = current

    def fire(self, next_at: int | None) -> bool:
        """
        Fire what is due; for the process with the sweep's lease.  Returns whether there may be more.

        Args:
            next_at: When the next schedule is to be fired, as the database has just said.
        """
        engine = self._engine
        self._remove_absent()
        self.next_at = next_at
        if next_at is None or next_at > engine.now():
            return False
        # Bounded, so that the lease is renewed before it expires.
        has_more = all(fire_due(engine) for _ in range(_MOST_BATCHES))
        with engine.store.read() as tx:
            self.next_at = schedules.next_fire_at(tx)
        return has_more

    def rest(self) -> None:
        """Another process fires."""
        self.next_at = None

    def _remove_absent(self) -> None:
        """Remove what no live process declares."""
        now = self._engine.now()
        if now - self._compared_at < _LOOK_FOR_CHANGES:
            return
        self._compared_at = now
        with self._engine.store.read() as tx:
            registered = workers.registered(tx)
        if registered != self._registered or now - self._looked_at >= _LOOK_ANYWAY:
            declared.remove_absent(self._engine, registered)
            self._registered, self._looked_at = registered, now
