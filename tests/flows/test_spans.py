"""The spans of runs: one trace for each run, each span once, in any process and whatever is replayed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import flask
import pytest
from driving import restart, settle, settle_family
from forking import in_child
from opentelemetry import baggage, trace
from opentelemetry import context as contexts
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode
from servers import migrate
from tracing import PlainProvider, Spans, attributes, traced

from durable import (
    Durable,
    Run,
    RunFailed,
    create_hook,
    create_webhook,
    resume_hook,
    sleep,
    step,
    workflow,
)
from durable.recovery.housekeeping import Housekeeping
from durable.store import runs
from durable.tracing import Tracing, span_ids
from durable.web import create_blueprint

#: By messages on SQLite, in place on PostgreSQL.
pytestmark = [pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True), pytest.mark.slow]

ORDER, CHARGE, SHIP = "tracing.order", "tracing.charge", "tracing.ship"
tenant: ContextVar[str] = ContextVar("tenant")

#: What steps have seen, by what they saw.
seen: list[Any] = []


@step(name=CHARGE, max_retries=1, retry_backoff=0.01, retry_jitter=False)
def charge(order: str, failures: int = 0) -> str:
    """Fails so often, and makes a span as an instrumented library does."""
    from durable import get_step_metadata

    with trace.get_tracer("library").start_as_current_span("GET /charges"):
        if get_step_metadata().attempt <= failures:
            raise ConnectionError(f"no answer for {order}")
    return order


@step(name=SHIP)
async def ship(order: str) -> str:
    """A coroutine, which runs on another thread."""
    with trace.get_tracer("library").start_as_current_span("POST /parcels"):
        await asyncio.sleep(0)
    return order


@workflow(name=ORDER)
async def order(number: str, failures: int = 0) -> str:
    await charge(number, failures)
    return await ship(number)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    with traced(monkeypatch) as found:
        yield found


STEPS = [
    (CHARGE, [("attempt 1", [("GET /charges", [])])]),
    (SHIP, [("attempt 1", [("POST /parcels", [])])]),
]


def test_a_run_is_one_tree(engine, spans):
    """From the caller's span to what a library does in a step; in place and by messages."""
    with trace.get_tracer("web").start_as_current_span("POST /orders"):
        run = engine.start(order, "A-1")
    settle(engine, run)

    assert run.result() == "A-1"
    assert spans.tree() == ("POST /orders", [(f"start {ORDER}", [(ORDER, STEPS)])])
    assert spans.one(f"start {ORDER}").kind is SpanKind.PRODUCER
    assert {span.attributes["durable.run_id"] for span in spans.all if "durable.run_id" in span.attributes} == {run.id}
    assert attributes(spans.one(ORDER)) == {"status": "completed"}
    assert attributes(spans.one(CHARGE)) == {"step": CHARGE, "status": "completed", "attempts": 1}
    first = attributes(spans.named("attempt 1")[0])
    assert (first["step"], first["attempt"]) == (CHARGE, 1)


def test_the_spans_have_the_times_of_the_log(engine, spans):
    """The run's from its first turn to its end, a step's from its call to its outcome."""
    run = engine.start(order, "A-1")
    settle(engine, run)

    log = {(event.kind.value, event.op_id): event.at * 1000 for event in run.events()}
    run_span, step_span = spans.one(ORDER), spans.one(CHARGE)
    assert (run_span.start_time, run_span.end_time) == (log["run_started", "r"], log["run_completed", "r"])
    assert (step_span.start_time, step_span.end_time) == (log["step_created", "r#1"], log["step_completed", "r#1"])


def test_retries_are_siblings(engine, spans):
    """Each with its exception; the step that succeeds at last is no error."""
    run = engine.start(order, "A-2", failures=1)
    settle(engine, run)

    step_tree = spans.tree()[1][0][1][0]
    assert step_tree == (CHARGE, [(f"attempt {n}", [("GET /charges", [])]) for n in (1, 2)])
    failed, second = (spans.named(name)[0] for name in ("attempt 1", "attempt 2"))
    assert failed.status.status_code is StatusCode.ERROR
    (exception,) = failed.events
    assert exception.attributes["exception.message"] == "no answer for A-2"
    assert second.status.status_code is spans.one(CHARGE).status.status_code is StatusCode.UNSET
    assert attributes(spans.one(CHARGE))["attempts"] == 2


