"""The blueprint: one route, whose answer is the same from every process.  And the same for OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flask

from ..engine import Engine
from ..errors import ConfigurationError, SchemaOutOfDate
from ..sandbox import log_records
from ..store import is_unavailable, reason

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from prometheus_client import CollectorRegistry

log = log_records.get("durable.metrics")


def create_metrics(
    engine: Engine, *, url_prefix: str | None = None, registry: CollectorRegistry | None = None
) -> flask.Blueprint:
    """
    Make the blueprint named ``durable_metrics``, which serves ``/metrics`` to Prometheus.

    Needs prometheus_client: ``pip install 'durable-celery[prometheus]'``.

    Args:
        url_prefix: Flask's ``url_prefix``.
        registry: Your own registry, if the route should serve your application's metrics too.

    Raises:
        ConfigurationError: prometheus_client is not installed.
        ValueError: *registry* has these metrics already.
    """
    try:
        from prometheus_client import CollectorRegistry, exposition

        from .prometheus import DurableCollector
    except ModuleNotFoundError as missing:
        if missing.name != "prometheus_client":
            raise
        raise ConfigurationError(
            "create_metrics needs the package 'prometheus_client', which is not installed:"
            " pip install 'durable-celery[prometheus]'."
        ) from None
    served = registry or CollectorRegistry()
    served.register(DurableCollector(engine))
    bp = flask.Blueprint("durable_metrics", __name__, url_prefix=url_prefix)

    @bp.get("/metrics")
    def metrics() -> flask.Response:
        encode, content_type = exposition.choose_encoder(flask.request.headers.get("Accept", ""))
        try:
            text = encode(served)
        except Exception as error:
            if not (is_unavailable(error) or isinstance(error, SchemaOutOfDate)):
                raise
            why = str(error) if isinstance(error, SchemaOutOfDate) else reason(error)
            log.warning("A scrape was answered 503: %s", why)
            return flask.Response(
                "The metrics are in the database, which cannot be read now.\n", 503, mimetype="text/plain"
            )
        return flask.Response(text, content_type=content_type, headers={"Cache-Control": "no-store"})

    bp.before_app_request(engine.flusher.ensure)
    return bp


def observe_metrics(engine: Engine, *, meter_provider: MeterProvider | None = None) -> None:
    """
    Give the metrics to OpenTelemetry, as observable instruments that each collection reads from the database.

    Call it in one process of your deployment, since each process would give the same totals.  Needs opentelemetry-api:
    ``pip install 'durable-celery[otel]'``.

    Args:
        meter_provider: By default the global one.  Until your application sets one, nothing is read.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """
    try:
        from . import otel
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("opentelemetry"):
            raise
        raise ConfigurationError(
            "observe_metrics needs the package 'opentelemetry-api', which is not installed:"
            " pip install 'durable-celery[otel]'."
        ) from None
    otel.register(engine, meter_provider)
