"""
Tracing: the OpenTelemetry spans of runs, and the context that crosses from ``start`` into steps.

The context is text that is kept with the run in SQL, so any process of the deployment can go on with the trace.  A span
of durable's own has an id that is derived from the run and the operation, so any process can name it as a parent before
it exists.  It is emitted once, after the commit that ends the run or the operation, with its true times.  Only the span
of an attempt is live while the step's function runs.

Nothing of OpenTelemetry is imported where its API is not installed, or the setting ``tracing`` is false.

Files, in import order::

    carried.py     what a run carries with it: the caller's trace, its baggage, and context variables
    operations.py  the operations of a run that have not ended
    batch.py       spans that are made together
    tracing.py     ``Tracing``, which makes no spans
    span_ids.py    spans with ids that were chosen before
    attempt_span.py  the span of a running attempt
    run_trace.py   the trace of a run, as every process derives it
    spans.py       ``SpanTracing``, which makes them
"""

from __future__ import annotations

from .carried import ContextVariables
from .operations import EndedOperation, OpenOperation, OpenOperations
from .tracing import RequestTrace, Tracing, quiet

__all__ = [
    "ContextVariables",
    "EndedOperation",
    "OpenOperation",
    "OpenOperations",
    "RequestTrace",
    "Tracing",
    "make_tracing",
    "quiet",
]


def make_tracing(is_on: bool, variables: ContextVariables) -> Tracing:
    """Return the tracing of an engine: with spans if that is on and OpenTelemetry's API is installed."""
    if not is_on:
        return Tracing(variables)
    try:
        from .spans import SpanTracing
    except ModuleNotFoundError as missing:
        if not (missing.name or "").startswith("opentelemetry"):
            raise
        return Tracing(variables)
    return SpanTracing(variables)
