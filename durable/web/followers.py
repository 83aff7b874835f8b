"""
Followers: the connections of one process that read streams, and how each gets what is new.

A follower that is behind reads from SQL in its own thread, page by page.  One that has everything waits.  The hub's
thread then reads for all that wait: one SELECT finds which streams have something new, and one reads that.  Followers
of one stream share what was read.  So a waiting follower keeps no database connection and no items in memory.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..broker import SUBSCRIPTION_SECS, Notifier
from .event_stream import EventBatch
from .pace import Pace

log = logging.getLogger("durable.web")

#: A stream: the run that it belongs to, and its name.
StreamName = tuple[str, str]

#: Tells a follower that it is behind, and has to read by itself.
BEHIND = EventBatch()
_CUT = EventBatch(is_cut=True)


@dataclass(frozen=True, slots=True)
class StreamNews:
    """
    What is new in a stream.

    Attributes:
        first: The number from which on it is complete.
        items: By number, each item as an event.
        is_over: Whether nothing follows.
    """

    first: int
    items: Sequence[tuple[int, bytes]]
    is_over: bool


class Source(Protocol):
    """What followers read; ``StreamSource`` reads it from SQL."""

    def page(self, stream: StreamName, number: int) -> EventBatch:
        """Return some items from a number on."""

    def news(self, places: Mapping[StreamName, int]) -> dict[StreamName, StreamNews]:
        """Return what is new in streams, each from a number on; nothing of a stream that has nothing new."""


class Follower:
    """
    One connection that reads a stream.

    Attributes:
        number: The number of the next item.
        is_waiting: Whether it waits for the hub's thread.
        version: How often there was a notification of the run before the last read.
    """

    def __init__(self, owner: Followers, stream: StreamName, number: int, is_gone: Callable[[], bool]) -> None:
        self.stream = stream
        self.number = number
        self.is_gone = is_gone
        self.is_waiting = False
        self.version = 0
        self._owner = owner
        self._is_behind = True
        # The class is looked up here, because gevent may have replaced it since the import.
        self.box: queue.SimpleQueue[EventBatch] = queue.SimpleQueue()
        self._call: Callable[[], object] | None = None

    def next(self, timeout_secs: float) -> EventBatch | None:
        """Wait for what comes next; None if nothing has come in time."""
        while True:
            if self._is_behind:
                self.version = self._owner.version(self.stream)
                try:
                    batch = self._owner.source.page(self.stream, self.number)
                except Exception as error:
                    # The browser comes back for the rest.
                    log.warning("A stream cannot be read: %s", type(error).__name__)
                    return _CUT
                if batch.items or batch.is_over:
                    return self._taken(batch)
                self._is_behind = False
            self._owner.wait(self)
            try:
                batch = self.box.get(timeout=timeout_secs)
            except queue.Empty:
                return None
            if batch is not BEHIND:
                return self._taken(batch)
            self._is_behind = True

    def put(self, batch: EventBatch) -> None:
        """Give it what comes next, from any thread."""
        self.box.put(batch)
        if self._call is not None:
            self._call()

    def when_ready(self, call: Callable[[], object]) -> None:
        """Call *call* once there is something next, on any thread; it may be called more than once."""
        self._call = call
        # It may have come before the line above.
        if not self.box.empty():
            call()

    def close(self) -> None:
        """Read nothing more; another connection may follow in its place."""
        self._owner.remove(self)

    def _taken(self, batch: EventBatch) -> EventBatch:
        if batch.items:
            self.number = batch.items[-1][0] + 1
        return batch


class Followers:
    """
    The followers of one process.

    Args:
        source: Reads streams.
        notifier: Delivers notifications; each is the id of a run that has emitted something.
        holder: The name of this process's inbox.
        wake: Makes the hub's thread call ``deliver`` now.
    """

    def __init__(self, source: Source, notifier: Notifier, holder: str, wake: Callable[[], object]) -> None:
        self.source = source
        self._notifier = notifier
        self._holder = holder
        self._wake = wake
        self._lock = threading.Lock()
        self._followers: set[Follower] = set()
        #: By run, how many follow it, when it was subscribed to, and how often there was a notification of it.
        self._runs: Counter[str] = Counter()
        self._subscribed: dict[str, float] = {}
        self._versions: Counter[str] = Counter()
        #: Runs of which there was a notification since the last read.
        self._notified: set[str] = set()
        #: Whether the last read failed, so that an outage is logged once.
        self._failing = False
        self._pace = Pace()
        #: When to read next, by the monotonic clock.
        self._read_at = 0.0

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def read_at(self) -> float:
        """When to call ``deliver`` next."""
        return self._read_at

    def add(self, stream: StreamName, number: int, is_gone: Callable[[], bool]) -> Follower:
        """Return a new follower; call ``subscribe`` before it reads."""
        follower = Follower(self, stream, number, is_gone)
        with self._lock:
            self._followers.add(follower)
            self._runs[stream[0]] += 1
        return follower

    def remove(self, follower: Follower) -> None:
        """Forget a follower."""
        key = follower.stream[0]
        with self._lock:
            if follower not in self._followers:
                return
            self._followers.discard(follower)
            self._runs[key] -= 1
            if not self._runs[key]:
                for each in (self._runs, self._subscribed, self._versions):
                    each.pop(key, None)

    def version(self, stream: StreamName) -> int:
        """How often there was a notification of the stream's run."""
        return self._versions.get(stream[0], 0)

    def wait(self, follower: Follower) -> None:
        """Let a follower wait that has read all there was."""
        with self._lock:
            if not follower.box.empty():
                return
            follower.is_waiting = True
            if follower.version == self.version(follower.stream):
                return
            # Something came while it was reading.
            self._notified.add(follower.stream[0])
        self._wake()

    def notify(self, run_id: str) -> None:
        """Read the streams of this run now."""
        with self._lock:
            if run_id not in self._runs:
                return
            self._versions[run_id] += 1
            self._notified.add(run_id)
        self._wake()

    def release(self, is_gone: Callable[[Follower], bool]) -> None:
        """End the connections of these followers."""
        with self._lock:
            followers = tuple(self._followers)
        for follower in followers:
            if is_gone(follower):
                follower.put(_CUT)
                self.remove(follower)

    def deliver(self, now: float) -> None:
        """Read what is new for all that wait, if that is due, else of runs that a notification named."""
        with self._lock:
            notified, self._notified = self._notified, set()
            is_due = now >= self._read_at
            next_at = now + self._pace.secs(now, has_notifications=self._notifier.healthy)
            self._read_at = next_at if is_due else min(self._read_at, next_at)
            waiting = [each for each in self._followers if each.is_waiting and (is_due or each.stream[0] in notified)]
            versions = dict(self._versions)
        if is_due:
            self.subscribe(list(self._runs))
        if not waiting:
            return
        places: dict[StreamName, int] = {}
        for each in waiting:
            places[each.stream] = min(each.number, places.get(each.stream, each.number))
        try:
            news = self.source.news(places)
        except Exception as error:
            # The connections stay: the database may be back in time.
            if not self._failing:
                log.warning("Streams cannot be read: %s", type(error).__name__)
            self._failing = True
            return
        self._failing = False
        if news:
            self._pace.quicken(now)
        for each in waiting:
            if each.stream in news:
                self._give(each, news[each.stream], versions.get(each.stream[0], 0))

    def subscribe(self, keys: Sequence[str]) -> None:
        """Subscribe to runs, again when the subscription expires soon."""
        now = time.monotonic()
        for key in keys:
            if now - self._subscribed.get(key, -SUBSCRIPTION_SECS) > SUBSCRIPTION_SECS / 2:
                self._subscribed[key] = now
                self._notifier.subscribe(key, self._holder)

    def _give(self, follower: Follower, news: StreamNews, version: int) -> None:
        """Give a follower the part of the news that it lacks."""
        batch = BEHIND
        if follower.number >= news.first:
            missing = [each for each in news.items if each[0] >= follower.number]
            if not missing and not news.is_over:
                return
            batch = EventBatch(missing, is_over=news.is_over)
        with self._lock:
            follower.is_waiting = False
            follower.version = version
            follower.put(batch)
