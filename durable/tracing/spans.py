"""
``SpanTracing``: the spans of runs, by OpenTelemetry's API.

The tree of a run::

    start <workflow>          in the process that calls ``start``, below its current span
      <workflow>              the run, from its first turn to its end
        <step>                from the call to the outcome
          attempt <number>    live while the step's function runs; one for each try
        sleep, hook, webhook  from the call to the end
          webhook request     from the request to its answer, in the web process
        <workflow>            a child run, with the same below it

The times of spans that are emitted when they end are the database's, as in the run's log.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    TraceState,
)

from .. import codec, events
from ..events import Event
from ..sandbox import log_records
from ..store import Claim, Run
from . import span_ids, tracing
from .carried import Carried, ContextVariables, parse
from .operations import EndedOperation, OpenOperation

#: The name of durable's tracer, by which a backend and a sampler know its spans.
SCOPE = "durable"

#: The key of a context in which instrumentations make no spans; the value of ``suppress_instrumentation``.
_SUPPRESS = "suppress_instrumentation"
_NOTHING = nullcontext()

_CHILD_ENDS = (events.ChildCompleted, events.ChildFailed, events.ChildCancelled)

log = log_records.get("durable.tracing")


class _Trace(NamedTuple):
    """The trace of a run; *context* has the span of its start, if that was traced, and the baggage."""

    context: Context
    trace_id: int
    flags: TraceFlags
    state: TraceState | None

    def below(self, span_id: int) -> Context:
        """Return the context in which the span with this id is the parent."""
        parent = SpanContext(self.trace_id, span_id, is_remote=True, trace_flags=self.flags, trace_state=self.state)
        return trace.set_span_in_context(NonRecordingSpan(parent), self.context)


class SpanTracing(tracing.Tracing):
    """Tracing with spans, where the application has set up a tracer provider."""

    def __init__(self, variables: ContextVariables) -> None:
        super().__init__(variables)
        self._provider: TracerProvider | None = None
        self._known_tracer: Tracer | None = None
        #: None where the tracer's ids cannot be chosen.
        self._choosing: span_ids.ChoosingTracer | None = None

    @property
    def is_on(self) -> bool:
        """Whether the application has set up OpenTelemetry in this process."""
        return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider | NoOpTracerProvider)

    @property
    def _tracer(self) -> Tracer:
        provider = trace.get_tracer_provider()
        # The provider may be set after the first run, and in a prefork child.
        if self._known_tracer is None or provider is not self._provider:
            tracer = provider.get_tracer(SCOPE)
            self._choosing = span_ids.ChoosingTracer(tracer) if span_ids.can_choose(tracer) else None
            self._provider, self._known_tracer = provider, tracer
        return self._known_tracer

    @contextmanager
    def start(self, workflow: str, run_id: str) -> Iterator[str | None]:
        """Trace the start of a run.  Yield what the run carries, for its row."""
        attributes = {"durable.run_id": run_id, "durable.workflow": workflow}
        with self._tracer.start_as_current_span(f"start {workflow}", kind=SpanKind.PRODUCER, attributes=attributes):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            yield Carried(headers, self.variables.capture()).to_text()

    def for_child(self, parent: Run, carried: str | None) -> str | None:
        """Return what a child run carries; *carried* is what its parent does, decrypted."""
        headers = dict(parse(carried).headers)
        if self.is_on:
            headers.clear()
            propagate.inject(headers, self._below_run(parent.id, carried))
        return Carried(headers, parse(carried).variables).to_text()

    @contextmanager
    def attempt(self, held: Claim) -> Iterator[tracing.AttemptTrace]:
        """Trace an attempt of a step.  What the block calls is part of the run's trace."""
        span, context = self._start_attempt(held)
        try:
            with nullcontext() if context is None else _attached(context):
                yield tracing.AttemptTrace() if span is None else _AttemptSpan(span)
        finally:
            if span is not None:
                span.end()

    def _start_attempt(self, held: Claim) -> tuple[Span | None, Context | None]:
        """Start the span of an attempt.  Return it, and the context for the step's function.  Never raises."""
        try:
            if self.is_on:
                return self._attempt_span(held)
            # The API without the SDK passes the caller's context on.
            has_context = bool(parse(held.trace_context).headers)
            return None, _extracted(held.trace_context) if has_context else None
        except Exception:
            log.exception("Attempt %d of step %s in run %s has no span.", held.attempt, held.name, held.run_id)
            return None, None

    def _attempt_span(self, held: Claim) -> tuple[Span, Context]:
        parent = self._below(self._trace(held.run_id, held.trace_context), span_ids.span_id_of(held.run_id, held.op_id))
        attributes: dict[str, Any] = {
            "durable.run_id": held.run_id,
            "durable.workflow": held.run_name,
            "durable.step": held.name,
            "durable.operation": held.op_id,
            "durable.attempt": held.attempt,
        }
        if held.queue is not None:
            attributes["messaging.destination.name"] = held.queue
        # The task that runs the attempt may have a span of Celery's instrumentation.
        task = trace.get_current_span().get_span_context()
        links = [Link(task)] if task.is_valid else []
        span = self._tracer.start_span(f"attempt {held.attempt}", context=parent, attributes=attributes, links=links)
        return span, trace.set_span_in_context(span, parent)

    @contextmanager
    def within(self, run_id: str, carried: str | None) -> Iterator[None]:
        """Make the run's span the parent of what the block traces: the messages that it sends."""
        if not self.is_on:
            yield
            return
        with _attached(self._below_run(run_id, carried)):
            yield

    def headers(self, run_id: str, carried: str | None) -> dict[str, str]:
        """Return what a message in the run's trace has for OpenTelemetry's instrumentation of Celery."""
        headers: dict[str, str] = {}
        if self.is_on and "opentelemetry.instrumentation.celery" in sys.modules:
            propagate.inject(headers, self._below_run(run_id, carried))
        return headers

    def quiet(self) -> AbstractContextManager[None]:
        """Keep OpenTelemetry's instrumentations from making spans in the block: of durable's own statements."""
        if "opentelemetry.instrumentation.sqlalchemy" not in sys.modules:
            return _NOTHING
        return _attached(contexts.set_value(_SUPPRESS, True))

    def emit(self, run: Run, carried: str | None, ended: Sequence[EndedOperation]) -> None:
        """Emit the spans of what has ended with a turn of the run.  Never raises."""
        try:
            run_trace = self._trace(run.id, carried)
            for each in ended:
                if each.op_id == events.ROOT:
                    self._emit_run(run, run_trace, each.ended)
                elif each.operation is not None and not isinstance(each.ended, _CHILD_ENDS):
                    self._emit_operation(run, run_trace, each.operation, each.ended, each.op_id)
        except Exception:
            log.exception("The spans of a turn of run %s could not be emitted.", run.id)

    def request(
        self, run_id: str, op_id: str, request_id: str, carried: str | None, received_at: int
    ) -> tracing.RequestTrace:
        """Trace a webhook request that was recorded, until it is answered.  Never raises."""
        if self.is_on:
            try:
                return self._request_span(run_id, op_id, request_id, carried, received_at)
            except Exception:
                log.exception("Request %s of run %s has no span.", request_id, run_id)
        return tracing.RequestTrace()

    def _request_span(
        self, run_id: str, op_id: str, request_id: str, carried: str | None, received_at: int
    ) -> _RequestSpan:
        hook = self._below(self._trace(run_id, carried), span_ids.span_id_of(run_id, op_id))
        server = trace.get_current_span()
        links = [Link(server.get_span_context())] if server.get_span_context().is_valid else []
        attributes = {"durable.run_id": run_id, "durable.operation": op_id, "durable.request_id": request_id}
        span = self._tracer.start_span(
            "webhook request", context=hook, attributes=attributes, links=links, start_time=received_at * 1000
        )
        if links and span.get_span_context().is_valid:
            server.add_link(span.get_span_context(), {"durable.run_id": run_id})
        return _RequestSpan(span)

    # The trace of a run

    def _trace(self, run_id: str, carried: str | None) -> _Trace:
        context, tracer = _extracted(carried), self._tracer
        start = trace.get_current_span(context).get_span_context()
        if start.is_valid:
            return _Trace(context, start.trace_id, start.trace_flags, start.trace_state)
        # It was started by a process without OpenTelemetry: every process derives the same trace, and the same
        # decision, if their samplers agree.
        trace_id, sampler = span_ids.trace_id_of(run_id), getattr(tracer, "sampler", None)
        is_sampled = sampler is not None and sampler.should_sample(None, trace_id, SCOPE).decision.is_sampled()
        flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
        return _Trace(context, trace_id, flags, None)

    def _below(self, run_trace: _Trace, span_id: int) -> Context:
        # Without chosen ids nothing is known about the parent but the span of the start.
        return run_trace.context if self._choosing is None else run_trace.below(span_id)

    def _below_run(self, run_id: str, carried: str | None) -> Context:
        return self._below(self._trace(run_id, carried), span_ids.span_id_of_run(run_id))

    # Spans that are emitted when they end

    def _emit_run(self, run: Run, run_trace: _Trace, ended: Event) -> None:
        began = run.created_at if run.started_at is None else run.started_at
        attributes = {"durable.run_id": run.id, "durable.workflow": run.name, "durable.status": _status(ended)}
        span = self._span(run_trace, span_ids.span_id_of_run(run.id), run.name, run_trace.context, began, attributes)
        _end(span, ended)

    def _emit_operation(self, run: Run, run_trace: _Trace, operation: OpenOperation, ended: Event, op_id: str) -> None:
        attributes: dict[str, Any] = {
            "durable.run_id": run.id,
            "durable.workflow": run.name,
            "durable.operation": op_id,
        }
        if operation.kind is events.StepCreated:
            attributes |= {"durable.step": operation.name, "durable.status": _status(ended)}
        if isinstance(ended, events.AttemptEnded):
            attributes["durable.attempts"] = ended.attempt
        parent = self._below(run_trace, span_ids.span_id_of_run(run.id))
        span_id = span_ids.span_id_of(run.id, op_id)
        span = self._span(run_trace, span_id, operation.name, parent, operation.at, attributes)
        for at, request_id in operation.received:
            span.add_event("received", {"durable.request_id": request_id} if request_id else None, at * 1000)
        # The end of the run is not the failure of a hook.
        _end(span, ended, is_own=operation.kind is not events.HookCreated)

    def _span(
        self, run_trace: _Trace, span_id: int, name: str, parent: Context, began: int, attributes: dict[str, Any]
    ) -> Span:
        options: dict[str, Any] = {"context": parent, "attributes": attributes, "start_time": began * 1000}
        if self._choosing is None:
            return self._tracer.start_span(name, **options)
        return self._choosing.start_span(run_trace.trace_id, span_id, name, **options)


