"""
Metrics: a Flask blueprint that shows Prometheus what runs, steps, webhooks and workers do.

::

    app.register_blueprint(create_metrics(engine))  # serves /metrics
    observe_metrics(engine)                         # or: gives them to OpenTelemetry

It may use everything below it.  It reads counters from the totals that all processes have added to, and gauges from
the work lists, so each process gives the same answer.  ``prometheus_client`` is imported by ``create_metrics`` only,
``opentelemetry`` by ``observe_metrics`` only.

Files, in import order::

    snapshot.py    the totals and gauges, as one scrape reads them
    prometheus.py  a snapshot as metric families of prometheus_client
    otel.py        a snapshot as observable instruments of OpenTelemetry
    view.py        the blueprint, and what gives the metrics to OpenTelemetry
"""

from .view import create_metrics, observe_metrics

__all__ = ["create_metrics", "observe_metrics"]
