"""What the benchmark's worker and web process serve; their settings come from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import flask
from celery import Celery

from durable import Durable
from durable.web import create_blueprint

from . import plain, workflows
from .room import Room

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

__all__ = ["celery", "create_app", "engine", "plain", "workflows"]

celery = Celery("bench", broker=os.environ.get("DURABLE_BROKER_URL"), backend=os.environ.get("BENCH_SIDE_URL"))
engine = Durable(celery)

if os.environ.get("BENCH_TRACING"):
    # What spans cost: an exporter that does nothing with them.
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class NoExporter(SpanExporter):
        """Takes spans, and does nothing."""

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NoExporter()))
    trace.set_tracer_provider(provider)


def create_app() -> flask.Flask:
    """The blueprint, an address that says that the process is up, and views that wait without durable."""
    app = flask.Flask("bench")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/", view_func=lambda: "up")
    Room().enter(app)
    return app
