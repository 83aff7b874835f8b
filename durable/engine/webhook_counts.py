"""
What webhooks and receivers of a web process have refused and received twice, until it is added to the database.

Nothing is written while a request is answered: a sender that repeats itself, or that signs with the wrong secret, costs
no more than before.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .. import forks
from ..store import Refusals

#: A webhook by its run and operation, or a receiver by its name alone.
Place = tuple[str, str] | str

#: How many webhooks and requests one process counts between two flushes; it forgets what comes beyond.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Counted:
    """What webhooks and receivers have refused; by id, how many copies of a request came."""

    refused: Mapping[Place, Refusals]
    duplicates: Mapping[str, int]

    @property
    def by_webhook(self) -> dict[tuple[str, str], Refusals]:
        """What webhooks have refused."""
        return {place: each for place, each in self.refused.items() if not isinstance(place, str)}

    @property
    def by_receiver(self) -> dict[str, Refusals]:
        """What receivers have refused."""
        return {place: each for place, each in self.refused.items() if isinstance(place, str)}


class WebhookCounts:
    """What one process has counted and not yet written.  A child process begins with nothing."""

    def __init__(self) -> None:
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[Place, Refusals] = {}
        self._duplicates: dict[str, int] = {}

    def refused(self, place: Place, last: Refusals) -> None:
        """Count requests that a webhook or a receiver has refused."""
        with self._lock:
            known = self._refused.get(place)
            if known is not None:
                last = replace(max(known, last, key=lambda each: each.at), count=known.count + last.count)
            elif len(self._refused) >= _MOST:
                return
            self._refused[place] = last

    def duplicate(self, request_id: str, by: int = 1) -> None:
        """Count copies of a request."""
        with self._lock:
            if request_id in self._duplicates or len(self._duplicates) < _MOST:
                self._duplicates[request_id] = self._duplicates.get(request_id, 0) + by

    def take(self) -> Counted:
        """Return what was counted since the last call, and begin anew."""
        with self._lock:
            taken = Counted(self._refused, self._duplicates)
            self._refused, self._duplicates = {}, {}
        return taken

    def put_back(self, taken: Counted) -> None:
        """Count again what could not be written."""
        for place, refused in taken.refused.items():
            self.refused(place, refused)
        for request_id, count in taken.duplicates.items():
            self.duplicate(request_id, count)