def test_a_failure_goes_up_to_the_run(engine, spans):
    """The step's and the run's spans are errors with an exception event."""
    run = engine.start(order, "A-3", failures=2)
    settle(engine, run)

    with pytest.raises(RunFailed):
        run.result()
    for span in (spans.one(CHARGE), spans.one(ORDER)):
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]
        assert span.events[0].attributes["exception.type"].endswith("ConnectionError")
        assert attributes(span)["status"] == "failed"


def test_a_function_uses_its_attempts_span(engine, spans, own_registry):
    """What it sets is there, with the ids that it has read, whether the span was used before its end or not."""

    @step(name="tracing.marks")
    def marks() -> list[str]:
        span = trace.get_current_span()
        assert span.is_recording()
        span.set_attribute("order", "A-1")
        span.add_event("charged")
        context = span.get_span_context()
        return [trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id), span.name]

    @workflow(name="tracing.marked")
    async def marked() -> list[str]:
        return await marks()

    run = engine.start(marked)
    settle(engine, run)

    span = spans.one("attempt 1")
    context = span.context
    assert run.result() == [trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id), span.name]
    assert (span.attributes["order"], [event.name for event in span.events]) == ("A-1", ["charged"])


def test_an_attempt_whose_span_nothing_uses_has_true_times(engine, spans, own_registry):
    """It is made after the attempt, from before the function's first line to after its last."""

    @step(name="tracing.timed")
    def timed() -> int:
        return time.time_ns()

    @workflow(name="tracing.times")
    async def times() -> list[int]:
        return [await timed(), await timed()]

    run = engine.start(times)
    settle(engine, run)

    first, second = run.result()
    one, two = spans.named("attempt 1")
    assert one.start_time <= first <= one.end_time <= two.start_time <= second <= two.end_time


def test_spans_wait_while_a_worker_goes_on_in_place(engine, spans, own_registry):
    """They are emitted together after the run's last step here; housekeeping emits them while a step takes long."""
    before: list[list[str]] = []

    @step(name="tracing.looks")
    def looks() -> None:
        # Attempts and steps have the times of different clocks, so their order says nothing.
        before.append(sorted(span.name for span in spans.all if span.name != "start tracing.looking"))
        if len(before) == 3:
            housekeeping = Housekeeping(engine)
            housekeeping.tick()
            if housekeeping.emitting is not None:
                housekeeping.emitting.join(10)
            assert len(spans.named("attempt 1")) == 2
            housekeeping.stop()

    @workflow(name="tracing.looking")
    async def looking() -> None:
        for _ in range(4):
            await looks()

    run = engine.start(looking)
    settle(engine, run)

    assert run.status == "completed"
    assert spans.tree() == (
        "start tracing.looking",
        [("tracing.looking", [("tracing.looks", [("attempt 1", [])])] * 4)],
    )
    one, two = ["attempt 1", "tracing.looks"], ["attempt 1"] * 2 + ["tracing.looks"] * 2
    three = sorted(one + two)
    # A turn that finds no kept replay takes the outcome from the inbox, and what was before is emitted.
    keeps = engine.settings.continuation and engine.settings.replay_cache
    assert before == ([[], [], [], two] if keeps else [[], one, two, three])


def test_a_child_process_emits_none_of_its_parents_spans(engine, spans, own_registry):
    """A step forks while the spans of the step before it wait."""

    @step(name="tracing.forks")
    def forks() -> tuple[bool, bool]:
        return bool(engine.tracing.batch), in_child(lambda: not engine.tracing.batch)

    @workflow(name="tracing.forking")
    async def forking() -> list[tuple[bool, bool]]:
        return [await forks(), await forks()]

    run = engine.start(forking)
    settle(engine, run)

    goes_on, keeps = bool(engine.settings.continuation), bool(engine.settings.replay_cache)
    assert run.result() == [(goes_on, True), (goes_on and keeps, True)]
    assert len(spans.named("attempt 1")) == 2


