"""The metrics through OpenTelemetry's SDK: the same numbers as the totals, read once for each collection."""

from __future__ import annotations

import sys

import pytest
import sqlalchemy as sa
from celery import Celery
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from durable import ConfigurationError, Durable, measures
from durable.metrics import observe_metrics, snapshot


@pytest.fixture
def collect():
    """A reader of the SDK: what a collection gives, by name and attributes; and whether its counters only grow."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])

    def read():
        data = reader.get_metrics_data()
        found = [] if data is None else data.resource_metrics[0].scope_metrics[0].metrics
        return {
            (each.name, *sorted(point.attributes.items())): point.value
            for each in found
            for point in each.data.data_points
        }

    read.provider = provider
    read.reader = reader
    yield read
    provider.shutdown()


def test_opentelemetry_gets_the_totals_and_the_gauges(engine, collect):
    """Counters by their labels, the parts of histograms, and gauges."""
    engine.measures.count(measures.ATTEMPTS, "charge", "completed", by=3)
    engine.measures.observe(measures.TURN_SECONDS, 2_000_000, "pay")
    observe_metrics(engine, meter_provider=collect.provider)
    found = collect()

    assert found["durable_step_attempts", ("outcome", "completed"), ("step", "charge")] == 3
    assert found["durable_turn_duration_seconds_sum", ("workflow", "pay")] == 2.0
    assert found["durable_turn_duration_seconds_count", ("workflow", "pay")] == 1
    assert found["durable_turn_duration_seconds_bucket", ("le", "1.0"), ("workflow", "pay")] == 0
    assert found["durable_turn_duration_seconds_bucket", ("le", "2.5"), ("workflow", "pay")] == 1
    assert found["durable_runs", ("state", "running")] == 0
    assert found["durable_workers_alive",] == 0


def test_a_collection_reads_the_database_once(engine, collect, monkeypatch):
    """All instruments of one collection show one moment."""
    reads, read = [], snapshot.read
    monkeypatch.setattr(snapshot, "read", lambda engine: reads.append(1) or read(engine))
    observe_metrics(engine, meter_provider=collect.provider)
    collect()

    assert len(reads) == 1


def test_counters_are_monotonic(engine, collect):
    """What a backend needs to know to compute rates."""
    engine.measures.count(measures.RUNS_STARTED, "pay")
    observe_metrics(engine, meter_provider=collect.provider)
    metrics = collect.reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    by_name = {each.name: each.data for each in metrics}

    assert by_name["durable_runs_started"].is_monotonic
    assert not hasattr(by_name["durable_runs"], "is_monotonic")


def test_a_database_that_is_away_gives_nothing(collect):
    """The collection goes on for the application's other metrics."""
    away = Durable(Celery("test", broker="memory://"), database_url="postgresql://nobody@127.0.0.1:1/none")
    try:
        observe_metrics(away, meter_provider=collect.provider)
        assert collect() == {}
    finally:
        away.close()


def test_without_a_provider_nothing_is_read(engine):
    """The API's own provider calls nothing."""
    statements = []
    observe_metrics(engine)
    sa.event.listen(engine.store.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))

    assert statements == []


def test_without_opentelemetry_the_error_says_what_to_install(engine, monkeypatch):
    """Neither an ImportError nor silence."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "durable.metrics.otel", raising=False)
    monkeypatch.delattr("durable.metrics.otel", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'durable-celery\[otel\]'"):
        observe_metrics(engine)
