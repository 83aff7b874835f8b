"""What an author awaits: steps, sleep, race, hooks, webhooks, children; the run's time and randomness."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from simulator import START, Simulator

import durable
from durable import (
    ConfigurationError,
    HookClosed,
    HookConflict,
    HookPayloadError,
    NonDeterministicCall,
    Response,
    RunCancelled,
    RunFailed,
    SerializationError,
    StepFailed,
    context,
    create_hook,
    create_webhook,
    current,
    define_hook,
    events,
    get_step_metadata,
    get_workflow_metadata,
    now,
    patched,
    race,
    set_attributes,
    sleep,
    uuid4,
)
from durable.context.typed_hooks import HookDefinition
from durable.registry.decorators import step
from durable.registry.definitions import Workflow
from durable.replay import Replay, RunInfo
from durable.replay.hooks import Received


@step(name="test_context.s")
def s(n: Any) -> Any:
    return n


def play(function: Callable[..., Any], *args: Any, **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(Workflow(function, name=f"test_context.{function.__name__}"), args, **options).turn()


def kinds(sim: Simulator) -> list[str]:
    """The kinds of the log's events, without those of the run."""
    return [e.kind for e in sim.log if e.op_id != events.ROOT]


# Outside a run


@pytest.mark.parametrize(
    "call",
    [
        lambda: sleep(1),
        lambda: now(),
        lambda: durable.random(),
        lambda: uuid4(),
        lambda: race(),
        lambda: create_hook(),
        lambda: create_webhook(),
        lambda: define_hook(int).create(),
        lambda: get_workflow_metadata(),
        lambda: get_step_metadata(),
        lambda: patched("x"),
        lambda: set_attributes(),
    ],
)
def test_outside_a_run_they_raise_and_name_themselves(call):
    """As asyncio does without a running loop (c51 for define_hook)."""
    with pytest.raises(RuntimeError, match=r"\w+\(\) was called outside a"):
        call()


# Steps


def test_arguments_are_bound_by_name():
    """Positional or keyword: one and the same call."""

    @step(name="test_context.add")
    def add(a: int, b: int = 2) -> int: ...

    async def flow():
        await asyncio.gather(add(1, 2), add(b=2, a=1), add(1))

    created = [e for e in play(flow).log if e.kind == "step_created"]

    assert len({e.digest for e in created}) == 1
    assert [json.loads(e.args) for e in created] == [{"a": 1, "b": 2}, {"a": 1, "b": 2}, {"a": 1}]


def test_a_wrong_call_is_a_type_error_at_the_call():
    """As Python's own; the workflow may catch it, and nothing is asked for."""

    async def flow():
        try:
            s(1, 2, 3)
        except TypeError as error:
            return str(error)

    sim = play(flow)

    assert "positional" in sim.result
    assert kinds(sim) == []


def test_c36_an_argument_that_cannot_cross_is_refused_at_the_call_by_its_path():
    """c29: the workflow may catch it."""

    async def flow():
        try:
            s({"deep": [1, object()]})
        except SerializationError as error:
            return error.path

    assert "deep" in play(flow).result


def test_c35_values_go_by_copy():
    """What a step returns is a new object each time; the argument stays the workflow's."""

    async def flow():
        mine = [1]
        theirs = await s(mine)
        theirs.append(2)
        return mine

    assert play(flow).complete("s", [1]).result == [1]


def test_c25_a_failed_step_raises_its_own_error_with_a_note():
    """The class is kept; the note says which step, and how often it was tried."""

    async def flow():
        try:
            await s(1)
        except ValueError as error:
            return [str(error), error.__notes__]

    message, notes = play(flow).fail("s", ValueError("no"), attempt=4).result

    assert message == "no"
    assert notes == ["Step test_context.s (r#1) failed after 4 attempts."]


def test_an_error_that_cannot_be_rebuilt_is_a_step_failed():
    """With the original's name and text, and the attempts."""

    class Local(Exception): ...

    async def flow():
        try:
            await s(1)
        except StepFailed as error:
            return [error.error_type.rpartition(".")[2], error.message, error.attempts]

    assert play(flow).fail("s", Local("strange"), attempt=1).result == ["Local", "strange", 1]