def test_a_processor_may_use_the_current_span(engine, spans, own_registry):
    """It is told of a span that is being made, and finds the one around the attempt, not that one."""
    found: list[trace.SpanContext] = []

    class Looks(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if span.name == "attempt 1":
                found.append(trace.get_current_span().get_span_context())

    spans.provider.add_span_processor(Looks())
    run = engine.start(order, "A-1")
    settle(engine, run)

    assert run.result() == "A-1"
    assert found == [trace.INVALID_SPAN_CONTEXT] * 2


def test_a_sampler_that_fails_costs_no_attempt(engine, monkeypatch, caplog):
    """The function runs, and what it does with its span has no effect; the log says why."""

    class Fails(Sampler):
        def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **options: Any) -> Any:
            if name.startswith("attempt"):
                raise AttributeError("no such attribute")
            return SamplingResult(Decision.RECORD_AND_SAMPLE)

        def get_description(self) -> str:
            return "fails"

    with traced(monkeypatch, Fails()) as spans:
        run = engine.start(order, "A-1")
        settle(engine, run)

        assert run.result() == "A-1"
        assert len(spans.named(CHARGE)) == 1
        assert spans.named("attempt 1") == []
    assert caplog.text.count("has no span") == 2


def test_parallel_steps_are_siblings(engine, spans, own_registry):
    """All below the run, each with its own attempt."""

    @step(name="tracing.part")
    def part(n: int) -> int:
        return n

    @workflow(name="tracing.parts")
    async def parts() -> list[int]:
        return await asyncio.gather(*(part(n) for n in range(3)))

    run = engine.start(parts)
    settle(engine, run)

    assert spans.tree() == ("start tracing.parts", [("tracing.parts", [("tracing.part", [("attempt 1", [])])] * 3)])


def test_a_replay_makes_no_span_twice(engine, spans, own_registry):
    """Another process takes the run over in the middle, and has replayed all of it."""

    @workflow(name="tracing.long")
    async def long() -> None:
        for n in range(3):
            await charge(str(n))
            await create_hook(f"hook-{n}")

    run = engine.start(long)
    for n in range(3):
        settle(engine, run)
        restart(engine)
        resume_hook(f"hook-{n}", n)
    settle(engine, run)

    assert run.status == "completed"
    names = [name for name, _ in spans.tree()[1][0][1]]
    assert names == [CHARGE, "hook"] * 3


def test_a_workflow_sees_no_span(engine, spans, own_registry):
    """Its code runs again at each replay, so it is outside of every trace."""

    @workflow(name="tracing.looks")
    async def looks() -> bool:
        await charge("A-5")
        return trace.get_current_span().get_span_context().is_valid

    with trace.get_tracer("web").start_as_current_span("request"):
        run = engine.start(looks)
        settle(engine, run)

    assert run.result() is False


def test_sleeps_and_hooks_are_spans(engine, spans, own_registry):
    """From the call to the end; a hook's has an event for each payload, and a span for each ``resume_hook``."""

    @workflow(name="tracing.waits")
    async def waits() -> list[Any]:
        await sleep(0.01)
        with create_hook("approval") as hook:
            return [await hook, await hook]

    run = engine.start(waits)
    settle(engine, run)
    for payload in (1, 2):
        resume_hook("approval", payload)
        settle(engine, run)

    assert run.result() == [1, 2]
    hook = ("hook", [("resume_hook", [])] * 2)
    assert spans.tree() == ("start tracing.waits", [("tracing.waits", [("sleep", []), hook])])
    slept, at = spans.one("sleep"), {event.kind: event.at for event in run.events()}
    assert (slept.start_time, slept.end_time) == (1000 * at["wait_created"], 1000 * at["wait_completed"])
    assert [event.name for event in spans.one("hook").events] == ["received", "received"]


def test_who_resumes_a_hook_is_linked_with_the_run(engine, spans, own_registry):
    """The caller's span, of a trace of its own, and the span of the payload name each other."""

    @workflow(name="tracing.approved")
    async def approved() -> str:
        return await create_hook("approval-of")

    run = engine.start(approved)
    settle(engine, run)
    with trace.get_tracer("web").start_as_current_span("POST /approve"):
        resume_hook("approval-of", "yes")
    settle(engine, run)

    assert run.result() == "yes"
    caller, resumed = spans.one("POST /approve"), spans.one("resume_hook")
    hook = ("hook", [("resume_hook", [])])
    assert sorted(spans.trees()) == [("POST /approve", []), ("start tracing.approved", [("tracing.approved", [hook])])]
    assert [link.context.span_id for link in resumed.links] == [caller.context.span_id]
    assert [link.context.span_id for link in caller.links] == [resumed.context.span_id]


