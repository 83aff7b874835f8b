"""How often the thread of held connections reads SQL: seldom while notifications arrive, else often for a while."""

from __future__ import annotations

#: Seconds between two reads while notifications arrive, and between two checks of the clients.
SLOW_SECS = 1.0
#: Seconds between two reads while none arrive: for ``FAST_FOR_SECS`` after something new, and after that.
FAST_SECS = 0.05
FAST_FOR_SECS = 2.0
STEADY_SECS = 0.25


class Pace:
    """The pace of the reads of one kind.  Times are of the monotonic clock."""

    def __init__(self) -> None:
        self._fast_until = 0.0

    def quicken(self, now: float) -> None:
        """Read often for a while: something is new."""
        self._fast_until = now + FAST_FOR_SECS

    def secs(self, now: float, *, has_notifications: bool) -> float:
        """Return the seconds until the next read."""
        if has_notifications:
            return SLOW_SECS
        return FAST_SECS if now < self._fast_until else STEADY_SECS
