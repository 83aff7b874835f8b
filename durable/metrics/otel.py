"""A snapshot as observable instruments of OpenTelemetry."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from .. import measures
from ..engine import Engine
from ..measures import Counter
from ..sandbox import log_records
from ..store import is_unavailable, reason
from . import snapshot
from .snapshot import Distributions, Snapshot, Values

log = log_records.get("durable.metrics")

#: A collection calls every instrument's callback.  Those within this time use one snapshot.
_KEPT_SECS = 1.0

Read = Callable[[Snapshot], Iterable[Observation]]


class _Snapshots:
    """Reads a snapshot for each collection."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._last: Snapshot | None = None

    def current(self) -> Snapshot | None:
        """Return a snapshot of about now; None while the database cannot be used."""
        with self._lock:
            if time.monotonic() - self._read_at >= _KEPT_SECS:
                self._last = self._read()
                self._read_at = time.monotonic()
            return self._last

    def _read(self) -> Snapshot | None:
        try:
            return snapshot.read(self._engine)
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("The metrics cannot be read now: %s", reason(error))
            return None


def register(engine: Engine, provider: MeterProvider | None) -> None:
    """Create the instruments at this provider, or at the global one."""
    meter = (provider or metrics.get_meter_provider()).get_meter("durable")
    snapshots = _Snapshots(engine)

    def callback(read: Read) -> Sequence[Callable[[CallbackOptions], Iterable[Observation]]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            now = snapshots.current()
            return () if now is None else read(now)

        return [observe]

    for each in measures.INSTRUMENTS:
        if isinstance(each, Counter):
            meter.create_observable_counter(each.name, callback(_counter(each)), description=each.help)
            continue
        for part, unit in (("bucket", "1"), ("count", "1"), ("sum", "s")):
            name = f"{each.name}_{part}"
            meter.create_observable_counter(name, callback(_histogram(each, part)), unit, each.help)
    for gauge in snapshot.GAUGES:
        meter.create_observable_gauge(gauge.name, callback(_gauge(gauge)), description=gauge.help)


def _counter(counter: Counter) -> Read:
    return lambda now: _observations(counter.labels, now.counters[counter])


def _gauge(gauge: snapshot.Gauge) -> Read:
    return lambda now: _observations(gauge.labels, now.gauges.get(gauge, {}))


def _observations(labels: Sequence[str], values: Values) -> Iterable[Observation]:
    return [Observation(value, dict(zip(labels, key, strict=True))) for key, value in values.items()]


def _histogram(histogram: measures.Histogram, part: str) -> Read:
    """Read one part of a histogram: OpenTelemetry has no observable histogram."""

    def read(now: Snapshot) -> Iterable[Observation]:
        found: Distributions = now.histograms[histogram]
        for key, distribution in found.items():
            attributes: dict[str, Any] = dict(zip(histogram.labels, key, strict=True))
            if part == "sum":
                yield Observation(distribution.sum_secs, attributes)
            elif part == "count":
                yield Observation(distribution.buckets[-1][1], attributes)
            else:
                yield from (Observation(count, {**attributes, "le": bound}) for bound, count in distribution.buckets)

    return read
