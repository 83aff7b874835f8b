"""
Metrics: a Flask blueprint that shows Prometheus what runs, steps, webhooks and workers do.

::

    app.register_blueprint(create_metrics(engine))  # serves /metrics

It may use everything below it.  It reads counters from the totals that all processes have added to, and gauges from
the work lists, so each process gives the same answer.  ``prometheus_client`` is imported by ``create_metrics`` only.

Files, in import order::

    snapshot.py    the totals and gauges, as one scrape reads them
    prometheus.py  a snapshot as metric families of prometheus_client
    view.py        the blueprint
"""

from .view import create_metrics

__all__ = ["create_metrics"]
