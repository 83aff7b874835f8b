"""The totals and gauges, as one scrape reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from .. import measures
from ..engine import Engine
from ..measures import Counter, Histogram, Key
from ..recovery import LEASE
from ..store import gauges, limit_view, pauses, streams, totals


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is what it is now."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


RUNS = Gauge("durable_runs", "Runs that have not ended, by state.", ("state",))
PAUSED = Gauge("durable_runs_paused", "Runs that are paused, counted up to 10,000.")
RUNNING = Gauge("durable_steps_running", "Attempts that processes run now.")
BACKLOG = Gauge("durable_queue_backlog", "Steps and turns that wait for a worker of a queue.", ("queue", "kind"))
AGE = Gauge(
    "durable_queue_oldest_age_seconds",
    "How long the oldest step or turn has waited for a worker of a queue.",
    ("queue", "kind"),
)
LIMITED = Gauge("durable_limit_backlog", "Steps or runs that wait for a limit.", ("limit",))
OVERDUE = Gauge("durable_timer_overdue_seconds", "How long the sleep or timeout that is most overdue should be over.")
SWEEP_LAG = Gauge("durable_sweep_lag_seconds", "How long ago a process has begun a sweep.")
WORKERS = Gauge("durable_workers_alive", "Processes that run steps and have sent a heartbeat lately.")
DEAF = Gauge("durable_workers_deaf", "Processes of workers that take no messages, although some wait for them.")

STREAMS = Gauge("durable_streams_open", "Open streams, of the runs that started last.")

#: Every gauge, in the order of the documentation.
GAUGES = (RUNS, PAUSED, RUNNING, BACKLOG, AGE, LIMITED, OVERDUE, SWEEP_LAG, WORKERS, DEAF, STREAMS)


@dataclass(frozen=True, slots=True)
class Distribution:
    """One histogram: its cumulative buckets by upper bound, and the sum in seconds."""

    buckets: tuple[tuple[str, int], ...]
    sum_secs: float


Values = Mapping[tuple[str, ...], float]
Distributions = Mapping[tuple[str, ...], Distribution]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All metrics at one time: values by labels, for each instrument."""

    counters: Mapping[Counter, Values]
    histograms: Mapping[Histogram, Distributions]
    gauges: Mapping[Gauge, Values]


def read(engine: Engine) -> Snapshot:
    """Read all metrics.  What this process has measured since its last flush is added first."""
    engine.check_schema()
    engine.flush_measures()
    with engine.store.read() as tx:
        found = totals.read(tx)
    return Snapshot(
        counters={each: _values(each, found) for each in measures.INSTRUMENTS if isinstance(each, Counter)},
        histograms={each: _distributions(each, found) for each in measures.INSTRUMENTS if isinstance(each, Histogram)},
        gauges=_gauges(engine),
    )


def _values(counter: Counter, found: Mapping[Key, int]) -> Values:
    values = {key[1 : len(counter.labels) + 1]: float(value) for key, value in found.items() if key[0] == counter.name}
    # A counter without labels is there from the beginning.
    return values if counter.labels else {(): 0.0, **values}


def _distributions(histogram: Histogram, found: Mapping[Key, int]) -> Distributions:
    by_label: dict[str, dict[str, int]] = {} if histogram.labels else {"": {}}
    for (name, label, detail), value in found.items():
        if name == histogram.name:
            by_label.setdefault(label, {})[detail] = value
    return {(label,) if histogram.labels else (): _distribution(parts) for label, parts in by_label.items()}


def _distribution(parts: Mapping[str, int]) -> Distribution:
    """Make a histogram of its rows.  A bound that another release has written is kept."""
    bounds = {*map(repr, measures.BOUNDS), measures.INFINITE, *parts} - {measures.SUM}
    in_order = sorted(bounds, key=lambda bound: float(bound.lstrip("+")))
    counts = accumulate(parts.get(bound, 0) for bound in in_order)
    return Distribution(tuple(zip(in_order, counts, strict=True)), parts.get(measures.SUM, 0) / 1_000_000)


def _gauges(engine: Engine) -> Mapping[Gauge, Values]:
    now, settings = engine.now(), engine.settings
    with engine.store.read() as tx:
        states = gauges.open_runs(tx)
        paused = pauses.count_paused_runs(tx, 10_000)
        running = gauges.running_attempts(tx)
        steps, turns = gauges.waiting_steps(tx, now), gauges.waiting_turns(tx, now)
        limited = limit_view.backlog(tx)
        overdue_since = gauges.oldest_overdue_timer(tx, now)
        lease = gauges.sweep_lease(tx, LEASE)
        workers = gauges.live_workers(tx, now - settings.dead_after)
        deaf = gauges.deaf_workers(tx, now - settings.dead_after)
        open_streams = streams.count_open(tx)
    waiting: dict[tuple[str, ...], tuple[int, int]] = {}
    _merge(waiting, ((each.queue or "", "step", each) for each in steps))
    _merge(waiting, ((engine.dispatch.find_queue_of_turn(each.queue) or "", "turn", each) for each in turns))
    found: dict[Gauge, Values] = {
        RUNS: {(state,): float(count) for state, count in states.items()},
        PAUSED: {(): float(paused)},
        RUNNING: {(): float(running)},
        BACKLOG: {labels: float(count) for labels, (count, _) in waiting.items()},
        AGE: {labels: max(0, now - since) / 1_000_000 for labels, (_, since) in waiting.items()},
        LIMITED: {(name,): float(count) for name, count in limited.items()},
        OVERDUE: {(): 0.0 if overdue_since is None else (now - overdue_since) / 1_000_000},
        WORKERS: {(): float(workers)},
        DEAF: {(): float(deaf)},
        STREAMS: {(): float(open_streams)},
    }
    if lease is not None and lease.expires_at:
        # The process that sweeps renews its lease at the begin of each sweep; one that ends leaves it with the time
        # of the next sweep.
        swept_at = lease.expires_at - (3 if lease.is_held else 1) * settings.sweep_interval
        found[SWEEP_LAG] = {(): max(0, now - swept_at) / 1_000_000}
    return found


def _merge(waiting: dict[tuple[str, ...], tuple[int, int]], rows: Iterable[tuple[str, str, gauges.Backlog]]) -> None:
    """Add rows by queue: a run without a queue, and one with the default queue, wait in the same."""
    for queue, kind, backlog in rows:
        count, since = waiting.get((queue, kind), (0, backlog.since))
        waiting[queue, kind] = count + backlog.waiting, min(since, backlog.since)
