"""What followers read: the items of streams from SQL, each as an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from ..client import streams as client_streams
from ..engine import Engine
from ..store import StoredItem, streams
from . import event_stream
from .event_stream import EventBatch
from .followers import StreamName, StreamNews

#: How many streams one statement reads.
_AT_ONCE = 100


class StreamSource:
    """Reads the streams of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, stream: StreamName, number: int) -> EventBatch:
        """Return some items from a number on."""
        with self._engine.store.read() as tx:
            # The head first: what is emitted before the end is there when the head says that the stream is over.
            head = streams.heads(tx, [stream])[stream]
            found = [] if number >= head.next_number else streams.page(tx, streams.StreamPlace(*stream, number))
            items = _events(tx, stream, found)
        following = found[-1].number + 1 if found else max(number, head.next_number)
        return EventBatch(items, is_over=head.is_over and following >= head.next_number)

    def news(self, places: Mapping[StreamName, int]) -> dict[StreamName, StreamNews]:
        """Return what is new in streams, each from a number on; nothing of a stream that has nothing new."""
        news: dict[StreamName, StreamNews] = {}
        wanted = list(places)
        with self._engine.store.read() as tx:
            for at in range(0, len(wanted), _AT_ONCE):
                heads = streams.heads(tx, wanted[at : at + _AT_ONCE])
                # Those that are further behind read by themselves.
                first = {each: max(places[each], head.next_number - streams.PAGE) for each, head in heads.items()}
                new = [each for each, head in heads.items() if head.next_number > first[each]]
                read = [streams.StreamPlace(*each, first[each]) for each in new]
                found = streams.pages(tx, read, streams.PAGE * len(read)) if read else {}
                for each, head in heads.items():
                    items = _events(tx, each, found.get(each, ()))
                    # What was emitted since the head was read may be there too, and then more may follow.
                    is_over = head.is_over and (not items or items[-1][0] < head.next_number)
                    if items or is_over:
                        news[each] = StreamNews(first[each], items, is_over)
        return news


def _events(tx: Connection, stream: StreamName, found: Sequence[StoredItem]) -> list[tuple[int, bytes]]:
    """Return items as events.  One that cannot be read here says why."""
    return [
        (
            each.number,
            event_stream.item(client_streams.as_json(each, client_streams.plain(tx, *stream, each))),
        )
        for each in found
    ]
