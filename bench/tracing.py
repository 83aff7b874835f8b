"""
What tracing costs: ``python -m bench.tracing [--database postgresql] [--steps 50] [--rounds 40]``.

In this one process, without a worker: runs with the SDK of OpenTelemetry and an exporter that does nothing, in turn
with runs without tracing, with runs that the sampler drops, and with runs in which each step makes two bare spans of
the SDK in the place of durable's.  Prints the CPU time of a step.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from celery import Celery
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from durable import Durable, Run, registry
from durable.attempts.attempt import StepBody, run_claimed
from durable.store import Claim
from durable.tracing import ContextVariables, Tracing
from durable.tracing.tracing import AttemptTrace
from durable.turns.conclude import conclude
from durable.turns.continuation import Continuation
from durable.turns.drive import drive

from . import servers
from .workflows import sequence

#: As many as durable's spans have.
ATTRIBUTES = {f"bench.attribute_{number}": f"value {number}" for number in range(5)}


class NoExporter(SpanExporter):
    """Takes spans, and does nothing."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class BareSpans(Tracing):
    """Makes two spans for each attempt, and nothing else."""

    def __init__(self, provider: TracerProvider) -> None:
        super().__init__(ContextVariables())
        self._tracer = provider.get_tracer("bench")

    def attempt(self, held: Claim) -> AttemptTrace:
        for _ in range(2):
            self._tracer.start_span("bare", attributes=ATTRIBUTES).end()
        return super().attempt(held)


def main() -> None:
    """Measure what the command line asks for."""
    options = _options()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NoExporter()))
    trace.set_tracer_provider(provider)
    with ExitStack() as stack:
        database_url = stack.enter_context(servers.database(options.database))
        broker_url = stack.enter_context(servers.redis_database())

        def engine(name: str, *, tracing: bool) -> Durable:
            celery = Celery(name, broker=broker_url)
            made = Durable(celery, database_url=database_url, continuation="60s", tracing=tracing)
            stack.callback(made.close)
            return made

        engines = {"off": engine("off", tracing=False), "on": engine("on", tracing=True)}
        engines["two bare spans"] = engine("bare", tracing=False)
        engines["two bare spans"].__dict__["tracing"] = BareSpans(provider)
        engines["not sampled"] = engines["on"]
        engines["off"].migrate()
        measured: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(options.rounds + 2):
            for name, each in engines.items():
                with _not_sampled() if name == "not sampled" else nullcontext():
                    run = each.start(sequence, options.steps)
                micros = _micros_per_step(each, run, options.steps, provider)
                if number >= 2:
                    measured[name].append(micros)
    for name, found in measured.items():
        more = statistics.median(b - a for a, b in zip(measured["off"], found, strict=True))
        off = statistics.median(measured["off"])
        print(f"{name:15} {statistics.median(found):6.0f} µs of CPU time a step, {more:+5.0f} µs, {more / off:+6.1%}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tracing", description="What tracing costs.")
    parser.add_argument("--database", choices=servers.DATABASES, default="postgresql")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    return parser.parse_args()


@contextmanager
def _not_sampled() -> Iterator[None]:
    """The context of a caller whose trace is not sampled; the default sampler follows it."""
    caller = trace.NonRecordingSpan(trace.SpanContext(trace_id=1, span_id=1, is_remote=True))
    token = contexts.attach(trace.set_span_in_context(caller))
    try:
        yield
    finally:
        contexts.detach(token)


def _micros_per_step(engine: Durable, run: Run[Any], steps: int, provider: TracerProvider) -> float:
    """The CPU time of one run's steps and turns, with the export of its spans."""
    provider.force_flush()
    gc.collect()
    began = time.process_time()
    continuation = Continuation(engine, "celery")
    drive(engine, run.id, continuation=continuation)
    while (held := continuation.begin()) is not None:
        run_claimed(engine, held, StepBody(registry.steps[held.name]), partial(conclude, engine, continuation))
    provider.force_flush()
    return (time.process_time() - began) / steps * 1_000_000


if __name__ == "__main__":
    main()
