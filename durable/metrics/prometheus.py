"""A snapshot as metric families of prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..engine import Engine
from . import snapshot


class DurableCollector(Collector):
    """Collects the metrics of one engine; each scrape reads the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        """Return all metrics."""
        now = snapshot.read(self._engine)
        for counter, values in now.counters.items():
            counted = CounterMetricFamily(counter.name, counter.help, labels=counter.labels)
            for labels, value in sorted(values.items()):
                counted.add_metric(labels, value)
            yield counted
        for histogram, distributions in now.histograms.items():
            measured = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
            for labels, found in sorted(distributions.items()):
                measured.add_metric(labels, buckets=list(found.buckets), sum_value=found.sum_secs)
            yield measured
        for gauge, values in now.gauges.items():
            current = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for labels, value in sorted(values.items()):
                current.add_metric(labels, value)
            yield current