def test_a_child_run_is_below_its_parent(engine, spans, own_registry):
    """With all that it does; in the trace of the parent's caller."""

    @workflow(name="tracing.parent")
    async def parent() -> str:
        return await order("A-6")

    run = engine.start(parent)
    settle_family(engine, run)

    assert run.result() == "A-6"
    assert spans.tree() == ("start tracing.parent", [("tracing.parent", [(ORDER, STEPS)])])


def test_a_cancelled_run_ends_its_spans(engine, spans, own_registry):
    """Also those that its log does not end: its hooks.  Nothing stays without a parent."""

    @workflow(name="tracing.cancelled")
    async def cancelled() -> None:
        await asyncio.gather(sleep(3600), create_hook("never"))

    run = engine.start(cancelled)
    settle(engine, run)
    run.cancel("enough")
    settle(engine, run)

    assert run.status == "cancelled"
    assert spans.tree() == (
        "start tracing.cancelled",
        [("tracing.cancelled", [("hook", []), ("sleep", [])])],
    )
    assert attributes(spans.one("tracing.cancelled"))["status"] == "cancelled"


def test_a_run_that_is_not_sampled_makes_no_spans(engine, monkeypatch):
    """The caller's decision crosses with the context."""
    with traced(monkeypatch, ParentBased(ALWAYS_OFF)) as spans:
        run = engine.start(order, "A-7")
        settle(engine, run)

        assert run.result() == "A-7"
        assert spans.all == []


def test_a_sampler_that_takes_what_its_parent_does_not_is_asked(engine, monkeypatch):
    """The start is not sampled, and this sampler makes spans all the same."""
    with traced(monkeypatch, ParentBased(ALWAYS_OFF, remote_parent_not_sampled=ALWAYS_ON)) as spans:
        run = engine.start(order, "A-7")
        settle(engine, run)

        assert len(spans.named("attempt 1")) == 2
        assert [span.name for span in spans.all if span.name in (ORDER, CHARGE, SHIP)] == [ORDER, CHARGE, SHIP]


def test_a_run_that_is_not_sampled_costs_no_call_of_the_sdk(engine, monkeypatch):
    """No span is begun for its steps, attempts and end; only the start asks the sampler."""
    with traced(monkeypatch, ParentBased(ALWAYS_OFF)) as spans:
        asked: list[str] = []
        sampler = spans.provider.sampler
        ask = sampler.should_sample

        def noted(context: Any, trace_id: int, name: str, *args: Any) -> Any:
            asked.append(name)
            return ask(context, trace_id, name, *args)

        monkeypatch.setattr(sampler, "should_sample", noted)
        run = engine.start(order, "A-7")
        settle(engine, run)

    assert run.result() == "A-7"
    assert asked == [f"start {ORDER}", "GET /charges", "POST /parcels"]


def test_a_function_sees_that_its_run_is_not_sampled(engine, monkeypatch, own_registry):
    """So instrumentation that asks saves its work, and what it sends on is not sampled either."""

    @step(name="tracing.asks")
    def asks() -> list[bool]:
        span = trace.get_current_span()
        return [span.is_recording(), span.get_span_context().trace_flags.sampled]

    @workflow(name="tracing.asked")
    async def asked() -> list[bool]:
        return await asks()

    with traced(monkeypatch, ParentBased(ALWAYS_OFF)):
        run = engine.start(asked)
        settle(engine, run)

    assert run.result() == [False, False]


def test_a_run_from_a_process_without_opentelemetry_is_traced(engine, monkeypatch):
    """The command line, say: workers derive the trace from the run's id, so all spans are in one."""
    run = engine.start(order, "A-8")
    with traced(monkeypatch) as spans:
        settle(engine, run)

        assert spans.tree() == (ORDER, STEPS)
        assert spans.one(ORDER).context.trace_id == span_ids.trace_id_of(run.id)


