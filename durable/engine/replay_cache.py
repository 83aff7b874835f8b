"""
The replay cache: replays that a process keeps, so that the next turn of a run feeds only the new events.

A kept replay has been fed exactly the events that are committed, and has asked for nothing else.  A turn checks the
replay out, and puts it back only after a commit that surely succeeded.  Dropping a replay is always safe: the next turn
replays the log from its beginning.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .. import forks, registry
from ..errors import NonDeterminismError
from ..events import ROOT, Event
from ..replay import Replay
from ..store import Run
from ..tracing import OpenOperations

#: The most replays that are kept, however small they are.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """A replay, the run's row after the last turn that fed it, the last event of its log, and its open operations."""

    replay: Replay
    run: Run
    last: Event
    operations: OpenOperations


class Checkout:
    """
    The replay of a run, for one turn.

    Attributes:
        kept: What the cache had; None when it had nothing, or a replay of other code.
        replay: The replay that the turn uses.  It is parked at the end, unless ``keep`` or ``give_back`` was called.
    """

    def __init__(self, kept: Kept | None, put_away: Callable[[Replay], object] = Replay.park) -> None:
        self.kept = kept
        self.replay = kept.replay if kept else None
        #: What has begun and not ended in the log, as far as the replay was fed; tracing notes it.
        self.operations = kept.operations if kept else OpenOperations()
        self._put_away = put_away
        self._back: Kept | None = None

    def drop(self) -> None:
        """Park the replay: the log has other events than it was fed."""
        if self.replay is not None:
            self._put_away(self.replay)
        self.kept = self.replay = None
        self.operations = OpenOperations()

    @property
    def pending_count(self) -> int:
        """How many operations the workflow waits for, by the replay that the turn uses."""
        return self.replay.pending_count if self.replay else 0

    def give_back(self) -> None:
        """Put the replay back as it was: the turn has not used it."""
        self._back = self.kept

    def keep(self, run: Run, last: Event | None) -> None:
        """
        Put the replay back at the end: the events that it was fed are committed.

        Args:
            run: The run's row now.
            last: The last event of the log; None when it is the same as before.
        """
        newest = last or (self.kept.last if self.kept else None)
        if self.replay is not None and newest is not None:
            self._back = Kept(self.replay, run, newest, self.operations)

    @property
    def back(self) -> Kept | None:
        """What to put back into the cache; None for nothing."""
        return self._back


class Replays:
    """The cache of one process: the replays used last, within a number of bytes."""

    def __init__(self, size: int, put_away: Callable[[Replay], object]) -> None:
        """
        Args:
            size: How many bytes they may take, by ``Replay.size``; 0 keeps none.
            put_away: Parks a replay.
        """
        self._max_size = size
        self._put_away = put_away
        self._kept: collections.OrderedDict[str, Kept] = collections.OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._is_inherited = False
        forks.call_in_child(self._inherit)
        # Python runs the `finally` of a dropped coroutine outside of the run, also at the end of the process.
        self._at_exit = weakref.finalize(self, _park_all, self._kept)

    @contextmanager
    def checked_out(self, run_id: str) -> Iterator[Checkout]:
        """Check out the replay of a run for one turn; no other turn has it meanwhile."""
        checkout = Checkout(self._take(run_id), self._put_away)
        try:
            yield checkout
        finally:
            if checkout.back is None:
                checkout.drop()
            else:
                self._put(checkout.back)

    def out(self, run_id: str) -> int:
        """How many outcomes the run waits for, by its kept replay; 0 when none is kept."""
        with self._lock:
            kept = self._kept.get(run_id)
        return kept.replay.pending_count if kept else 0

    @property
    def keeps(self) -> bool:
        """Whether the cache keeps any replays."""
        return self._max_size > 0

    def close(self) -> None:
        """Park all replays."""
        with self._lock:
            kept, self._size = list(self._kept.values()), 0
            self._kept.clear()
        for each in kept:
            self._put_away(each.replay)

    def __len__(self) -> int:
        return len(self._kept)

    def _take(self, run_id: str) -> Kept | None:
        if self._is_inherited:
            self._is_inherited = False
            self.close()
        with self._lock:
            found = self._kept.pop(run_id, None)
            self._size -= found.replay.size if found else 0
        if found is None or registry.workflows.get(found.run.name) is found.replay.workflow:
            return found
        self._put_away(found.replay)
        return None

    def _put(self, kept: Kept) -> None:
        gone = []
        with self._lock:
            # After two turns of a run at once, the replay of the later one stays.
            other = self._kept.pop(kept.run.id, None)
            if other is not None:
                gone.append(other)
            self._kept[kept.run.id] = kept
            self._size += kept.replay.size - (other.replay.size if other else 0)
            while self._kept and (self._size > self._max_size or len(self._kept) > MOST):
                _, oldest = self._kept.popitem(last=False)
                self._size -= oldest.replay.size
                gone.append(oldest)
        for each in gone:
            self._put_away(each.replay)

    def _inherit(self) -> None:
        """In a child: park the parent's replays at the next turn.  That runs workflow code, so not here."""
        self._lock = threading.Lock()
        self._is_inherited = True


def unclosable(replay: Replay) -> NonDeterminismError | None:
    """
    Why the run of a parked replay has to be blocked; None when it was closed.

    A body that catches GeneratorExit and waits again would keep the worker from exiting.
    """
    if replay.unclosable is None:
        return None
    return NonDeterminismError(
        replay.info.run_id,
        ROOT,
        "a workflow that can be put away while it waits",
        f"one that catches GeneratorExit and waits again ({replay.unclosable}): write `except Exception`",
    )


def _park_all(kept: dict[str, Kept]) -> None:
    for each in kept.values():
        each.replay.park()
