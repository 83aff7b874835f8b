"""``publish`` in a workflow, without any I/O: what goes into the log, and what a replay makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from simulator import Simulator

from durable import ConfigurationError, SerializationError, Value, events, publish
from durable.registry.decorators import step
from durable.registry.definitions import Workflow


@dataclass
class Progress:
    done: int


progress = Value("progress", Progress)


@step(name="published_calls.pause")
def pause() -> None:
    """Do nothing."""


def played(function: Callable[..., Any]) -> Simulator:
    return Simulator(Workflow(function, name="published_calls.flow"), ()).turn()


def published(sim: Simulator) -> list[tuple[str, str]]:
    return [(each.name, each.value) for each in sim.log if isinstance(each, events.ValuePublished)]


def test_each_call_is_one_event_in_order():
    async def flow() -> None:
        publish("a", 1)
        publish("b", [2])
        await pause()
        publish("a", 3)

    sim = played(flow)
    assert published(sim) == [("a", "1"), ("b", "[2]")]
    sim.complete("pause")
    assert published(sim) == [("a", "1"), ("b", "[2]"), ("a", "3")]


def test_a_replay_publishes_nothing_again():
    async def flow() -> None:
        publish("a", 1)
        await pause()

    assert played(flow).cold().take() == []


def test_calls_may_be_added_and_removed_while_runs_are_under_way():
    """What the run has passed publishes nothing, and differs in nothing."""

    async def before() -> None:
        publish("old", 1)
        await pause()

    async def after() -> None:
        publish("new", 1)
        publish("newer", 2)
        await pause()
        publish("last", 3)

    sim = played(before)
    replay = sim.cold(workflow=Workflow(after, name="published_calls.flow"))
    replay.feed([sim.completed("pause")])
    assert replay.fault is None
    assert [(command.name, command.value) for command in replay.take()] == [("last", "3")]


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("", 1, ValueError, "1 to 255"),
        (" a", 1, ValueError, "no spaces"),
        ("a\n", 1, ValueError, "printable"),
        ("x" * 256, 1, ValueError, "255"),
        (7, 1, TypeError, "must be a str"),
        ("a", object(), SerializationError, "object"),
        (progress, {"done": "many"}, SerializationError, "done"),
    ],
)
def test_what_cannot_be_published_is_refused_at_the_call(name, value, error, said):
    """The workflow may catch it; nothing is published."""
    raised: list[Exception] = []

    async def flow() -> None:
        try:
            publish(name, value)
        except Exception as refused:
            raised.append(refused)

    sim = played(flow)
    assert published(sim) == []
    refused = raised[0]
    assert isinstance(refused, error)
    assert said in str(refused)


def test_a_typed_value_is_converted():
    async def flow() -> None:
        publish(progress, {"done": 3})  # type: ignore[arg-type]

    ((name, text),) = published(played(flow))
    assert name == "progress"
    assert "Progress" in text


@pytest.mark.parametrize(("name", "kind"), [("", int), ("a", object()), ("a", lambda: 1)])
def test_a_value_that_cannot_be_checked_is_refused_where_it_is_defined(name, kind):
    with pytest.raises(ConfigurationError):
        Value(name, kind)


def test_outside_of_a_run_there_is_nothing_to_publish_for():
    with pytest.raises(RuntimeError, match="publish"):
        publish("a", 1)
