"""``emit`` in a workflow, without any I/O: what a turn writes, and what a replay makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from simulator import Simulator

from durable import ConfigurationError, SerializationError, Stream, close_stream, emit
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@dataclass
class Row:
    number: int


rows = Stream("rows", Row, keep=5)


@step(name="emitted_calls.pause")
def pause() -> None:
    """Do nothing."""


def played(function: Callable[..., Any]) -> Simulator:
    return Simulator(Workflow(function, name="emitted_calls.flow"), ()).turn()


def test_each_call_is_one_item_in_order_and_no_event():
    async def flow() -> None:
        emit("a", 1)
        emit("b", [2])
        await pause()
        emit("a", 3)
        close_stream("a")

    sim = played(flow)
    assert sim.emitted == [("a", "1"), ("b", "[2]")]
    sim.complete("pause")
    assert sim.emitted == [("a", "1"), ("b", "[2]"), ("a", "3"), ("a", None)]
    kinds = [each.kind for each in sim.log]
    assert kinds == ["run_created", "run_started", "step_created", "step_completed", "run_completed"]


def test_a_replay_emits_nothing_again():
    async def flow() -> None:
        emit("a", 1)
        await pause()

    assert played(flow).cold().take() == []


def test_calls_of_emit_may_be_added_and_removed_while_runs_are_under_way():
    """What the run has passed emits nothing, and differs in nothing."""

    async def before() -> None:
        emit("old", 1)
        await pause()

    async def after() -> None:
        emit("new", 1)
        emit("newer", 2)
        await pause()
        emit("last", 3)

    sim = played(before)
    replay = sim.cold(workflow=Workflow(after, name="emitted_calls.flow"))
    replay.feed([sim.completed("pause")])
    assert replay.fault is None
    assert [(command.name, command.item) for command in replay.take()] == [("last", "3")]


@pytest.mark.parametrize(
    ("stream", "item", "options", "error", "said"),
    [
        ("", 1, {}, ValueError, "1 to 255"),
        (" a", 1, {}, ValueError, "no spaces"),
        ("a\n", 1, {}, ValueError, "printable"),
        ("x" * 256, 1, {}, ValueError, "255"),
        (7, 1, {}, TypeError, "name of a stream must be a str, or a Stream"),
        ("a", object(), {}, SerializationError, "object"),
        ("a", "x" * 262_143, {}, SerializationError, "262145 characters"),
        (rows, {"number": "many"}, {}, SerializationError, "number"),
        (rows, Row(1), {"keep": 1}, TypeError, "the Stream has the options"),
        ("a", 1, {"keep": 0}, ValueError, "keep=0"),
        ("a", 1, {"keep": True}, ValueError, "keep=True"),
        ("a", 1, {"on_retry": "forget"}, ValueError, "keep"),
        ("a", 1, {"until": "tomorrow"}, ValueError, "step"),
        ("a", 1, {"kept": 1}, TypeError, "kept"),
    ],
)
def test_what_cannot_be_emitted_is_refused_at_the_call(stream, item, options, error, said):
    """The workflow may catch it; nothing is emitted."""
    raised: list[Exception] = []

    async def flow() -> None:
        try:
            emit(stream, item, **options)
        except Exception as refused:
            raised.append(refused)

    assert played(flow).emitted == []
    assert isinstance(raised[0], error)
    assert said in str(raised[0])


def test_a_typed_item_is_converted():
    async def flow() -> None:
        emit(rows, {"number": 3})  # type: ignore[arg-type]

    ((name, text),) = played(flow).emitted
    assert name == "rows"
    assert "Row" in str(text)


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [("", int, {}), ("a", object(), {}), ("a", lambda: 1, {}), ("a", int, {"keep": -1}), ("a", int, {"until": "end"})],
)
def test_a_stream_that_cannot_be_is_refused_where_it_is_defined(name, kind, options):
    with pytest.raises(ConfigurationError):
        Stream(name, kind, **options)


@pytest.mark.parametrize(
    ("call", "name"), [(lambda: emit("a", 1), "emit"), (lambda: close_stream("a"), "close_stream")]
)
def test_outside_of_a_run_there_is_nothing_to_emit_to(call, name):
    with pytest.raises(RuntimeError, match=name):
        call()