@pytest.mark.parametrize("error", [StopIteration(3), StopAsyncIteration()])
def test_errors_that_end_iterations_get_through(error):
    """A future takes no StopIteration."""

    async def flow():
        try:
            await s(1)
        except (StepFailed, StopAsyncIteration) as caught:
            return type(caught).__name__

    assert play(flow).fail("s", error).result in ("StepFailed", "StopAsyncIteration")


# Time, randomness, metadata


def test_now_is_the_time_of_the_last_event():
    """Aware, UTC, monotone."""

    async def flow():
        first = now()
        await sleep("1h30m")
        return [first, now()]

    first, second = play(flow).wait(6000).result

    assert first == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert second - first == timedelta(minutes=90)


@pytest.mark.parametrize("past", [0, "0s", timedelta(0), datetime(2020, 1, 1, tzinfo=UTC)])
def test_c39_a_past_moment_returns_at_once(past):
    """No wait is recorded; other tasks get their turn."""

    async def flow():
        ran = []
        asyncio.get_running_loop().call_soon(ran.append, 1)
        await sleep(past)
        return ran

    sim = play(flow)

    assert sim.result == [1]
    assert kinds(sim) == []


@pytest.mark.parametrize("value", [float("nan"), -1, "soon", datetime(2030, 1, 1), True])
def test_invalid_sleeps_raise_at_the_call(value):
    """A duration that is NaN, negative, malformed or a bool, and a moment without a time zone."""

    async def flow():
        with pytest.raises(ValueError, match=r"."):
            sleep(value)

    assert play(flow).outcome.status == "completed"


@pytest.mark.parametrize(
    "value", ["30s", 30, 30.0, timedelta(seconds=30), datetime(2023, 11, 14, 22, 13, 50, tzinfo=UTC)]
)
def test_what_sleep_takes(value):
    """All of these are due at the same moment."""

    async def flow():
        await sleep(value)

    (wait,) = play(flow).open(events.WaitCreated)

    assert wait.due_at == START + 30_000_000


def test_c43_the_sleep_due_first_resumes_the_run():
    """The other stays pending."""

    async def flow():
        await asyncio.wait([asyncio.ensure_future(sleep(n)) for n in (50, 10)], return_when="FIRST_COMPLETED")
        return now()

    sim = play(flow).wait(20)

    assert sim.result == datetime(2023, 11, 14, 22, 13, 30, tzinfo=UTC)
    assert [w.due_at for w in sim.open(events.WaitCreated)] == [START + 50_000_000]


def test_c11_randomness_repeats_on_replay_and_differs_between_runs():
    """The simulator replays at each turn; another run draws otherwise."""

    async def flow():
        first = [durable.random().random(), str(uuid4())]
        await s(first)
        return [*first, durable.random().random(), str(uuid4())]

    one, other = (play(flow, run_id=run_id).complete("s").result for run_id in ("a", "b"))

    assert len({*one, *other}) == 8


def test_a_uuid_is_one_of_version_4():
    """As the standard library's."""

    async def flow():
        return uuid4()

    assert play(flow).result.version == 4


def test_each_task_draws_for_itself():
    """The order in which parallel tasks run changes nothing."""

    async def draw(n):
        await s(n)
        return durable.random().random()

    async def flow():
        return await asyncio.gather(draw(1), draw(2))

    first, second = play(flow), play(flow)

    assert first.complete("r.1#1").complete("r.2#1").result == second.complete("r.2#1").complete("r.1#1").result


def test_workflow_metadata_in_a_workflow():
    """c7: and in a function that it calls."""

    async def flow():
        told = get_workflow_metadata()
        return [told.run_id, told.name, told.started_at, told.public_url]

    assert play(flow).result == [
        "run-1",
        "test_context.flow",
        datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
        "https://example.test",
    ]


def test_c7_step_metadata_is_not_in_a_workflow():
    """Also not when the turn runs in a step's own process and context."""

    async def flow():
        with pytest.raises(RuntimeError, match="outside a step"):
            get_step_metadata()

    assert play(flow).outcome.status == "completed"


# race


