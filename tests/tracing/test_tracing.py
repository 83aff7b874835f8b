"""What tracing costs where it is off, and what it needs of OpenTelemetry's SDK."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from contextvars import ContextVar

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from durable import ConfigurationError
from durable.engine.settings import resolve
from durable.tracing import span_ids

PROGRAM = """
import sys
{before}
import redis  # imports some of OpenTelemetry itself
from celery import Celery
others = set(sys.modules)
from durable import Durable, step, workflow

celery = Celery("app", broker="memory://")
celery.conf.task_always_eager = True
engine = Durable(celery, database_url="sqlite:///{folder}/durable.db"{setting})

@step
def double(n: int) -> int:
    return 2 * n

@workflow
async def doubled(n: int) -> int:
    return await double(n)

assert engine.start(doubled, 4).result(timeout=10) == 8
own = sorted(name for name in set(sys.modules) - others if name.startswith("opentelemetry"))
print(type(engine.tracing).__name__, own, "durable.tracing.spans" in sys.modules)
"""


@pytest.mark.parametrize(
    ("before", "setting"),
    [("sys.modules['opentelemetry'] = None", ""), ("", ", tracing=False")],
    ids=["not-installed", "off"],
)
def test_nothing_is_imported_where_it_is_off(tmp_path, before, setting):
    """A run imports nothing of OpenTelemetry: it is not installed, or the setting is false."""
    program = textwrap.dedent(PROGRAM).format(before=before, setting=setting, folder=tmp_path)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Tracing [] False\n"


def test_the_sdk_takes_chosen_ids():
    """The canary: when a release of the SDK makes ids elsewhere, this fails, and span_ids.py needs another way."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("durable")
    trace_id, span_id = span_ids.trace_id_of("run-1"), span_ids.span_id_of("run-1", "r#1")

    assert span_ids.can_choose(tracer)
    span_ids.ChoosingTracer(tracer).start_span(trace_id, span_id, "chosen", Context(), {}, 1).end()
    tracer.start_span("random").end()

    chosen, random = exporter.get_finished_spans()
    assert (chosen.context.trace_id, chosen.context.span_id) == (trace_id, span_id)
    assert random.context.span_id != span_id


def test_ids_are_different_for_different_things():
    """A run, its operations and other runs' operations share none, and none is 0."""
    ids = [span_ids.span_id_of_run("a"), span_ids.span_id_of_run("b")]
    ids += [span_ids.span_id_of(run, op) for run in ("a", "b") for op in ("r", "r#1", "r#11")]

    assert len(set(ids)) == len(ids)
    assert all(0 < each < 2**64 for each in ids)


@pytest.mark.parametrize("value", ["maybe", 2])
def test_a_wrong_switch_is_refused(value):
    """The error names the setting and what it takes."""
    with pytest.raises(ConfigurationError, match="tracing: it must be true or false"):
        resolve({"tracing": value}, lambda name: None)


@pytest.mark.parametrize("value", [["tenant"], "tenant", [ContextVar("a"), ContextVar("a")]])
def test_wrong_context_variables_are_refused(value):
    """They are ContextVar objects, each of another name."""
    with pytest.raises(ConfigurationError, match="contextvars"):
        resolve({"contextvars": value}, lambda name: None)