class _AttemptSpan(tracing.AttemptTrace):
    """The span of a running attempt."""

    def __init__(self, span: Span) -> None:
        self._span = span

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


class _RequestSpan(tracing.RequestTrace):
    """The span of a webhook request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def answered(self, status: int, at: int) -> None:
        """End the span: the sender gets an answer with this status."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end(at * 1000)


@contextmanager
def _attached(context: Context) -> Iterator[None]:
    """Make a context the current one for the block."""
    token = contexts.attach(context)
    try:
        yield
    finally:
        contexts.detach(token)


@lru_cache(maxsize=1024)
def _extracted(carried: str | None) -> Context:
    """Return the context of the process that has started the run: its span, and its baggage."""
    return propagate.extract(parse(carried).headers, context=Context())


def _status(ended: Event) -> str:
    """Return how an operation or a run ended: ``completed``, ``failed`` or ``cancelled``."""
    return ended.kind.value.partition("_")[2]


def _end(span: Span, ended: Event, *, is_own: bool = True) -> None:
    """End a span with an event of the log."""
    text = getattr(ended, "error", None) if is_own else None
    if isinstance(ended, events.StepFailedEvent | events.RunFailedEvent) and text is not None:
        # A large error that has not been loaded is a reference, and no JSON.
        if text[:1] == "{":
            summary = codec.error_summary(text)
            described = {"exception.type": summary.error_type, "exception.message": summary.message}
            if summary.traceback:
                described["exception.stacktrace"] = summary.traceback
            span.add_event("exception", described, ended.at * 1000)
            span.set_status(StatusCode.ERROR, str(summary))
        else:
            span.set_status(StatusCode.ERROR)
    span.end(ended.at * 1000)
