"""
Progress: when the latest message was sent that a process has taken from each queue.

It tells a lost message from one that waits in a long queue.  A queue delivers messages of one priority in the order in
which they were sent.  So when a message was taken that was sent well after another one, the other one is lost, or it
would have been taken too.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any

#: The header of our messages, and its fields: when the message was sent, and to which queue.
HEADER = "durable"
SENT = "sent"
QUEUE = "queue"

#: A queue and a priority: messages of one line do not overtake each other.  None: the queue is not known.
Line = tuple[str | None, int]


def header_of(request: Any) -> Mapping[str, Any]:
    """Our header of the message of a Celery request; empty when it has none."""
    found = (request.headers or {}).get(HEADER) if request.headers else getattr(request, HEADER, None)
    return found if isinstance(found, Mapping) else {}


class Progress:
    """For each queue and priority, when the latest message was sent that this process has taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[Line, int] = {}

    def note(self, request: Any) -> None:
        """Record that a message was taken.  Only its sender knows its queue: the routing key is another word."""
        header = header_of(request)
        sent, queue = header.get(SENT), header.get(QUEUE)
        if isinstance(sent, int) and isinstance(queue, str):
            line = (queue, (request.delivery_info or {}).get("priority") or 0)
            with self._lock:
                self._latest[line] = max(sent, self._latest.get(line, 0))

    def as_json(self) -> str:
        """What a heartbeat writes down: ``[[queue, priority, sent], …]``."""
        with self._lock:
            return json.dumps([[*line, sent] for line, sent in self._latest.items()])


def furthest(reported: Iterable[str | None]) -> dict[Line, int]:
    """The progress of all processes together, from what each has written down."""
    found: dict[Line, int] = {}
    for text in reported:
        for queue, priority, sent in json.loads(text or "[]"):
            found[queue, priority] = max(sent, found.get((queue, priority), 0))
    return found
