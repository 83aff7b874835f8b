"""``Question.reply`` in a workflow, without any I/O: what goes into the log, and what a replay makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from simulator import Simulator

from durable import ConfigurationError, Question, Request, SerializationError, codec, create_hook, define_hook, events
from durable.registry.decorators import step
from durable.registry.definitions import Workflow
from durable.replay import commands, reply_of, request_of, response_of

prices = define_hook(str, name="replied_calls.prices", reply=int)
orders = define_hook(str, name="replied_calls.orders")


@step(name="replied_calls.pause")
def pause() -> None:
    """Do nothing."""


def played(function: Callable[..., Any]) -> Simulator:
    return Simulator(Workflow(function, name="replied_calls.flow"), ()).turn()


def asked(sim: Simulator, payload: Any, request_id: str = "q-1") -> Simulator:
    """A payload for the first open hook, whose sender waits for a reply."""
    made = request_of(request_id, None)
    sim.requests[request_id] = Request.from_head(made.head_json(), made.data)
    return sim.turn(replace(sim.sent(payload), request_id=request_id))


def replied(sim: Simulator) -> list[str]:
    return [each.request_id for each in sim.log if isinstance(each, events.ReplySent)]


async def replies_twice() -> list[bool]:
    question = await prices.create()
    first = question.reply(1)
    await pause()
    return [first, question.reply(2)]


def test_the_first_call_is_one_event():
    sim = asked(played(replies_twice), "tea")
    assert replied(sim) == ["q-1"]
    sim.complete("pause")
    assert (replied(sim), sim.result) == (["q-1"], [True, False])


def test_a_replay_replies_nothing_again():
    assert asked(played(replies_twice), "tea").cold().take() == []


def test_a_reply_of_a_step_comes_first():
    """By its event, as it completes, fails or is tried again."""

    async def flow() -> list[bool]:
        question = await prices.create()
        await pause()
        return [question.reply(2), question.reply(3)]

    sim = asked(played(flow), "tea")
    done = replace(sim.completed("pause"), responded=("q-1",))
    assert sim.turn(done).result == [False, False]
    assert replied(sim) == []

    sim = asked(played(flow), "tea")
    pausing = sim.step("pause").op_id
    retrying = events.StepRetrying(at=0, op_id=pausing, attempt=1, error="{}", due_at=0, responded=("q-1",))
    assert sim.turn(retrying).complete("pause").result == [False, False]


def test_calls_may_be_added_and_removed_while_runs_are_under_way():
    """What the run has passed sends nothing and differs in nothing, and the next call is still the first."""

    async def before() -> None:
        await prices.create()
        await pause()

    async def after() -> None:
        question = await prices.create()
        assert question.reply(1)
        await pause()
        assert question.reply(2)

    sim = asked(played(before), "tea")
    replay = sim.cold(workflow=Workflow(after, name="replied_calls.flow"))
    replay.feed([sim.completed("pause")])
    assert replay.fault is None
    sent = [(each.request_id, each.value) for each in replay.take() if isinstance(each, commands.SendReply)]
    assert sent == [("q-1", "2")]

    sim = asked(played(after), "tea")
    replay = sim.cold(workflow=Workflow(before, name="replied_calls.flow"))
    replay.feed([sim.completed("pause")])
    assert (replay.fault, replay.take()) == (None, [])


def test_each_kind_of_hook_delivers_what_it_says():
    """A typed hook with replies only questions, one without only payloads, and one without a type both."""

    async def flow() -> list[str]:
        with_replies, without, untyped = prices.create("a"), orders.create("b"), create_hook("c")
        found: list[Any] = [await hook for hook in (with_replies, with_replies, without, untyped, untyped)]
        return [f"{each.id} {each.payload}" if isinstance(each, Question) else each for each in found]

    sim = played(flow)
    for number, (token, asks) in enumerate([("a", 1), ("a", 0), ("b", 1), ("c", 1), ("c", 0)]):
        event = replace(sim.sent(f"p{number}", token), request_id=f"q-{number}" if asks else None)
        sim.requests[f"q-{number}"] = request_of(f"q-{number}", None)
        sim.turn(event)
    assert sim.result == ["q-0 p0", "None p1", "p2", "q-3 p3", "p4"]


def test_a_question_is_an_argument_and_comes_back():
    """With its payload, and with the request that its reply answers, which the store has."""
    request = Request.from_head(request_of("q-1", None).head_json(), b"")
    text = codec.encode(Question({"n": 1}, request, "replied_calls.prices"))
    assert codec.request_ids(text) == {"q-1"}
    found = codec.decode(text, {"q-1": request})
    assert (found, found.id, found.hook) == (Question({"n": 1}, request, "replied_calls.prices"), "q-1", prices.name)
    assert codec.plain(text) == {"payload": {"n": 1}, "request": "q-1", "hook": "replied_calls.prices"}
    assert codec.fit(found, Question[dict[str, int], int], "question") is found
    with pytest.raises(SerializationError):
        codec.fit({"n": 1}, Question, "question")
    assert repr(found) == "<Question q-1 dict>"  # payloads may have secrets


def test_a_question_of_a_test_has_no_sender():
    """Its reply is only checked."""
    question: Question[str, int] = Question("tea", hook="replied_calls.prices")
    assert (question.id, question.reply(3)) == (None, True)
    with pytest.raises(SerializationError, match="'much' does not fit"):
        question.reply("much")  # type: ignore[arg-type]


def test_a_value_is_the_answer_to_a_request():
    """What ends a run instead is none."""
    text = codec.encode({"größe": 1.5})
    assert reply_of(response_of(text)) == text
    assert [reply_of(replace_status(response_of("1"), status)) for status in (410, 500, 503)] == [None] * 3


def replace_status(response: Any, status: int) -> Any:
    return type(response)(response.body, status)


@pytest.mark.parametrize("reply", [object(), lambda: 1])
def test_a_reply_that_cannot_be_checked_is_refused_where_it_is_defined(reply):
    with pytest.raises(ConfigurationError, match="cannot check replies"):
        define_hook(str, name="replied_calls.bad", reply=reply)
