"""A Celery app with OpenTelemetry: its SDK, Celery's instrumentation, and an exporter that appends to a file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import flask
from celery import Celery
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from durable import Durable
from durable.web import create_blueprint


class FileExporter(SpanExporter):
    """Appends a line of JSON for each span, in one write, since several processes do."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with Path(os.environ["SPANS"]).open("a") as file:
            for span in spans:
                described = {
                    "name": span.name,
                    "trace": span.context.trace_id,
                    "id": span.context.span_id,
                    "parent": span.parent and span.parent.span_id,
                    "scope": span.instrumentation_scope and span.instrumentation_scope.name,
                    "start": span.start_time,
                    "status": span.status.status_code.name,
                    "pid": os.getpid(),
                }
                file.write(json.dumps(described) + "\n")
        return SpanExportResult.SUCCESS


if "SPANS" in os.environ:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()

celery = Celery("traced", include=["traced_flows"])
engine = Durable(celery)


def create_app() -> flask.Flask:
    app = flask.Flask("traced")
    app.register_blueprint(create_blueprint(engine))
    app.add_url_rule("/health", view_func=lambda: "up")
    return app
