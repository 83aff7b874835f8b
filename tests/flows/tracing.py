"""Spans that runs have made in this process, as trees to compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

#: A tree: the name of each span, with the trees below it, in the order of their starts.
Tree = tuple[str, list["Tree"]]


class Spans:
    """What the exporter has been given."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider = provider
        self._exporter = exporter

    @property
    def all(self) -> list[ReadableSpan]:
        """Every span, in the order of their starts; each of them once."""
        found = list(self._exporter.get_finished_spans())
        assert len({(s.context.trace_id, s.context.span_id) for s in found}) == len(found)
        return sorted(found, key=lambda span: (span.start_time, -(span.end_time or 0)))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def trees(self) -> list[Tree]:
        """The spans as trees; a span whose parent was never emitted is an error."""
        spans = self.all
        known = {span.context.span_id for span in spans}
        orphans = [span.name for span in spans if span.parent is not None and span.parent.span_id not in known]
        assert not orphans, f"their parents were not emitted: {orphans}"
        return [self._tree(span, spans) for span in spans if span.parent is None]

    def tree(self) -> Tree:
        """The only tree."""
        (tree,) = self.trees()
        assert len({span.context.trace_id for span in self.all}) == 1
        return tree

    def _tree(self, root: ReadableSpan, spans: list[ReadableSpan]) -> Tree:
        below = [s for s in spans if s.parent is not None and s.parent.span_id == root.context.span_id]
        for span in below:
            assert span.context.trace_id == root.context.trace_id
        return root.name, [self._tree(span, spans) for span in below]


@contextmanager
def traced(
    monkeypatch: pytest.MonkeyPatch,
    sampler: Sampler | None = None,
    wrap: Callable[[TracerProvider], trace.TracerProvider] = lambda provider: provider,
) -> Iterator[Spans]:
    """Set up the SDK with an exporter in memory, for the block; the API lets an application do that only once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(**({} if sampler is None else {"sampler": sampler}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with monkeypatch.context() as patched:
        patched.setattr(trace, "_TRACER_PROVIDER", wrap(provider))
        yield Spans(provider, exporter)
    provider.shutdown()


class PlainProvider(trace.TracerProvider):
    """A provider that wraps the SDK's, as agents do: its tracers have the API's methods only, and choose no ids."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *args: Any, **options: Any) -> trace.Tracer:
        return PlainTracer(self._provider.get_tracer(*args, **options))


class PlainTracer(trace.Tracer):
    """A tracer of a ``PlainProvider``."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start_span(self, *args: Any, **options: Any) -> trace.Span:
        return self._tracer.start_span(*args, **options)

    def start_as_current_span(self, *args: Any, **options: Any) -> Any:
        return self._tracer.start_as_current_span(*args, **options)


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    """A span's attributes without the prefix, and without what each has."""
    found = {key.removeprefix("durable."): value for key, value in (span.attributes or {}).items()}
    return {key: value for key, value in found.items() if key not in ("run_id", "workflow", "operation")}
