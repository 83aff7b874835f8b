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
from typing import Any, NamedTuple

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    TracerProvider,
)

from .. import codec, events
from ..events import Event
from ..sandbox import log_records
from ..store import Claim, Run
from . import span_ids, tracing
from .attempt_span import AttemptSpan, LateSpan
from .carried import Carried, ContextVariables, parse
from .operations import EndedOperation, OpenOperation
from .run_trace import SCOPE, RunTrace, extracted, trace_of

#: The key of a context in which instrumentations make no spans; the value of ``suppress_instrumentation``.
_SUPPRESS = "suppress_instrumentation"
_NOTHING = nullcontext()
#: What the description of the SDK's ``ParentBased`` says of spans below one of another process that is not sampled.
_OFF = "remoteParentNotSampled:AlwaysOffSampler"

#: How an operation or a run ended: ``completed``, ``failed`` or ``cancelled``, by the event that ends it.
_STATUSES = {kind: kind.value.partition("_")[2] for kind in events.EventKind}

_FAILURES = (events.StepFailedEvent, events.RunFailedEvent)
_CHILD_ENDS = (events.ChildCompleted, events.ChildFailed, events.ChildCancelled)

log = log_records.get("durable.tracing")


class _SetUp(NamedTuple):
    """
    What the application has set up in this process.

    Attributes:
        is_on: Whether the provider makes spans.
        choosing: Makes spans whose ids are chosen; None where the tracer does not take them.
        follows_start: Whether its sampler makes no span of a run whose start was not sampled.
    """

    provider: TracerProvider
    is_on: bool
    tracer: Tracer
    choosing: span_ids.ChoosingTracer | None
    follows_start: bool

    @classmethod
    def of(cls, provider: TracerProvider) -> _SetUp:
        """Make durable's tracer of a provider."""
        is_on = not isinstance(provider, ProxyTracerProvider | NoOpTracerProvider)
        tracer = provider.get_tracer(SCOPE)
        choosing = span_ids.ChoosingTracer(tracer) if span_ids.can_choose(tracer) else None
        return cls(provider, is_on, tracer, choosing, _follows_parent(getattr(tracer, "sampler", None)))


