"""
Where the time of a run goes: ``python -m bench.profile [--database sqlite] [--steps 5] [--runs 200]``.

In this one process, without a worker: ``start()``, the first turn, and the steps in place with the last turn.  Prints
the CPU time of ``start()`` beside that of a plain task's publishing and a bare commit, the median of each part (CPU
time, and time with the waits for the database and the broker), the statements and transactions of a run, the share of
each package in the CPU time, and the functions that took most, as cProfile has them.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import pstats
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import sqlalchemy as sa
from celery import Celery

from durable import Durable, registry
from durable.attempts.attempt import StepBody, run_claimed
from durable.broker.dispatcher import BATCH_SIZE
from durable.store import DriveRow
from durable.turns.conclude import conclude
from durable.turns.continuation import Continuation
from durable.turns.drive import drive

from . import servers
from .rows import Rows
from .workflows import sequence

PARTS = ("start()", "first turn", "steps and end")


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    with ExitStack() as stack:
        database_url = stack.enter_context(servers.database(options.database))
        broker_url = stack.enter_context(servers.redis_database())
        engine = Durable(Celery("profile", broker=broker_url), database_url=database_url, continuation="60s")
        stack.callback(engine.close)
        engine.migrate()
        for _ in range(20):
            _run(engine, options.steps)
        _show_start(engine, database_url, options.runs)
        _show_parts([_run(engine, options.steps) for _ in range(options.runs)])
        _show_statements(engine, options.steps)
        _show_messages(engine)
        _show_packages(engine, options.steps, options.runs)
        profile = cProfile.Profile()
        profile.runcall(lambda: [_run(engine, options.steps) for _ in range(options.runs)])
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="Where the time of a run goes.")
    parser.add_argument("--database", choices=servers.DATABASES, default="postgresql")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--runs", type=int, default=200)
    return parser.parse_args()


def _run(engine: Durable, steps: int) -> list[tuple[float, float]]:
    """One run; for each part its CPU time and its time, in seconds."""
    moments = [_now()]
    run = engine.start(sequence, steps)
    moments.append(_now())
    continuation = Continuation(engine, "celery")
    drive(engine, run.id, continuation=continuation)
    moments.append(_now())
    while (held := continuation.begin()) is not None:
        run_claimed(engine, held, StepBody(registry.steps[held.name]), partial(conclude, engine, continuation))
    moments.append(_now())
    return [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(moments)]


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _show_parts(runs: list[list[tuple[float, float]]]) -> None:
    for name, measured in zip(PARTS, zip(*runs, strict=True), strict=True):
        cpu, wall = (statistics.median(each) * 1000 for each in zip(*measured, strict=True))
        print(f"{name:15} {cpu:6.2f} ms of CPU time, {wall:6.2f} ms")


def _show_start(engine: Durable, database_url: str, count: int) -> None:
    """The CPU time of ``start()`` beside a plain task's publishing and a bare commit, which take turns with it."""
    rows, plain = Rows(database_url), engine.celery.task(name="profile.plain", ignore_result=True)(_nothing)
    rows.create()
    acts = (lambda _: engine.start(sequence, 5), plain.delay, lambda number: rows.insert("profile", number, 0.0))
    rounds = [[_cpu_ms(act, range(first, first + 20)) for act in acts] for first in range(0, count, 20)]
    rows.close()
    start, publish, commit = (statistics.median(each) for each in zip(*rounds, strict=True))
    by_both = statistics.median(each[0] / (each[1] + each[2]) for each in rounds)
    yardsticks = f"a plain publish {publish:.2f}, a commit {commit:.2f}"
    print(f"start() {start:.2f} ms of CPU time, {yardsticks}: {by_both:.2f} of both")


def _cpu_ms(act: Callable[[int], object], numbers: range) -> float:
    began = time.process_time()
    for number in numbers:
        act(number)
    return (time.process_time() - began) / len(numbers) * 1000


def _nothing(number: int) -> None:
    """A plain task."""


def _show_messages(engine: Durable) -> None:
    """What one message costs its sender, by itself and among those that a turn sends together."""
    rows = [DriveRow(f"nobody-{number}", None, None) for number in range(1000)]
    moments = [time.process_time()]
    for row in rows:
        engine.dispatch.send_turns([row])
    moments.append(time.process_time())
    engine.dispatch.send_turns(rows)
    moments.append(time.process_time())
    alone, together = (after - before for before, after in itertools.pairwise(moments))
    print(f"a message: {alone:.2f} ms of CPU time by itself, {together:.2f} ms among {BATCH_SIZE}")


def _show_packages(engine: Durable, steps: int, runs: int) -> None:
    """The share of each package, and of each of our rooms, in the CPU time of runs: sampled each millisecond of it."""
    samples: Counter[str] = Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        samples[_package(frame)] += 1

    signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    try:
        for _ in range(runs):
            _run(engine, steps)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    for name, count in samples.most_common():
        print(f"{count / samples.total():6.1%} {name}")


def _package(frame: FrameType | None) -> str:
    """Where code runs: a room of ours, a package, or "Python" for its own library."""
    parts = Path(frame.f_code.co_filename).parts if frame is not None else ()
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if "durable" in parts:
        return "/".join(parts[parts.index("durable") :][:2])
    return "Python"


def _show_statements(engine: Durable, steps: int) -> None:
    """What one run says to the database."""
    said: Counter[str] = Counter()

    def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        said["statements"] += 1
        said["of them transactions by themselves"] += getattr(cursor.connection, "autocommit", False)

    def commit(_connection: Any) -> None:
        said["commits of several"] += 1

    sa.event.listen(engine.store.engine, "before_cursor_execute", note)
    sa.event.listen(engine.store.engine, "commit", commit)
    _run(engine, steps)
    # With nobody listening statements go the shorter way again.
    sa.event.remove(engine.store.engine, "before_cursor_execute", note)
    sa.event.remove(engine.store.engine, "commit", commit)
    print(", ".join(f"{count} {what}" for what, count in said.items()))


if __name__ == "__main__":
    main()
