"""
Replays that a process keeps: a run's next turn feeds only what is new.

A kept replay has been fed exactly what is committed, and asked for nothing that is not.  Whoever works
with one takes it out; it comes back only after a commit that surely succeeded.  Throwing any of them away is
always right: the next turn replays the log from its beginning.
"""

from __future__ import annotations

import collections
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .. import registry
from ..errors import NonDeterminismError
from ..events import ROOT, Event
from ..replay import Replay
from ..store import Run

#: So many are kept at most, however small.
MOST = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """A replay, the run's row after the turn that fed it last, and the last event of its log."""

    replay: Replay
    run: Run
    last: Event


class Checkout:
    """
    What a turn has of its run's replay.

    Attributes:
        kept: What the process had kept; None: nothing that today's code can use.
        replay: What the turn works with.  It is put away at the end, unless ``keep`` was called.
    """

    def __init__(self, kept: Kept | None, put_away: Callable[[Replay], object] = Replay.park) -> None:
        self.kept = kept
        self.replay = kept.replay if kept else None
        self._put_away = put_away
        self._back: Kept | None = None

    def drop(self) -> None:
        """It is of no use: the log has gone another way."""
        if self.replay is not None:
            self._put_away(self.replay)
        self.kept = self.replay = None

    def give_back(self) -> None:
        """The turn has not touched it."""
        self._back = self.kept

    def keep(self, run: Run, last: Event | None) -> None:
        """What was fed is committed: *run* is the row now, *last* the log's last event, None for that of before."""
        newest = last or (self.kept.last if self.kept else None)
        if self.replay is not None and newest is not None:
            self._back = Kept(self.replay, run, newest)

    @property
    def back(self) -> Kept | None:
        """What is to be kept."""
        return self._back


class Replays:
    """The replays that this process keeps, those used last, within a number of bytes."""

    def __init__(self, size: int, put_away: Callable[[Replay], object]) -> None:
        """
        Args:
            size: How many bytes they may take, by ``Replay.size``; 0: none is kept.
            put_away: Parks one.
        """
        self._most = size
        self._put_away = put_away
        self._kept: collections.OrderedDict[str, Kept] = collections.OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()
        # A coroutine that is only dropped runs its `finally` outside of the run: not at the end of the process either.
        self._at_exit = weakref.finalize(self, _park_all, self._kept)

    @contextmanager
    def checked_out(self, run_id: str) -> Iterator[Checkout]:
        """A run's replay for one turn, which nobody else has meanwhile."""
        checkout = Checkout(self._take(run_id), self._put_away)
        try:
            yield checkout
        finally:
            if checkout.back is None:
                checkout.drop()
            else:
                self._put(checkout.back)

    def out(self, run_id: str) -> int:
        """How many outcomes the run waits for, as far as its kept replay knows; 0 when there is none."""
        with self._lock:
            kept = self._kept.get(run_id)
        return kept.replay.pending_count if kept else 0

    @property
    def keeps(self) -> bool:
        """Whether any is kept."""
        return self._most > 0

    def close(self) -> None:
        """Put all of them away."""
        with self._lock:
            kept, self._size = list(self._kept.values()), 0
            self._kept.clear()
        for each in kept:
            self._put_away(each.replay)

    def __len__(self) -> int:
        return len(self._kept)

    def _take(self, run_id: str) -> Kept | None:
        if self._pid != os.getpid():
            self._begin_anew()
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
            # Two turns of a run at once: the later one's stays.
            other = self._kept.pop(kept.run.id, None)
            if other is not None:
                gone.append(other)
            self._kept[kept.run.id] = kept
            self._size += kept.replay.size - (other.replay.size if other else 0)
            while self._kept and (self._size > self._most or len(self._kept) > MOST):
                _, oldest = self._kept.popitem(last=False)
                self._size -= oldest.replay.size
                gone.append(oldest)
        for each in gone:
            self._put_away(each.replay)

    def _begin_anew(self) -> None:
        """After a fork: what was inherited is of no use, and its lock may be locked for ever."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.close()


def unclosable(replay: Replay) -> NonDeterminismError | None:
    """After ``park``: why the run is to be blocked.  A body that swallows its own end would hang the worker's exit."""
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
