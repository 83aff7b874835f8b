"""
Server-Sent Events of a stream, as bytes.  Nothing here knows a web framework, so that each transport can send them.

An item is a message: its number is the ``id``, and its data is JSON.  A browser that has lost its connection sends the
last ``id`` again, as ``Last-Event-ID``, and gets the items after that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

#: The headers of an answer with events.  nginx must not collect them before it passes them on.
HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),
)

#: When nothing comes for so long, a comment is sent: proxies cut connections that are quiet for a minute.
PING_SECS = 15.0
PING = b": \n\n"

#: How long a browser waits before it connects again.
AGAIN = b"retry: 2000\n\n"

_LAST_ID = re.compile(r"-1|[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """
    What comes next in a stream.

    Attributes:
        items: By number, each item as an event.
        is_over: Whether nothing follows.
        is_cut: Whether the connection ends here, and the browser has to come back for what follows.
    """

    items: Sequence[tuple[int, bytes]] = ()
    is_over: bool = False
    is_cut: bool = False


class Feed(Protocol):
    """Where the events come from."""

    number: int

    def next(self, timeout_secs: float) -> EventBatch | None:
        """Wait for what comes next; None if nothing has come in time."""

    def close(self) -> None:
        """Read nothing more."""


def events(feed: Feed) -> Iterator[bytes]:
    """Yield what is sent, until the stream is over, or the connection has to end.  The caller closes the feed."""
    # At once, so that the browser knows that it is connected.
    yield AGAIN
    while True:
        batch = feed.next(PING_SECS)
        if batch is None:
            yield PING
            continue
        if batch.items:
            yield b"".join(event for _, event in batch.items)
        if batch.is_over:
            yield end(feed.number)
        if batch.is_over or batch.is_cut:
            return


def item(document: Mapping[str, Any]) -> bytes:
    """Return an item of a stream as an event."""
    # ensure_ascii keeps U+2028 out, and JSON has no line breaks.
    text = json.dumps(document, separators=(",", ":"), default=str)
    return f"id: {document['number']}\ndata: {text}\n\n".encode()


def end(number: int) -> bytes:
    """Return the event that ends a stream; *number* is that of the item which would follow."""
    return f"id: {number - 1}\nevent: end\ndata: {{}}\n\n".encode()


def start_after(last_event_id: str | None) -> int | None:
    """Return the number to go on with after this ``Last-Event-ID``; None without one, or if it is not ours."""
    match = _LAST_ID.fullmatch(last_event_id or "")
    return int(match[0]) + 1 if match else None
