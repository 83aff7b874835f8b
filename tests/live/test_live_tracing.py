"""Traces of runs in worker and web processes: one tree for each run, in every pool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventually import eventually
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.sdk.trace import TracerProvider
from pools import MANNERS, own_flows, worker_in_pool
from processes import Deployment, fetch

pytestmark = pytest.mark.live

FLAKY = ("flaky", (("attempt 1", (("in flaky", ()),)), ("attempt 2", (("in flaky", ()),))))
COROUTINE = ("coroutine", (("attempt 1", (("in coroutine", ()),)),))
ADOPTED = ("adopted", (("attempt 1", (("in adopted", ()),)),))


@pytest.fixture(scope="module")
def flows() -> Iterator[Any]:
    with own_flows("traced_flows") as found:
        yield found


@pytest.fixture(scope="module", **MANNERS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, flows: Any) -> Iterator[Deployment]:
    """A worker and a web process that write their spans into a file."""
    files, folder = {"SPANS": "spans"}, tmp_path_factory.mktemp
    with worker_in_pool(request.param, folder, "traced_app", "traced_app:create_app()", files=files) as made:
        yield made


def spans_of(site: Deployment, trace_id: int) -> list[dict[str, Any]]:
    """The spans of a trace that the processes have written, in the order of their starts."""
    file = Path(site.settings["SPANS"])
    lines = file.read_text().splitlines() if file.exists() else []
    return sorted((s for s in map(json.loads, lines) if s["trace"] == trace_id), key=lambda span: span["start"])


def written(site: Deployment, trace_id: int, *names: str) -> list[dict[str, Any]]:
    """The spans of a trace, once those of these names are written."""

    def found() -> list[dict[str, Any]]:
        spans = spans_of(site, trace_id)
        return spans if {span["name"] for span in spans} >= set(names) else []

    return eventually(found, 10, f"{names} are written")


def tree(spans: list[dict[str, Any]], root: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """The spans below one, without those of Celery's instrumentation."""
    below = [s for s in spans if s["parent"] == root["id"] and "celery" not in s["scope"]]
    return root["name"], tuple(tree(spans, span) for span in below)


def start(site: Deployment, monkeypatch: pytest.MonkeyPatch, workflow: Any) -> tuple[Any, int]:
    """Start a run within a span of this process; the run, and the id of its trace."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())
    token = contexts.attach(baggage.set_baggage("customer", "c-1"))
    try:
        with trace.get_tracer("caller").start_as_current_span("caller") as caller:
            return site.engine.start(workflow), caller.get_span_context().trace_id
    finally:
        contexts.detach(token)


def test_c107_a_run_is_one_tree_over_processes(site, flows, monkeypatch):
    """Steps, retries, coroutines, an adopted task, a sleep, a child; each span once, with what libraries did below."""
    run, trace_id = start(site, monkeypatch, flows.traced)
    assert run.result(timeout=40) == [2, "c-1", "adopted", 2, "c-1"]

    spans = written(site, trace_id, "traced")
    assert max(Counter(span["id"] for span in spans).values()) == 1
    (root,) = [span for span in spans if span["name"] == "traced"]
    name, below = tree(spans, root)
    assert (name, below[:4]) == ("traced", (FLAKY, COROUTINE, ADOPTED, ("sleep", ())))
    assert sorted(below[4:]) == sorted([("inner", (FLAKY,)), COROUTINE])


def test_celerys_spans_are_in_the_trace(site, flows, monkeypatch):
    """Messages, steps in place and turns: no span of a task begins a trace of its own."""
    run, trace_id = start(site, monkeypatch, flows.traced)
    run.result(timeout=40)

    def tasks() -> list[dict[str, Any]]:
        return [span for span in spans_of(site, trace_id) if "celery" in span["scope"]]

    ran = {"run/flaky", "run/coroutine", "run/adopted", "run/durable.wake"}
    eventually(lambda: ran <= {span["name"] for span in tasks()}, 10, "each task has a span in the trace")
    steps = Counter(
        span["name"] for span in tasks() if span["name"].startswith("run/") and "durable" not in span["name"]
    )
    assert steps == {"run/flaky": 4, "run/coroutine": 2, "run/adopted": 1}


def test_c107_a_webhook_request_is_in_the_trace_of_its_run(site, flows, monkeypatch):
    """The web process writes the span of the request below that of the hook, which a worker writes later."""
    site.start_web()
    run, trace_id = start(site, monkeypatch, flows.received)
    (hook,) = eventually(run.hooks, 20, "the webhook is open")
    assert fetch("POST", hook["url"], b"paid").status == 202

    assert run.result(timeout=40) == "paid"
    found = written(site, trace_id, "received", "webhook request")
    (root,) = [span for span in found if span["name"] == "received"]
    assert tree(found, root) == ("received", (("webhook", (("webhook request", ()),)),))
    site.stop("web", 15)