def test_c16_the_first_outcome_in_the_log_wins():
    """The other is given up: its timer is deleted."""

    async def flow():
        return await race(s(1), sleep(1))

    by_step, by_sleep = play(flow).complete("s", "done"), play(flow).wait(2)

    assert by_step.result == "done"
    assert by_sleep.result is None
    assert "wait_cancelled" in kinds(by_step)
    assert "step_cancelled" in kinds(by_sleep)


def test_the_first_outcome_may_be_an_exception():
    """It is raised; the others are cancelled all the same."""

    async def flow():
        try:
            await race(s(1), sleep(60))
        except ValueError:
            return "raised"

    assert play(flow).fail("s", ValueError()).result == "raised"


def test_c42_a_loser_is_cancelled_and_awaited():
    """Its cleanup has ended when race returns, also when it awaits a step."""
    told = []

    async def loser():
        try:
            await sleep(60)
        finally:
            await s("cleanup")
            told.append("cleaned up")

    async def flow():
        result = await race(loser(), s(1))
        told.append("raced")
        return result

    sim = play(flow, checked=False).complete("r#1", "won")
    assert told == []
    sim.complete("r.1#2")

    assert told == ["cleaned up", "raced"]
    assert sim.result == "won"


def test_race_of_nothing_is_a_value_error():
    """It would wait for ever."""

    async def flow():
        with pytest.raises(ValueError, match="at least one"):
            race()

    assert play(flow).outcome.status == "completed"


def test_race_starts_at_the_call():
    """Like a step: what is raced runs whether or not the race is awaited yet."""

    async def flow():
        first = race(s(1), sleep(60))
        await s(2)
        return await first

    sim = play(flow)

    assert [e.op_id for e in sim.open(events.StepCreated)] == ["r#1", "r#3"]
    assert sim.complete("r#1", "early").complete("r#3").result == "early"


def test_c17_repeated_races_give_each_result_once():
    """Five results, five rounds, none twice."""

    async def flow():
        left, seen = {n: asyncio.ensure_future(s(n)) for n in range(5)}, []
        while left:
            seen.append(await race(*[asyncio.shield(call) for call in left.values()]))
            del left[seen[-1]]
        return seen

    sim = play(flow)
    for n in (3, 1, 4, 0, 2):
        sim.complete(f"r#{n + 1}", n)

    assert sim.result == [3, 1, 4, 0, 2]


def test_a_cancelled_race_cancels_all_of_it():
    """A deadline around a race."""

    async def flow():
        try:
            await asyncio.wait_for(race(s(1), sleep(60)), 5)
        except TimeoutError:
            return "late"

    sim = play(flow).wait(6)

    assert sim.result == "late"
    assert [e for e in sim.open_ops.values() if e.op_id.startswith("r#")] == []


def test_c53_a_hook_that_loses_keeps_the_next_payload():
    """The next awaiter gets it."""

    async def flow():
        hook = create_hook(token="t")
        first = await race(hook, s(1))
        return [first, await hook]

    assert play(flow).complete("s", "step").send("payload").result == ["step", "payload"]


def test_c53_a_payload_queued_after_a_sleep_was_over_loses_and_stays():
    """Both are there when the race begins: the log's order decides, and nothing is swallowed."""

    async def flow():
        hook, wait = create_hook(token="t"), sleep(5)
        await s(1)
        first = await race(hook, wait)
        return [first, await hook]

    assert play(flow).wait(6).send("payload").complete("s").result == [None, "payload"]


def test_a_payload_queued_before_a_sleep_was_over_wins():
    """The other way round."""

    async def flow():
        hook, wait = create_hook(token="t"), sleep(5)
        await s(1)
        return await race(wait, hook)

    assert play(flow).send("payload").wait(6).complete("s").result == "payload"


def test_a_queued_payload_wins_before_anything_starts():
    """What is settled already is first in the log; a coroutine beside it never begins."""
    began = []

    async def other():
        began.append(1)

    async def flow():
        hook = create_hook(token="t")
        await s(1)
        return await race(other(), hook)

    assert play(flow).send("payload").complete("s").result == "payload"
    assert began == []


