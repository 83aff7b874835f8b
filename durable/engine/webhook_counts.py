"""
What the webhooks of a web process have refused and received twice, until it is added to their rows in the database.

Nothing is written while a request is answered: a sender that repeats itself, or that signs with the wrong secret, costs
no more than before.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .. import forks
from ..store import Refusals

#: How many webhooks and requests one process counts between two flushes; it forgets what comes beyond.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Counted:
    """By ``(run_id, op_id)``, what a webhook has refused; by id, how many copies of a request came."""

    refused: Mapping[tuple[str, str], Refusals]
    duplicates: Mapping[str, int]


class WebhookCounts:
    """What one process has counted and not yet written.  A child process begins with nothing."""

    def __init__(self) -> None:
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._refused: dict[tuple[str, str], Refusals] = {}
        self._duplicates: dict[str, int] = {}

    def refused(self, run_id: str, op_id: str, last: Refusals) -> None:
        """Count requests that a webhook has refused."""
        with self._lock:
            known = self._refused.get((run_id, op_id))
            if known is not None:
                last = replace(max(known, last, key=lambda each: each.at), count=known.count + last.count)
            elif len(self._refused) >= _MOST:
                return
            self._refused[run_id, op_id] = last

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
        for (run_id, op_id), refused in taken.refused.items():
            self.refused(run_id, op_id, refused)
        for request_id, count in taken.duplicates.items():
            self.duplicate(request_id, count)
