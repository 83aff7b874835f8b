"""
Progress: for each queue, when the latest message that a process has taken was sent.

It distinguishes a lost message from one that waits in a long queue.  A queue delivers messages of one priority in the
order in which they were sent.  So if a worker has taken a message that was sent well after another one, and the other
one was not taken, the other one is lost.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any

#: The header of our messages, and its fields: the sender's installation, when the message was sent, to which queue, how
#: often it was sent on by a worker that did not know its name, and whether steps of the run are offered.
HEADER = "durable"
INSTALLATION = "installation"
SENT = "sent"
QUEUE = "queue"
HOPS = "hops"
OFFERS = "offers"

#: A queue and a priority: messages of one route do not overtake each other.  None: the queue is not known.
Route = tuple[str | None, int]


def header_of(request: Any) -> Mapping[str, Any]:
    """Our header of the message of a Celery request; empty when it has none."""
    found = (request.headers or {}).get(HEADER) if request.headers else getattr(request, HEADER, None)
    return found if isinstance(found, Mapping) else {}


def hops_of(request: Any) -> int:
    """How often the message of a Celery request was sent on."""
    found = header_of(request).get(HOPS)
    return found if isinstance(found, int) else 0


class Progress:
    """For each queue and priority, when the latest message was sent that this process has taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: dict[Route, int] = {}

    def note(self, request: Any) -> None:
        """Record that a message was taken.  Only its sender knows its queue: the routing key is another word."""
        header = header_of(request)
        sent, queue = header.get(SENT), header.get(QUEUE)
        if isinstance(sent, int) and isinstance(queue, str):
            route = (queue, (request.delivery_info or {}).get("priority") or 0)
            with self._lock:
                self._latest[route] = max(sent, self._latest.get(route, 0))

    def as_json(self) -> str:
        """What a heartbeat writes down: ``[[queue, priority, sent], …]``."""
        with self._lock:
            return json.dumps([[*route, sent] for route, sent in self._latest.items()])


def furthest(reported: Iterable[str | None]) -> dict[Route, int]:
    """The progress of all processes together, from what each has written down."""
    found: dict[Route, int] = {}
    for text in reported:
        for queue, priority, sent in json.loads(text or "[]"):
            found[queue, priority] = max(sent, found.get((queue, priority), 0))
    return found