def test_two_races_for_one_payload():
    """One gets it, the other goes on waiting."""

    async def flow():
        hook = create_hook(token="t")
        await s(1)
        return await asyncio.gather(race(hook, sleep(50)), race(hook, sleep(60)))

    assert play(flow).send("a").complete("s").send("b").result == ["a", "b"]


def test_c53_a_race_that_is_cancelled_after_the_hook_won_gives_the_payload_back():
    """The deadline comes while the loser still cleans up: the payload is the next awaiter's."""

    async def slow():
        try:
            await sleep(60)
        finally:
            await s("clean up")

    async def flow():
        hook = create_hook(token="t")
        try:
            await asyncio.wait_for(race(hook, slow()), 5)
        except TimeoutError:
            return await hook

    assert play(flow).send("payload").wait(6).result == "payload"


def test_a_conflict_is_an_outcome_of_a_race():
    """HookConflict wins against a sleep."""

    async def flow():
        try:
            await race(create_hook(token="t"), sleep(60))
        except HookConflict as error:
            return error.run_id

    assert play(flow, taken={"t": "run-9"}).result == "run-9"


# Hooks


def test_c44_payloads_in_order():
    """Three, the last ends the run."""

    async def flow():
        seen = []
        async for payload in create_hook(token="t", metadata={"a": 1}):
            seen.append(payload)
            if payload == "end":
                break
        return seen

    assert play(flow).send(1).send(2).send("end").result == [1, 2, "end"]


def test_c45_payloads_before_the_await_are_queued():
    """In order, while a step runs."""

    async def flow():
        hook = create_hook(token="t")
        await s(1)
        return [await hook, await hook, await hook]

    sim = play(flow)
    sim.turn(*[sim.sent(n) for n in range(3)])

    assert sim.complete("s").result == [0, 1, 2]


def test_c62_break_stops_listening_at_once():
    """Before the next statement: the step after the loop is asked for after the close."""

    async def flow():
        async for _ in create_hook(token="t"):
            break
        await s(1)

    sim = play(flow).send(1)

    assert kinds(sim)[-2:] == ["hook_closed", "step_created"]


@pytest.mark.parametrize("how", ["return", "raise", "cancel"])
def test_c62_leaving_the_loop_otherwise_stops_listening_too(how):
    """return, an exception, a cancelled task."""

    async def listen(hook):
        async for _ in hook:
            if how == "return":
                return
            if how == "raise":
                raise ValueError

    async def flow():
        hook = create_hook(token="t")
        task = asyncio.create_task(listen(hook))
        await s(1)
        task.cancel()
        await asyncio.wait([task])
        await s(2)

    sim = play(flow)
    if how != "cancel":
        sim.send(1)
    else:
        sim.complete("s")

    assert [e.op_id for e in sim.log if e.kind == "hook_closed"] == ["r#1"]


def test_with_stops_listening_at_its_end():
    """And so does close(), once."""

    async def flow():
        with create_hook(token="t") as hook:
            await s(1)
        hook.close()
        hook.close()
        await s(2)

    sim = play(flow).complete("s")

    assert kinds(sim).count("hook_closed") == 1


def test_await_keeps_listening():
    """To take one and go on, await the hook."""

    async def flow():
        hook = create_hook(token="t")
        await hook
        await s(1)

    assert play(flow).send(1).kept.open_hooks == {"r#1"}


def test_c52_a_closed_hook_gives_what_is_queued_then_raises():
    """HookClosed once nothing is left."""

    async def flow():
        hook = create_hook(token="t")
        await s(1)
        hook.close()
        first = await hook
        try:
            await hook
        except HookClosed:
            return first

    assert play(flow).send("queued").complete("s").result == "queued"


def test_c52_a_close_wakes_those_who_wait():
    """An awaiter gets HookClosed, a loop ends."""

    async def awaiting(hook):
        try:
            await hook
        except HookClosed:
            return "closed"

    async def listening(hook):
        return [payload async for payload in hook]

    async def flow():
        hook = create_hook(token="t")
        tasks = asyncio.gather(awaiting(hook), listening(hook))
        await s(1)
        hook.close()
        return await tasks

    assert play(flow).complete("s").result == ["closed", []]


