"""
Spans with ids that were chosen before.

A span of a run is emitted when the run ends, perhaps a month after its children, and in another process.  Its children
name it as their parent all the same, since its id is a hash of the run's id.  OpenTelemetry's API has no way to choose
the id of a span.  Its SDK takes ids from the tracer's ``id_generator``, so a copy of the tracer with another generator
does it.  With another implementation of the API ``can_choose`` is false: ids are random, and the span of ``start`` is
the parent of all spans.
"""

from __future__ import annotations

import copy
import hashlib
import threading
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer


def trace_id_of(run_id: str) -> int:
    """Return the id of the trace of a run that was started where no trace was."""
    return _number(f"trace\0{run_id}", 16)


def span_id_of_run(run_id: str) -> int:
    """Return the id of a run's span."""
    return _number(f"run\0{run_id}", 8)


def span_id_of(run_id: str, op_id: str) -> int:
    """Return the id of an operation's span."""
    return _number(f"operation\0{run_id}\0{op_id}", 8)


def can_choose(tracer: Tracer) -> bool:
    """Whether this tracer takes the ids of its spans from a generator."""
    generator = getattr(tracer, "id_generator", None)
    return hasattr(generator, "generate_span_id") and hasattr(generator, "generate_trace_id")


class ChoosingTracer:
    """A copy of a tracer, whose spans get the ids that the caller chooses."""

    def __init__(self, tracer: Tracer) -> None:
        self._generator = _ChosenIds()
        copied: Any = copy.copy(tracer)
        copied.id_generator = self._generator
        self._tracer: Tracer = copied

    def start_span(
        self, trace_id: int, span_id: int, name: str, context: Context, attributes: dict[str, Any], start_time: int
    ) -> Span:
        """Start a span of these ids.  Its parent, if *context* has one, is of the same trace."""
        self._generator.trace_id, self._generator.span_id = trace_id, span_id
        return self._tracer.start_span(name, context, attributes=attributes, start_time=start_time)


def _number(text: str, size: int) -> int:
    # 0 is not a valid id.
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big") or 1


class _ChosenIds(threading.local):
    """An ``IdGenerator`` of the SDK that returns what the thread has chosen."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id

    def is_trace_id_random(self) -> bool:
        # A hash is as evenly distributed as a random number, which is what samplers need.
        return True
