"""
W7: replaying a long log.

Cold in the core: a new ``Replay`` is fed a log in memory.  Loaded: the same from
the database, with the reading and decoding of its rows.  Warm: what a run with
a long log needs from one step to the next, in the worker, once it has begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from durable.events import Event
from durable.store import DriveRow, run_log

from .. import synthetic
from ..bench import Bench
from ..figures import Sizes, Target, Workload, ms
from ..site import TIMEOUT_SECS, Site
from ..workflows import sequence


@dataclass(frozen=True, kw_only=True)
class Logs(Sizes):
    """Steps in the log of the cold replays, and of the run that goes on (two events each); steps that it then takes."""

    cold_steps: int
    long_steps: int
    next_steps: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Microseconds per event, milliseconds per step, and for comparison per bare commit."""

    core_us: float
    loaded_us: float
    first_turn_ms: float
    next_step_ms: float
    commit_ms: float


def _core_us(written: list[Event]) -> float:
    replay = synthetic.replay_of(sequence, written)
    # CPU time: nothing is waited for.
    began = time.thread_time()
    replay.feed(written, replaying=True)
    took = time.thread_time() - began
    replay.park()
    return took / len(written) * 1_000_000


def _loaded_us(site: Site, run_id: str, written: list[Event]) -> float:
    began = time.perf_counter()
    with site.engine.store.read() as tx:
        loaded = run_log.read(tx, run_id)
    replay = synthetic.replay_of(sequence, loaded)
    replay.feed(loaded, replaying=True)
    took = time.perf_counter() - began
    replay.park()
    if replay.fault is not None or len(loaded) < len(written) - 1:
        raise RuntimeError(f"the log of {run_id} was not replayed: {replay.fault or len(loaded)}")
    return took / len(loaded) * 1_000_000


def _warm_secs(site: Site, steps: int, more: int) -> tuple[float, float]:
    """Seconds from the drive to the next step of a run with so many, and from there to each that follows."""
    arguments = {"length": steps + more, "last": more}
    written = synthetic.steps_done(sequence, arguments, steps)
    run_id = synthetic.put_away(site.engine, sequence, arguments, written)
    began = time.time()
    site.engine.dispatch.send_turn(DriveRow(run_id, None, None))
    stamps = site.engine.get_run(run_id).result(timeout=TIMEOUT_SECS)[1:]
    return stamps[0] - began, median(after - before for before, after in pairwise(stamps))


@contextmanager
def _opened(bench: Bench, sizes: Logs) -> Iterator[Callable[[], Figures]]:
    site = bench.site
    arguments = {"length": sizes.cold_steps + 1}
    written = synthetic.steps_done(sequence, arguments, sizes.cold_steps)
    run = synthetic.put_away(site.engine, sequence, arguments, written)

    def measure() -> Figures:
        first, following = _warm_secs(site, sizes.long_steps, sizes.next_steps)
        return Figures(
            core_us=_core_us(written),
            loaded_us=_loaded_us(site, run, written),
            first_turn_ms=ms(first),
            next_step_ms=ms(following),
            commit_ms=ms(site.rows.commit_secs(100)),
        )

    yield measure


WORKLOAD = Workload(
    name="W7",
    title="replaying a long log",
    full=Logs(cold_steps=2500, long_steps=10_000, next_steps=21),
    short=Logs(cold_steps=500, long_steps=1000, next_steps=11),
    targets=(
        Target(name="µs per event in the core", figure="core_us", at_most=15),
        Target(name="µs per event with loading and decoding", figure="loaded_us", at_most=60),
        Target(name="ms to the next step, warm", figure="next_step_ms", at_most=30),
    ),
    opened=_opened,
)
