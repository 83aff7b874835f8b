"""A snapshot as metric families of prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .. import measures
from ..engine import Engine
from ..measures import Counter, Histogram
from . import snapshot


class DurableCollector(Collector):
    """Collects the metrics of one engine; each scrape reads the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Return all metrics without values: a registry asks for their names, also while the database is away."""
        instruments = measures.INSTRUMENTS
        yield from (_counter(each) for each in instruments if isinstance(each, Counter))
        yield from (_histogram(each) for each in instruments if isinstance(each, Histogram))
        yield from (_gauge(each) for each in snapshot.GAUGES)

    def collect(self) -> Iterable[Metric]:
        """Return all metrics."""
        now = snapshot.read(self._engine)
        for counter, values in now.counters.items():
            counted = _counter(counter)
            for labels, value in sorted(values.items()):
                counted.add_metric(labels, value)
            yield counted
        for histogram, distributions in now.histograms.items():
            measured = _histogram(histogram)
            for labels, found in sorted(distributions.items()):
                measured.add_metric(labels, buckets=list(found.buckets), sum_value=found.sum_secs)
            yield measured
        for gauge, values in now.gauges.items():
            current = _gauge(gauge)
            for labels, value in sorted(values.items()):
                current.add_metric(labels, value)
            yield current


def _counter(counter: Counter) -> CounterMetricFamily:
    return CounterMetricFamily(counter.name, counter.help, labels=counter.labels)


def _histogram(histogram: Histogram) -> HistogramMetricFamily:
    return HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)


def _gauge(gauge: snapshot.Gauge) -> GaugeMetricFamily:
    return GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