class SpanTracing(tracing.Tracing):
    """Tracing with spans, where the application has set up a tracer provider."""

    def __init__(self, variables: ContextVariables) -> None:
        super().__init__(variables)
        self._known = _SetUp.of(trace.get_tracer_provider())

    @property
    def is_on(self) -> bool:
        """Whether the application has set up OpenTelemetry in this process."""
        return self._set_up.is_on

    @property
    def _set_up(self) -> _SetUp:
        provider = trace.get_tracer_provider()
        # The provider may be set after the first run, and in a prefork child.
        if provider is not self._known.provider:
            self._known = _SetUp.of(provider)
        return self._known

    @contextmanager
    def start(self, workflow: str, run_id: str) -> Iterator[str | None]:
        """Trace the start of a run.  Yield what the run carries, for its row."""
        attributes = {"durable.run_id": run_id, "durable.workflow": workflow}
        set_up = self._set_up
        # Without a provider there is no span, but the caller's context is passed on.
        span = (
            set_up.tracer.start_as_current_span(f"start {workflow}", kind=SpanKind.PRODUCER, attributes=attributes)
            if set_up.is_on
            else _NOTHING
        )
        with span:
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

    def attempt(self, held: Claim) -> tracing.AttemptTrace:
        """Trace an attempt of a step; a block of it is part of the run's trace.  Never raises."""
        try:
            if self.is_on:
                return self._attempt_span(held)
            if parse(held.trace_context).headers:
                # The API without the SDK passes the caller's context on.
                return AttemptSpan(INVALID_SPAN, extracted(held.trace_context), self.batch)
        except Exception:
            log.exception("Attempt %d of step %s in run %s has no span.", held.attempt, held.name, held.run_id)
        return tracing.AttemptTrace()

    def _attempt_span(self, held: Claim) -> AttemptSpan:
        if self.drops(held.run_id, held.trace_context):
            run_trace = self._trace(held.run_id, held.trace_context)
            step = run_trace.span(span_ids.span_id_of(held.run_id, held.op_id))
            return AttemptSpan(step, run_trace.context, self.batch)
        outside = contexts.get_current()
        span = LateSpan(lambda began_at: self._made_attempt_span(held, outside, began_at))
        return AttemptSpan(span, extracted(held.trace_context), self.batch)

    def _made_attempt_span(self, held: Claim, outside: Context, began_at: int) -> Span:
        # A processor that asks for the current span must not get the one that is being made.
        token = contexts.attach(outside)
        try:
            # The task that runs the attempt may have a span of Celery's instrumentation.
            task = trace.get_current_span(outside).get_span_context()
            links = [Link(task)] if task.is_valid else []
            parent = self._trace(held.run_id, held.trace_context).below(span_ids.span_id_of(held.run_id, held.op_id))
            attributes: dict[str, Any] = {
                "durable.run_id": held.run_id,
                "durable.workflow": held.run_name,
                "durable.step": held.name,
                "durable.operation": held.op_id,
                "durable.attempt": held.attempt,
            }
            if held.queue is not None:
                attributes["messaging.destination.name"] = held.queue
            return self._set_up.tracer.start_span(
                f"attempt {held.attempt}", context=parent, attributes=attributes, links=links, start_time=began_at
            )
        except Exception:
            log.exception("Attempt %d of step %s in run %s has no span.", held.attempt, held.name, held.run_id)
            return trace.get_current_span(outside)
        finally:
            contexts.detach(token)

    def within(self, run_id: str, carried: str | None) -> AbstractContextManager[None]:
        """Make the run's span the parent of what the block traces: the messages that it sends."""
        return _attached(self._below_run(run_id, carried)) if self.is_on else _NOTHING

    def headers(self, run_id: str, carried: str | None) -> dict[str, str]:
        """Return what a message in the run's trace has for OpenTelemetry's instrumentation of Celery."""
        headers: dict[str, str] = {}
        if self.is_on and "opentelemetry.instrumentation.celery" in sys.modules:
            propagate.inject(headers, self._below_run(run_id, carried))
        return headers

    def quiet(self) -> AbstractContextManager[None]:
        """Keep OpenTelemetry's instrumentations from making spans in the block: of durable's own statements."""
        return _attached(contexts.set_value(_SUPPRESS, True))

    def drops(self, run_id: str, carried: str | None) -> bool:
        """Whether a run has no spans, because its start was not sampled.  Never raises."""
        try:
            return self._set_up.follows_start and not self._trace(run_id, carried).is_sampled
        except Exception:  # the spans are tried, and say what is wrong
            return False

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
        return super().request(run_id, op_id, request_id, carried, received_at)

    def _request_span(
        self, run_id: str, op_id: str, request_id: str, carried: str | None, received_at: int
    ) -> _RequestSpan:
        attributes = {"durable.run_id": run_id, "durable.operation": op_id, "durable.request_id": request_id}
        return _RequestSpan(self._delivery_span("webhook request", run_id, op_id, carried, received_at, attributes))

    def resumed(self, run_id: str, op_id: str, carried: str | None, began_at: int, committed_at: int) -> None:
        """Emit the span of a ``resume_hook`` that has committed its payload.  Never raises."""
        try:
            attributes = {"durable.run_id": run_id, "durable.operation": op_id}
            span = self._delivery_span("resume_hook", run_id, op_id, carried, began_at, attributes)
            span.end(committed_at * 1000)
        except Exception:
            log.exception("A payload for run %s has no span.", run_id)

    def _delivery_span(
        self, name: str, run_id: str, op_id: str, carried: str | None, began_at: int, attributes: dict[str, str]
    ) -> Span:
        """Start a span below that of a hook; it and the current span, which may be of another trace, are linked."""
        hook = self._trace(run_id, carried).below(span_ids.span_id_of(run_id, op_id))
        caller = trace.get_current_span()
        links = [Link(caller.get_span_context())] if caller.get_span_context().is_valid else []
        span = self._set_up.tracer.start_span(
            name, context=hook, attributes=attributes, links=links, start_time=began_at * 1000
        )
        if links and span.get_span_context().is_valid:
            caller.add_link(span.get_span_context(), {"durable.run_id": run_id})
        return span

    # The trace of a run

    def _trace(self, run_id: str, carried: str | None) -> RunTrace:
        set_up = self._set_up
        return trace_of(set_up.tracer, run_id, carried, chooses_ids=set_up.choosing is not None)

    def _below_run(self, run_id: str, carried: str | None) -> Context:
        return self._trace(run_id, carried).below_run

    # Spans that are emitted when they end

    def _emit_run(self, run: Run, run_trace: RunTrace, ended: Event) -> None:
        began = run.created_at if run.started_at is None else run.started_at
        attributes = {"durable.run_id": run.id, "durable.workflow": run.name, "durable.status": _STATUSES[ended.kind]}
        span = self._span(run_trace, run_trace.run_span_id, run.name, run_trace.context, began, attributes)
        _end(span, ended)

    def _emit_operation(
        self, run: Run, run_trace: RunTrace, operation: OpenOperation, ended: Event, op_id: str
    ) -> None:
        attributes: dict[str, Any] = {
            "durable.run_id": run.id,
            "durable.workflow": run.name,
            "durable.operation": op_id,
        }
        if operation.kind is events.StepCreated:
            attributes["durable.step"] = operation.name
            attributes["durable.status"] = _STATUSES[ended.kind]
        if isinstance(ended, events.AttemptEnded):
            attributes["durable.attempts"] = ended.attempt
        span_id = span_ids.span_id_of(run.id, op_id)
        span = self._span(run_trace, span_id, operation.name, run_trace.below_run, operation.at, attributes)
        for at, request_id in operation.received:
            span.add_event("received", {"durable.request_id": request_id} if request_id else None, at * 1000)
        # The end of the run is not the failure of a hook.
        _end(span, ended, is_own=operation.kind is not events.HookCreated)

    def _span(
        self, run_trace: RunTrace, span_id: int, name: str, parent: Context, began: int, attributes: dict[str, Any]
    ) -> Span:
        set_up = self._set_up
        if set_up.choosing is not None:
            return set_up.choosing.start_span(run_trace.trace_id, span_id, name, parent, attributes, began * 1000)
        return set_up.tracer.start_span(name, context=parent, attributes=attributes, start_time=began * 1000)


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


def _follows_parent(sampler: Any) -> bool:
    """Whether a sampler is the SDK's own that makes no span below one of another process that is not sampled."""
    if type(sampler).__module__ != "opentelemetry.sdk.trace.sampling":
        return False
    description = sampler.get_description()
    is_nested = description.count("remoteParentNotSampled:") > 1
    return description.startswith("ParentBased{") and not is_nested and _OFF in description


@contextmanager
def _attached(context: Context) -> Iterator[None]:
    """Make a context the current one for the block."""
    token = contexts.attach(context)
    try:
        yield
    finally:
        contexts.detach(token)


def _end(span: Span, ended: Event, *, is_own: bool = True) -> None:
    """End a span with an event of the log."""
    text = ended.error if is_own and isinstance(ended, _FAILURES) else None
    if text is not None:
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