def test_a_payload_that_comes_after_the_close_is_not_delivered():
    """It was accepted before the close was committed; a webhook's request is listed as not taken."""

    async def flow():
        webhook = create_webhook()
        await s(1)
        webhook.close()
        await s(2)

    sim = play(flow)
    late = sim.posted()
    sim.complete("s").turn(late)

    assert sim.kept.queued("r#1") == ["req-1"]
    assert sim.kept.taken == set()


def test_c46_one_token_can_be_opened_and_closed_in_a_loop():
    """Each round has a hook of its own."""

    async def flow():
        seen = []
        for _ in range(3):
            with create_hook(token="t") as hook:
                seen.append(await hook)
        return seen

    assert play(flow).send(1).send(2).send(3).result == [1, 2, 3]


def test_c46_one_token_can_be_reopened_within_a_turn():
    """The close comes before the next create, in the order of commands."""

    async def flow():
        conflicts = []
        for _ in range(3):
            with create_hook(token="t") as hook:
                conflicts.append(await hook.get_conflict())
        create_hook(token="t").close()
        return [*conflicts, await create_hook(token="t").get_conflict()]

    assert play(flow).result == [None] * 4


def test_c47_a_taken_token_raises_at_the_await():
    """With the owner's id; a step can still be asked for before."""

    async def flow():
        hook = create_hook(token="t")
        try:
            await hook
        except HookConflict as error:
            return [error.token, error.run_id]

    sim = play(flow, taken={"t": "run-9"})

    assert sim.result == ["t", "run-9"]
    assert [e for e in sim.log if e.kind == "hook_closed"] == []


def test_c48_get_conflict_beside_a_step():
    """None for the owner, the owner's id for the other; neither claim nor step is lost."""

    async def flow(token):
        hook = create_hook(token=token)
        conflict, _ = await asyncio.gather(hook.get_conflict(), s(1))
        return [conflict, await hook.get_conflict()]

    free = play(flow, "free").complete("s")
    taken = play(flow, "taken", taken={"taken": "run-9"}).complete("s")

    assert (free.result, taken.result) == ([None, None], ["run-9", "run-9"])


def test_c47_a_hook_conflicts_with_its_own_run_but_not_with_itself():
    """Two hooks of one run with one token: the second is told the run's own id."""

    async def flow():
        first, second = create_hook(token="t"), create_hook(token="t")
        return [await first.get_conflict(), await second.get_conflict()]

    assert play(flow).result == [None, "run-1"]


def test_c53_a_woken_awaiter_that_is_cancelled_passes_the_payload_on():
    """Woken and cancelled before it runs: the next one who waits gets it."""

    async def awaiting(hook):
        return await hook

    async def flow():
        hook = create_hook(token="t")
        first, second = (asyncio.create_task(awaiting(hook)) for _ in range(2))
        await asyncio.sleep(0)
        hook.put(Received(stamp=0, payload='"kept"'))  # as the replay does
        first.cancel()
        return await second

    assert play(flow).result == "kept"


def test_c53_an_awaiter_that_times_out_leaves_the_payload():
    """It is for the next await."""

    async def flow():
        hook = create_hook(token="t")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(hook, 5)
        return await hook

    assert play(flow).wait(6).send("kept").result == "kept"


def test_c53_a_background_subscriber_loses_nothing():
    """Beside a main task that races the same hook's run against sleeps."""

    async def subscriber(hook, seen):
        async for payload in hook:
            seen.append(payload)

    async def flow():
        seen: list[int] = []
        task = asyncio.create_task(subscriber(create_hook(token="t"), seen))
        for _ in range(3):
            await race(asyncio.shield(task), sleep(1))
        return seen

    sim = play(flow).send(1).wait(1).send(2).send(3).wait(1).send(4).wait(1)

    assert sim.result == [1, 2, 3, 4]


@pytest.mark.parametrize("token", ["", "x" * 256, "line\nbreak", "nul\0", 7, "\ud800"])
def test_tokens_that_no_hook_may_have(token):
    """1 to 255 characters, none of them a control character."""

    async def flow():
        with pytest.raises(ValueError, match="1 to 255 characters"):
            create_hook(token=token)

    assert play(flow).outcome.status == "completed"