def test_a_provider_that_chooses_no_ids_makes_all_spans_children_of_the_start(engine, monkeypatch):
    """A wrapper around the SDK: ids are random, so nothing but the start is known as a parent, and none is lost."""
    with traced(monkeypatch, wrap=PlainProvider) as spans:
        run = engine.start(order, "A-10", failures=1)
        settle(engine, run)

    assert run.result() == "A-10"
    name, below = spans.tree()
    assert name == f"start {ORDER}"
    library = ["GET /charges"]
    assert sorted((name, [each for each, _ in under]) for name, under in below) == [
        ("attempt 1", library),
        ("attempt 1", ["POST /parcels"]),
        ("attempt 2", library),
        (CHARGE, []),
        (ORDER, []),
        (SHIP, []),
    ]


def test_a_provider_that_chooses_no_ids_keeps_a_run_of_another_process_in_one_trace(engine, monkeypatch):
    """The run was started without OpenTelemetry: its trace's id is that of its id, and its spans have one parent."""
    run = engine.start(order, "A-11")
    with traced(monkeypatch, wrap=PlainProvider) as spans:
        settle(engine, run)

        own = [span for span in spans.all if span.instrumentation_scope.name == "durable"]
        assert len(own) == 5
        assert {span.context.trace_id for span in spans.all} == {span_ids.trace_id_of(run.id)}
        assert {span.parent.span_id for span in own} == {span_ids.span_id_of_run(run.id)}


@pytest.mark.parametrize("provider", [None, NoOpTracerProvider()], ids=["none", "no-op"])
def test_without_a_provider_runs_go_on(engine, monkeypatch, provider):
    """The API's own stand-ins: a run completes, and baggage crosses all the same."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    token = contexts.attach(baggage.set_baggage("customer", "c-2"))
    try:
        run = engine.start(order, "A-12")
    finally:
        contexts.detach(token)
    settle(engine, run)

    assert run.result() == "A-12"
    assert not engine.tracing.is_on


@pytest.mark.parametrize("provider", [None, NoOpTracerProvider()], ids=["none", "no-op"])
def test_without_a_provider_a_run_belongs_to_its_callers_trace(engine, monkeypatch, provider):
    """Another process may have one, and makes the run's spans below the span that came with the caller's request."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    caller = trace.SpanContext(trace_id=0xA1, span_id=0xB2, is_remote=True, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(caller)):
        run = engine.start(order, "A-13")

    with engine.store.read() as tx:
        row = runs.find(tx, run.id)
    assert row is not None
    assert f"{0xA1:032x}-{0xB2:016x}" in row.trace_context


def test_baggage_crosses_into_steps(engine, spans, own_registry):
    """The caller's baggage is there in a step, in a coroutine, and in a step of a child run."""

    @step(name="tracing.reads")
    def reads() -> Any:
        return baggage.get_baggage("customer")

    @step(name="tracing.awaits")
    async def awaits() -> Any:
        return baggage.get_baggage("customer")

    @workflow(name="tracing.inner")
    async def inner() -> Any:
        return await reads()

    @workflow(name="tracing.carries")
    async def carries() -> list[Any]:
        # The workflow's own code sees none.
        return [await reads(), await awaits(), await inner(), baggage.get_baggage("customer")]

    token = contexts.attach(baggage.set_baggage("customer", "c-1"))
    try:
        run = engine.start(carries)
    finally:
        contexts.detach(token)
    settle_family(engine, run)

    assert run.result() == ["c-1"] * 3 + [None]


def test_setting_tracing_to_false_makes_no_spans(engine, spans, monkeypatch):
    """Not one, with a provider that is set up."""
    quiet = Durable(engine.celery, database_url=str(engine.store.url.render_as_string(False)), tracing=False)
    run: Run[Any] = quiet.start(order, "A-9")
    settle(quiet, run)

    assert run.result() == "A-9"
    assert type(quiet.tracing) is Tracing
    assert [span.name for span in spans.all] == ["GET /charges", "POST /parcels"]
    quiet.close()


