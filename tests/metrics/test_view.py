"""The blueprint of the metrics: what it needs, and what it answers when the database is away."""

from __future__ import annotations

import subprocess
import sys

import flask
import pytest
from celery import Celery
from prometheus_client import CollectorRegistry

from durable import ConfigurationError, Durable
from durable.metrics import create_metrics, snapshot
from durable.metrics.prometheus import DurableCollector


@pytest.fixture
def unreachable():
    """An engine whose database does not answer."""
    made = Durable(Celery("test", broker="memory://"), database_url="postgresql://nobody@127.0.0.1:1/none")
    yield made
    made.close()


def test_without_a_database_the_answer_is_503(unreachable):
    """Prometheus notes a failed scrape; the answer has no traceback and no address."""
    app = flask.Flask("scraped")
    app.register_blueprint(create_metrics(unreachable))
    response = app.test_client().get("/metrics")

    assert response.status_code == 503
    assert response.text == "The metrics are in the database, which cannot be read now.\n"


def test_a_registry_that_asks_for_names_does_not_read_the_database(unreachable):
    """The global registry of prometheus_client is such a one.  It still refuses a second collector of these names."""
    registry = CollectorRegistry(auto_describe=True)
    create_metrics(unreachable, registry=registry)

    with pytest.raises(ValueError, match="durable_runs"):
        create_metrics(unreachable, registry=registry)


def test_the_described_metrics_are_those_that_are_collected(engine):
    """The same names, types and labels, without values; and the lag of the sweep, which is not collected before one."""
    collector = DurableCollector(engine)

    def shapes(families):
        return {(type(each), each.name, each.documentation, each._labelnames) for each in families}

    described = list(collector.describe())
    missing = shapes(described) ^ shapes(collector.collect())
    assert {name for _, name, _, _ in missing} <= {snapshot.SWEEP_LAG.name}
    assert not any(family.samples for family in described)


def test_a_schema_that_is_out_of_date_is_503_too(unreachable, monkeypatch):
    """Between a deploy and its migration."""
    monkeypatch.setattr(unreachable, "_revision", lambda: "0009")
    app = flask.Flask("scraped")
    app.register_blueprint(create_metrics(unreachable))

    assert app.test_client().get("/metrics").status_code == 503


def test_without_prometheus_client_the_error_says_what_to_install(engine, monkeypatch):
    """Neither an ImportError nor a page that is empty."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "durable.metrics.prometheus", raising=False)
    with pytest.raises(ConfigurationError, match=r"pip install 'durable-celery\[prometheus\]'"):
        create_metrics(engine)


def test_nothing_optional_is_imported_before_it_is_used():
    """Importing durable, its blueprint and ``durable.metrics`` imports no prometheus_client and no opentelemetry."""
    # redis-py imports opentelemetry by itself, so durable's own file stands for it.
    optional = ("prometheus_client", "durable.metrics.prometheus", "durable.metrics.otel")
    script = f"import sys, durable, durable.web, durable.metrics; print(set({optional}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_an_application_that_guards_the_route_guards_it(engine):
    """As docs/how-to/metrics.md shows."""
    metrics = create_metrics(engine)

    @metrics.before_request
    def nobody():
        flask.abort(401)

    app = flask.Flask("guarded")
    app.register_blueprint(metrics)

    assert app.test_client().get("/metrics").status_code == 401
