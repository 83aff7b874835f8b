"""
The span of a running attempt: OpenTelemetry makes it when something uses it, or in a batch after the attempt.

The current span of a step's function is a ``LateSpan``.  The first use of it makes the span, with the time at which the
attempt began: instrumentation that begins a span below it, a log record with the ids of the trace, or the function
itself.  Most steps that use it talk to a server, and the others are not to pay for it while they run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from opentelemetry import context as contexts
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, StatusCode, set_span_in_context

from .batch import Batch
from .tracing import AttemptTrace


class LateSpan(Span):
    """A span that is made at its first use, by the thread that uses it."""

    def __init__(self, make: Callable[[int], Span]) -> None:
        """
        Args:
            make: Makes the span that began then, in nanoseconds since 1970 UTC.  It must not raise.
        """
        self._make = make
        self._began_at = time.time_ns()
        self._made: Span | None = None
        self._lock = threading.Lock()

    @property
    def is_made(self) -> bool:
        """Whether something has used it."""
        return self._made is not None

    def made(self) -> Span:
        """Return the SDK's span."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make(self._began_at)
        return self._made

    def end(self, end_time: int | None = None) -> None:
        self.made().end(end_time)

    def get_span_context(self) -> SpanContext:
        return self.made().get_span_context()

    def set_attributes(self, attributes: Any) -> None:
        self.made().set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.made().set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self.made().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Any = None) -> None:
        self.made().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self.made().update_name(name)

    def is_recording(self) -> bool:
        return self.made().is_recording()

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.made().set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        self.made().record_exception(exception, attributes, timestamp, escaped)

    def __getattr__(self, name: str) -> Any:
        # What the SDK's spans have and the API's don't: ``name``, ``attributes``, ``start_time``.
        return getattr(self.made(), name)


class AttemptSpan(AttemptTrace):
    """Makes a span the current one while a step's function runs, and ends it."""

    def __init__(self, span: Span, context: Context, batch: Batch) -> None:
        """
        Args:
            context: What the function's context has beside the span.
        """
        self._span = span
        self._context = context
        self._batch = batch

    def __enter__(self) -> AttemptSpan:
        self._token = contexts.attach(set_span_in_context(self._span, self._context))
        return self

    def __exit__(self, *_: object) -> None:
        contexts.detach(self._token)
        span, ended_at = self._span, time.time_ns()
        if isinstance(span, LateSpan) and not span.is_made:
            self._batch.add(lambda: span.end(ended_at))
        else:
            span.end(ended_at)

    def fail(self, error: BaseException) -> None:
        """Record what the attempt failed with."""
        if not self._span.is_recording():
            return
        # Celery's Retry, which an adopted task raises, contains the failure.
        cause = getattr(error, "exc", None)
        failure = cause if isinstance(cause, BaseException) else error
        try:
            self._span.record_exception(failure)
            self._span.set_status(StatusCode.ERROR, f"{type(failure).__name__}: {failure}")
        except Exception:  # of the author's own class
            self._span.set_status(StatusCode.ERROR, type(failure).__name__)