def test_a_webhook_request_is_below_its_hook(engine, spans, own_registry):
    """From its arrival to its answer, linked with the web server's own span, which is linked with it."""

    @workflow(name="tracing.receives")
    async def receives() -> str:
        return (await create_webhook()).text()

    run = engine.start(receives)
    settle(engine, run)
    app = flask.Flask("web")
    app.register_blueprint(create_blueprint(engine))
    (hook,) = run.hooks()
    path = hook["url"].removeprefix("https://hooks.test")
    with trace.get_tracer("flask").start_as_current_span("POST /webhook"):
        assert app.test_client().post(path, data="paid").status_code == 202
    settle(engine, run)

    assert run.result() == "paid"
    server, request = spans.one("POST /webhook"), spans.one("webhook request")
    tree = next(tree for tree in spans.trees() if tree[0] == "start tracing.receives")
    assert tree[1] == [("tracing.receives", [("webhook", [("webhook request", [])])])]
    assert attributes(request)["http.response.status_code"] == 202
    assert [link.context.span_id for link in request.links] == [server.context.span_id]
    assert [link.context.span_id for link in server.links] == [request.context.span_id]
    (received,) = spans.one("webhook").events
    assert received.attributes["durable.request_id"] == attributes(request)["request_id"]


def test_context_variables_cross_into_steps(engine, own_registry):
    """
    Those that the engine names, as they were at the start; in coroutines, retries and child runs too.

    The workflow's code sees none: what it decides by is in the log, so a history replays anywhere.
    """
    with_tenant = Durable(
        engine.celery,
        database_url=engine.store.url.render_as_string(False),
        contextvars=[tenant],
        tracing=False,
        continuation=engine.settings.continuation / 1_000_000,
    )

    @step(name="tracing.who")
    def who() -> str | None:
        return tenant.get(None)

    @step(name="tracing.async_who")
    async def async_who() -> str | None:
        return tenant.get(None)

    @workflow(name="tracing.whose")
    async def whose() -> str | None:
        return await who()

    @workflow(name="tracing.tenants")
    async def tenants() -> list[Any]:
        return [await who(), await async_who(), await whose(), tenant.get(None)]

    token = tenant.set("acme")
    run: Run[Any] = with_tenant.start(tenants)
    tenant.reset(token)
    other: Run[Any] = with_tenant.start(tenants)
    for each in (run, other):
        settle_family(with_tenant, each)

    assert (run.result(), other.result()) == (["acme"] * 3 + [None], [None] * 4)
    assert tenant.get(None) is None
    with_tenant.close()


def test_context_variables_have_a_limit(engine):
    """Every step reads them, so a large value is refused where it is set."""
    small = Durable(engine.celery, database_url=engine.store.url.render_as_string(False), contextvars=[tenant])
    token = tenant.set("x" * 20_000)
    try:
        with pytest.raises(ValueError, match=r"tenant \(20002 characters"):
            small.start(order, "A-1")
    finally:
        tenant.reset(token)
        small.close()


def test_statements_are_direct_beside_the_instrumentation_of_sqlalchemy(engine, spans):
    """Its listeners alone don't take the fast way, and durable's own statements make no spans."""
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

    from durable.store.statements import OPTION, _is_direct

    instrumentor = SQLAlchemyInstrumentor()
    # This release says that it is not for SQLAlchemy 2.1.
    instrumentor.instrument(engine=engine.store.engine, tracer_provider=spans.provider, skip_dep_check=True)
    try:
        run = engine.start(order, "A-1")
        settle(engine, run)

        assert spans.tree() == (f"start {ORDER}", [(ORDER, STEPS)])
        with engine.store.read() as tx:
            assert tx.dispatch.before_cursor_execute
            assert _is_direct(tx) is (OPTION in tx.get_execution_options())
    finally:
        instrumentor.uninstrument()


def test_with_a_cipher_the_context_is_encrypted(database, manner, monkeypatch, own_registry):
    """Baggage and context variables may be personal: the row has neither."""
    import secrets

    from celery import Celery

    from durable.cipher import aes_gcm

    sealed = Durable(
        Celery(f"sealed-{secrets.token_hex(4)}", broker="memory://"),
        database_url=database,
        cipher=aes_gcm({"k1": secrets.token_bytes(32)}),
        contextvars=[tenant],
        **manner,
    )
    migrate(sealed)
    token = tenant.set("acme")
    with traced(monkeypatch) as spans:
        run = sealed.start(order, "A-1")
        tenant.reset(token)
        settle(sealed, run)

        assert run.result() == "A-1"
        assert spans.tree() == (f"start {ORDER}", [(ORDER, STEPS)])
    with sealed.store.read() as tx:
        stored = runs.find(tx, run.id).trace_context
    assert stored.startswith("~s.")
    sealed.close()
