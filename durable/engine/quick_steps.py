"""Which steps are quick, as this process knows from running them in place."""

from __future__ import annotations

#: A step that takes less is quick, in seconds, with all that its Celery task does.
QUICK_SECS = 0.006


class QuickSteps:
    """By name, whether a step was quick when this process ran it last."""

    def __init__(self) -> None:
        self._quick: set[str] = set()

    def note(self, name: str, secs: float) -> None:
        """Note how long the task of an attempt took."""
        if secs < QUICK_SECS:
            self._quick.add(name)
        else:
            self._quick.discard(name)

    def has(self, name: str) -> bool:
        """Whether the step is known to be quick."""
        return name in self._quick
