"""
How far a process has come in each queue: it tells a message that was lost from one that only waits its turn.

Queues hand messages of one priority out in the order in which they were sent.  So when one was taken that was sent a
good while after another, the other would have been taken by now, if it were still there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any

#: The header of our messages, and the fields in it that say when the message was sent, and to which queue.
HEADER = "durable"
SENT = "sent"
QUEUE = "queue"

#: Messages of one queue and one priority, which do not overtake each other.  No queue: nobody knows which.
Line = tuple[str | None, int]


def header_of(request: Any) -> Mapping[str, Any]:
    """Our header of the message behind a Celery request; empty where there is none."""
    found = (request.headers or {}).get(HEADER) if request.headers else getattr(request, HEADER, None)
    return found if isinstance(found, Mapping) else {}


class Progress:
    """By queue and priority, when the latest message was sent that this process has taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[Line, int] = {}

    def note(self, request: Any) -> None:
        """Note a message that was taken.  The broker's routing key is not the queue: only the sender knows that."""
        header = header_of(request)
        sent, queue = header.get(SENT), header.get(QUEUE)
        if isinstance(sent, int) and isinstance(queue, str):
            line = (queue, (request.delivery_info or {}).get("priority") or 0)
            with self._lock:
                self._latest[line] = max(sent, self._latest.get(line, 0))

    def as_json(self) -> str:
        """What a beat says of it: ``[[queue, priority, sent], …]``."""
        with self._lock:
            return json.dumps([[*line, sent] for line, sent in self._latest.items()])


def furthest(told: Iterable[str | None]) -> dict[Line, int]:
    """The progress of all processes, from what each of them has told."""
    found: dict[Line, int] = {}
    for text in told:
        for queue, priority, sent in json.loads(text or "[]"):
            found[queue, priority] = max(sent, found.get((queue, priority), 0))
    return found
