"""A Celery app with the tools that watch it: Sentry, OpenTelemetry, and receivers of signals, all into one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import sentry_sdk
from celery import Celery, signals
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from durable import Durable

celery = Celery("observed", include=["observed_flows"])
engine = Durable(celery)


def note(kind: str, **what: Any) -> None:
    """Append a line of JSON, in one write, since several processes do."""
    with Path(os.environ["OBSERVED"]).open("a") as file:
        file.write(json.dumps({"kind": kind, **what}, default=str) + "\n")


class FileTransport(Transport):
    """Sentry's events, into the file."""

    def capture_envelope(self, envelope: Envelope) -> None:
        if (event := envelope.get_event()) is not None:
            note("sentry", event=event)


class FileExporter(SpanExporter):
    """Spans, into the file."""

    def export(self, spans: Any) -> SpanExportResult:
        for span in spans:
            self._note(span)
        return SpanExportResult.SUCCESS

    def _note(self, span: ReadableSpan) -> None:
        note("span", name=span.name, status=span.status.status_code.name, attributes=dict(span.attributes or {}))


if "OBSERVED" in os.environ:
    # In the main process too: integrations wrap what is imported before the fork.
    sentry_sdk.init("http://key@127.0.0.1:9/1", transport=FileTransport, integrations=[CeleryIntegration()])
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter()))
    CeleryInstrumentor().instrument(tracer_provider=provider)


@signals.task_failure.connect(weak=False)
def note_failure(sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
    note("task_failure", task=sender.name, id=task_id, error=repr(exception))


@signals.task_retry.connect(weak=False)
def note_retry(sender: Any, request: Any, reason: Any, **_: Any) -> None:
    note("task_retry", task=sender.name, id=request.id, error=repr(reason.exc))


@signals.task_success.connect(weak=False)
def note_success(sender: Any, **_: Any) -> None:
    note("task_success", task=sender.name, id=sender.request.id)