def test_a_drawn_token_is_kept_on_replay():
    """It is random, and in the log."""

    async def flow():
        hook = create_hook()
        await s(hook.token)
        return hook.token

    sim, other = play(flow), play(flow)

    assert len(sim.token()) >= 43
    assert sim.token() != other.token()
    assert sim.complete("s").result == sim.log[2].token


def test_c55_metadata_goes_with_the_command():
    """Encoded, for get_hook."""

    async def flow():
        await create_hook(token="t", metadata={"n": (1, 2)})

    sim = Simulator(Workflow(flow, name="test_context.metadata"), checked=False)
    replay = sim.replay()
    replay.feed([events.RunStarted(at=START, seq=1)])
    (command,) = replay.take()

    assert json.loads(command.metadata)["n"]
    assert command.config is None
    assert not command.drawn


# Typed hooks


@dataclass
class Order:
    number: int


orders = define_hook(Order, name="test_context.orders")


def test_c51_a_typed_hook_delivers_its_type():
    """Decoded, and fit."""

    async def flow():
        order = await orders.create(token="t")
        return [type(order).__name__, order.number]

    assert play(flow).send({"number": 7}).result == ["Order", 7]


def test_c51_an_invalid_payload_is_refused_where_it_is_sent():
    """With pydantic's errors; the engine is never asked."""
    with pytest.raises(HookPayloadError) as raised:
        orders.resume("t", {"number": "seven"})

    assert [each["loc"] for each in raised.value.errors] == [("number",)]


def test_resume_hands_over_what_pydantic_made_of_it():
    """A dict becomes an Order, a str of digits an int."""
    sent = []

    class Engine:
        def resume_hook(self, token, payload, wait, wait_taken):
            sent.append((token, payload))

    engine, before = Engine(), list(current._engines)
    current.register(engine)
    try:
        orders.resume("t", {"number": "7"})
    finally:
        current._engines[:] = before

    assert sent == [("t", Order(7))]


def test_resume_in_a_workflow_is_refused():
    """It does SQL."""

    async def flow():
        with pytest.raises(NonDeterministicCall, match="move it into a step"):
            orders.resume("t", Order(1))

    assert play(flow).outcome.status == "completed"


def test_definitions_are_known_by_name():
    """So that resume_hook can validate by the hook's row."""
    assert context.definitions["test_context.orders"] is orders
    assert HookDefinition(Order, None).name == f"{__name__}.Order"
    assert HookDefinition(list[int], None).name == "list[int]"


# Webhooks


def test_c60_a_webhook_has_a_url_and_takes_requests():
    """Made of public_url and the drawn token; the request is taken when it is awaited."""

    async def flow():
        webhook = create_webhook()
        request = await webhook
        return [webhook.url, request.json()]

    sim = play(flow)
    url = f"https://example.test/.well-known/workflow/v1/webhook/{sim.token()}"
    sim.post({"a": 1})

    assert sim.result == [url, {"a": 1}]
    assert sim.kept.taken == {"req-1"}


def test_queued_requests_are_known():
    """Those that the workflow has not taken yet."""

    async def flow():
        webhook = create_webhook()
        await webhook
        await s(1)

    sim = play(flow).post().post().post()

    assert sim.kept.taken == {"req-1"}
    assert sim.kept.queued("r#1") == ["req-2", "req-3"]


def test_without_public_url_a_webhook_names_the_setting():
    """No Host header is ever a substitute."""

    async def flow():
        with pytest.raises(ConfigurationError, match="DURABLE_PUBLIC_URL"):
            create_webhook()

    assert play(flow, public_url=None).outcome.status == "completed"


def _config(**options: Any) -> dict[str, Any]:
    async def flow():
        await create_webhook(**options)

    made = Workflow(flow, name="test_context.configured")
    replay = Replay(made, RunInfo(run_id="r", name="n", started_at=START, public_url="https://x.test"), "{}")
    replay.feed([events.RunStarted(at=START, seq=1)])
    (command,) = replay.take()
    return json.loads(command.config)


