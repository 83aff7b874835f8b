"""
The trace of a run, as every process derives it from what the run carries.

It has the id of the trace of the run's start.  If the run was started by a process without OpenTelemetry, the id is a
hash of the run's id.
"""

from __future__ import annotations

from functools import lru_cache

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer, TraceState

from . import span_ids
from .carried import parse

#: The name of durable's tracer, by which a backend and a sampler know its spans.
SCOPE = "durable"


class RunTrace:
    """
    The trace of a run.

    Attributes:
        context: The span of the run's start, if that was traced, and the baggage.
        chooses_ids: Whether the ids of its spans are chosen; otherwise nothing is known about them before they exist.
        run_span_id: The id of the run's span.
        is_sampled: Whether its start was sampled.
        below_run: The context in which the run's span is the parent.
    """

    def __init__(
        self,
        run_id: str,
        context: Context,
        trace_id: int,
        flags: TraceFlags,
        state: TraceState | None,
        *,
        chooses_ids: bool,
    ) -> None:
        self.context = context
        self.trace_id = trace_id
        self.chooses_ids = chooses_ids
        self.is_sampled = flags.sampled
        self._flags = flags
        self._state = state
        self.run_span_id = span_ids.span_id_of_run(run_id)
        self.below_run = self.below(self.run_span_id)

    def below(self, span_id: int) -> Context:
        """Return the context in which the span with this id is the parent; without chosen ids, that of the start."""
        return trace.set_span_in_context(self.span(span_id), self.context) if self.chooses_ids else self.context

    def span(self, span_id: int) -> Span:
        """Return a stand-in for the span with this id; without chosen ids, for that of the start."""
        if not self.chooses_ids:
            return trace.get_current_span(self.context)
        known = SpanContext(self.trace_id, span_id, is_remote=True, trace_flags=self._flags, trace_state=self._state)
        return NonRecordingSpan(known)


@lru_cache(maxsize=1024)
def trace_of(tracer: Tracer, run_id: str, carried: str | None, *, chooses_ids: bool) -> RunTrace:
    """Return the trace of a run.  It is kept, since the steps of a run often follow each other in one process."""
    context = extracted(carried)
    start = trace.get_current_span(context).get_span_context()
    if start.is_valid:
        return RunTrace(run_id, context, start.trace_id, start.trace_flags, start.trace_state, chooses_ids=chooses_ids)
    # It was started by a process without OpenTelemetry: every process derives the same trace, and the same decision,
    # if their samplers agree.
    trace_id, sampler = span_ids.trace_id_of(run_id), getattr(tracer, "sampler", None)
    is_sampled = sampler is None or sampler.should_sample(None, trace_id, SCOPE).decision.is_sampled()
    flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
    if not chooses_ids:
        start = SpanContext(trace_id, span_ids.span_id_of_run(run_id), is_remote=True, trace_flags=flags)
        context = trace.set_span_in_context(NonRecordingSpan(start), context)
    return RunTrace(run_id, context, trace_id, flags, None, chooses_ids=chooses_ids)


@lru_cache(maxsize=1024)
def extracted(carried: str | None) -> Context:
    """Return the context of the process that has started the run: its span, and its baggage."""
    return propagate.extract(parse(carried).headers, context=Context())
