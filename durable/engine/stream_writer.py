"""
The stream writer: collects what the steps of this process emit, and writes many items in one transaction.

``put`` only adds to the buffer of its attempt.  A thread writes all buffers every ``INTERVAL_SECS``, while there is
something to write.  When a buffer is full, the step's own thread writes it: a step that emits faster than the database
takes items waits, and memory stays bounded.  ``finish`` writes the rest before the attempt's outcome is recorded.

While the database is unreachable, the writer tries again, as the record of an outcome does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from .. import forks, measures
from ..registry import StreamOptions
from ..sandbox import log_records
from ..store import Claim, NewItem, Store, emit_items, retry_until_available, streams

log = log_records.get("durable.streams")

#: Seconds between two transactions of the thread.
INTERVAL_SECS = 0.05
#: A buffer with so many items, or characters, is full.
MOST_ITEMS = streams.PAGE
MOST_CHARACTERS = 1024 * 1024
#: The most attempts whose items go into one transaction.
MOST_ATTEMPTS = 20


class Buffer:
    """What one attempt has emitted, and nobody has written yet."""

    def __init__(self, held: Claim) -> None:
        self.held = held
        #: Held while items are taken and written, so that they are written in order.
        self.writing = threading.Lock()
        self.error: Exception | None = None
        self._lock = threading.Lock()
        self._items: list[NewItem] = []
        self._characters = 0
        self._begun: set[str] = set()
        self._last_at = 0

    def add(self, name: str, item: str | None, options: StreamOptions, at: int) -> bool:
        """Add an item; whether the buffer is full then."""
        with self._lock:
            # No two items of an attempt have one time, so that a second try to write them finds those of the first.
            self._last_at = max(at, self._last_at + 1)
            self._items.append(NewItem(name, item, self._last_at, options, begins=name not in self._begun))
            self._begun.add(name)
            self._characters += len(item or "")
            return len(self._items) >= MOST_ITEMS or self._characters >= MOST_CHARACTERS

    def take(self) -> list[NewItem]:
        """Return the items, and empty the buffer."""
        with self._lock:
            items, self._items, self._characters = self._items, [], 0
            return items


class StreamWriter:
    """The stream writer of one process."""

    def __init__(
        self,
        store: Store,
        counts: measures.Measures,
        notify: Callable[[str], object],
        interval_secs: float | None = INTERVAL_SECS,
    ) -> None:
        """
        Args:
            counts: Counts the items that are written.
            notify: Called with the run that streams belong to, once their items are committed.
            interval_secs: None: no thread; items are written when a buffer is full, and at the end of the attempt.
        """
        self._store = store
        self._counts = counts
        self._notify = notify
        self._interval_secs = interval_secs
        self._begin()
        forks.call_in_child(self._begin)

    def _begin(self) -> None:
        """Start with nothing, in this process or in a child."""
        self._changed = threading.Condition(threading.Lock())
        self._buffers: dict[str, Buffer] = {}
        self._thread: threading.Thread | None = None
        self._has_new = False

    def put(self, held: Claim, name: str, item: str | None, options: StreamOptions) -> None:
        """
        Take what an attempt emits; None closes the stream.

        Raises:
            Exception: The database has refused an earlier item of the attempt.
        """
        buffer = self._buffers.get(held.claim)
        if buffer is None:
            with self._changed:
                buffer = self._buffers.setdefault(held.claim, Buffer(held))
        if buffer.error is not None:
            raise buffer.error
        if buffer.add(name, item, options, self._store.now()):
            self._write_one(buffer)
        elif not self._has_new and self._interval_secs is not None:
            self._wake()

    def finish(self, held: Claim) -> None:
        """Write what is left of an attempt.  Raises what ``put`` raises."""
        buffer = self._buffers.get(held.claim)
        if buffer is None:
            return
        try:
            self._write_one(buffer)
        finally:
            with self._changed:
                self._buffers.pop(held.claim, None)
        if buffer.error is not None:
            raise buffer.error

    def close(self) -> None:
        """End the thread; what attempts have emitted by then, they write themselves when they end."""
        with self._changed:
            self._thread = None
            self._changed.notify()

    # The thread

    def _wake(self) -> None:
        with self._changed:
            self._has_new = True
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="durable-streams", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    # Out of threads.  Attempts write their own items then, when a buffer is full and when they end.
                    log.warning("No thread could be started that writes the items of streams: %s", error)
                    return
                self._thread = thread
            self._changed.notify()

    def _run(self) -> None:
        assert self._interval_secs is not None
        while True:
            with self._changed:
                while not self._has_new and self._thread is threading.current_thread():
                    self._changed.wait()
                if self._thread is not threading.current_thread():
                    return
            time.sleep(self._interval_secs)
            with self._changed:
                self._has_new = False
                buffers = list(self._buffers.values())
            for first in range(0, len(buffers), MOST_ATTEMPTS):
                self._write_some(buffers[first : first + MOST_ATTEMPTS])

    def _write_some(self, buffers: Sequence[Buffer]) -> None:
        """Write what some attempts have emitted in one transaction; if that fails, each in its own."""
        # A buffer that its own attempt writes now is left out.
        locked = [buffer for buffer in buffers if buffer.writing.acquire(blocking=False)]
        try:
            batches = [(buffer, items) for buffer in locked if (items := buffer.take())]
            if not batches:
                return
            try:
                self._write([(buffer.held, items) for buffer, items in batches])
            except Exception:
                for buffer, items in batches:
                    self._write_items(buffer, items)
        finally:
            for buffer in locked:
                buffer.writing.release()

    # Writing

    def _write_one(self, buffer: Buffer) -> None:
        with buffer.writing:
            items = buffer.take()
            if items and buffer.error is None:
                self._write_items(buffer, items)

    def _write_items(self, buffer: Buffer, items: Sequence[NewItem]) -> None:
        """Write items of one attempt; note an error that does not pass for the attempt."""
        try:
            self._write([(buffer.held, items)])
        except Exception as error:
            buffer.error = error

    def _write(self, batches: Sequence[tuple[Claim, Sequence[NewItem]]]) -> None:
        """Write items in one transaction, once the database can be used."""
        tries = 0

        def write_all() -> list[emit_items.Written]:
            nonlocal tries
            tries += 1
            if len(batches) == 1 and tries == 1:
                return [emit_items.commit(self._store, *batches[0])]
            return self._store.write(
                lambda tx: [emit_items.write(tx, held, items, is_retry=tries > 1) for held, items in batches]
            )

        written = retry_until_available(write_all)
        for (held, items), each in zip(batches, written, strict=True):
            warn_of_dropped(held, each)
            if each.key is not None:
                count_emitted(self._counts, "step", items, each.dropped)
            if each.key is None:
                # The attempt was given up; its function may go on and never end it.
                self._buffers.pop(held.claim, None)
        for key in {each.key for each in written if each.key is not None}:
            self._notify(key)


def count_emitted(counts: measures.Measures, source: str, items: Iterable[NewItem], dropped: Mapping[str, int]) -> None:
    """
    Count items that are committed.

    Args:
        source: What has emitted them: "step" or "workflow".
        dropped: Of streams that ended before the last of them, how many were written.
    """
    seen: Counter[str] = Counter()
    texts = []
    for each in items:
        seen[each.name] += 1
        if each.item is not None and seen[each.name] <= dropped.get(each.name, seen[each.name]):
            texts.append(each.item)
    if texts:
        counts.count(measures.STREAM_ITEMS, source, by=len(texts))
        # JSON is ASCII here.
        counts.count(measures.STREAM_BYTES, source, by=sum(map(len, texts)))


def warn_of_dropped(held: Claim, written: emit_items.Written) -> None:
    """Log what was emitted to a stream after its end."""
    for name in sorted(written.dropped):
        log.warning(
            "Step %s of run %s has emitted to the stream %r after its end: it is dropped.",
            held.name,
            held.run_id,
            name,
        )