def test_what_a_webhook_says_to_the_blueprint():
    """By default POST, 202 at once, everything else the settings'; the URL as the workflow was told it."""
    assert _config() == {
        "public_url": "https://x.test",
        "methods": ["POST"],
        "mode": "default",
        "response": None,
        "timeout": None,
        "on_timeout": None,
        "max_body": None,
        "verify": None,
        "dedupe": None,
    }


def test_what_a_webhook_may_be_told():
    """Methods, a static response, how long to hold, and what then."""
    config = _config(
        respond_with=Response("hi", 402), methods=["PUT", "POST"], timeout="5s", on_timeout=Response(), max_body=10
    )

    assert (config["mode"], config["methods"]) == ("static", ["PUT", "POST"])
    assert (config["timeout"], config["max_body"]) == (5_000_000, 10)
    assert config["response"]["body_b64"] == "aGk="
    assert config["on_timeout"]["head"]
    assert _config(respond_with="manual")["mode"] == "manual"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"respond_with": "later"}, TypeError),
        ({"respond_with": {"a": 1}}, TypeError),
        ({"respond_with": True}, TypeError),
        ({"methods": ()}, ValueError),
        ({"methods": ("post",)}, ValueError),
        ({"methods": ("HEAD",)}, ValueError),
        ({"methods": ("OPTIONS",)}, ValueError),
        ({"timeout": "56s"}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"on_timeout": "late"}, TypeError),
        ({"max_body": -1}, ValueError),
        ({"verify": "stripe"}, TypeError),
        ({"dedupe": 7}, TypeError),
        ({"dedupe": "no header"}, ValueError),
        ({"respond_with": Response(b"x", 204)}, ValueError),
    ],
)
def test_c59_invalid_webhook_options_raise_at_the_call(options, error):
    """`create_webhook` raises; no request is needed."""

    async def flow():
        with pytest.raises(error):
            create_webhook(**options)

    assert play(flow).outcome.status == "completed"


def test_c59_respond_with_in_a_workflow_is_refused():
    """It names the fix."""

    async def flow():
        with pytest.raises(NonDeterministicCall, match="step"):
            (await create_webhook()).respond_with("no")

    assert play(flow).post().outcome.status == "completed"


def test_a_webhook_in_a_step_argument_goes_by_its_id():
    """The request is not copied into the log."""

    async def flow():
        await s(await create_webhook())

    sim = play(flow).post(b"x" * 10_000)

    assert len(sim.log[-1].args) < 200


# Children


async def _child(n: int) -> int:
    return n


child = Workflow(_child, name="test_context.child")


def test_c73_a_child_returns_its_result():
    """It is a run of its own, with an id that follows from the call."""

    async def flow():
        return await child(1)

    sim = play(flow)
    (created,) = sim.open(events.ChildCreated)

    assert (created.name, created.args) == ("test_context.child", '{"n":1}')
    assert len(created.run_id) == 32
    assert sim.child(10).result == 10


def test_a_failed_child_raises_run_failed_with_the_cause():
    """With the child's id, and the original's class."""

    async def flow():
        try:
            await child(1)
        except RunFailed as error:
            return [error.run_id, error.error_type.rpartition(".")[2], type(error.__cause__).__name__]

    sim = play(flow)
    run_id = sim.open(events.ChildCreated)[0].run_id
    text = durable.codec.encode_error(ValueError("no"))
    sim.turn(events.ChildFailed(at=0, op_id="r#1", error=text))

    assert sim.result == [run_id, "ValueError", "ValueError"]


def test_a_cancelled_child_raises_run_cancelled():
    """A caller outside the parent cancels the child; the parent's await raises."""

    async def flow():
        try:
            await child(1)
        except RunCancelled as error:
            return error.reason

    assert play(flow).turn(events.ChildCancelled(at=0, op_id="r#1", reason="why")).result == "why"
    # Without a reason, as this version and older ones record it.
    assert play(flow).turn(events.ChildCancelled(at=0, op_id="r#1", reason="")).result is None
    assert play(flow).turn(events.ChildCancelled(at=0, op_id="r#1", reason=None)).result is None


def test_a_child_that_is_given_up_is_withdrawn():
    """The drive cancels it."""

    async def flow():
        await race(child(1), s(1))

    assert "child_cancelled" in kinds(play(flow).complete("s"))
