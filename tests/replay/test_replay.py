"""A workflow and its log in, what to do next out; and what happens when the two do not match."""

from __future__ import annotations

import asyncio
import json
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import Any

import pytest
from pydantic import SecretStr
from simulator import START, Simulator, state

from durable import codec, create_hook, create_webhook, events, now, race, sleep
from durable.registry.decorators import step
from durable.registry.definitions import Workflow
from durable.replay import RunInfo, commands
from durable.replay.replay import Replay


@step(name="test_replay.s")
def s(n: Any) -> Any:
    return n


@step(name="test_replay.other")
def other(n: Any) -> Any:
    return n


def workflow(function: Callable[..., Any]) -> Workflow[..., Any]:
    return Workflow(function, name="test_replay.flow")


def play(function: Callable[..., Any], *args: Any, **options: Any) -> Simulator:
    """The first turn of *function* as a workflow."""
    return Simulator(workflow(function), args, **options).turn()


def line(function: Callable[..., Any], text: str) -> str:
    """``file:line`` of the first line of *function* that holds *text*."""
    code = function.__code__
    for number in range(code.co_firstlineno, code.co_firstlineno + 50):
        if text in linecache.getline(code.co_filename, number):
            return f"{code.co_filename}:{number}"
    raise AssertionError(text)


# A turn


def test_nothing_happens_before_run_started():
    """A replay that was only told its arguments asks for nothing."""

    async def flow():
        s(1)

    sim = Simulator(workflow(flow), checked=False)
    sim.kept.feed([events.RunCreated(at=START, seq=1, name="x", args="{}")])

    assert sim.kept.take() == []
    assert sim.kept.cursor == 1


def test_commands_come_in_the_order_of_issue_and_once():
    """Steps, waits and hooks as the author called them; what was taken counts as recorded."""

    async def flow():
        calls = [s(1), sleep(5), create_hook(token="t").get_conflict(), s(2)]
        await asyncio.gather(*calls)

    sim = Simulator(workflow(flow), checked=False)
    sim.kept.feed([events.RunStarted(at=START, seq=2)])
    taken = sim.kept.take()

    assert [type(c).__name__ for c in taken] == ["CreateStep", "CreateWait", "CreateHook", "CreateStep"]
    assert [c.op_id for c in taken] == ["r#1", "r#2", "r#3", "r#4"]
    assert sim.kept.take() == []


def test_c97_a_fresh_replay_of_the_log_asks_for_what_it_lacks_only():
    """A log whose last turn was lost after its first command."""

    async def flow():
        await asyncio.gather(s(1), s(2))

    sim = play(flow)
    replay = sim.cold(upto=3)

    assert [c.op_id for c in replay.take()] == ["r#2"]


def test_what_was_created_and_given_up_in_one_turn_is_no_command():
    """The log never hears of it, and a fresh replay agrees (the simulator checks)."""

    async def flow():
        call = s(1)
        call.cancel()
        await s(2)

    sim = play(flow)

    assert [e.op_id for e in sim.open(events.StepCreated)] == ["r#2"]


def test_c79_a_cancelled_call_stays_cancelled_on_replay():
    """Withdraw once; a branch on it goes the same way each time."""

    async def flow():
        call = asyncio.ensure_future(s(1))
        await sleep(1)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            return await other("cancelled")

    sim = play(flow).wait(2)

    assert [e.op_id for e in sim.log if e.kind == "step_cancelled"] == ["r#1"]
    assert sim.complete("other", 5).result == 5


def test_c81_giving_up_what_has_ended_is_nothing():
    """Also when the outcome came in the same turn as the loss."""

    async def flow():
        await race(s(1), s(2))
        await s(3)

    sim = play(flow)
    sim.turn(sim.completed("r#1"), sim.completed("r#2"))

    assert [e for e in sim.log if e.kind == "step_cancelled"] == []


def test_c94_attempts_that_failed_are_read_over():
    """step_retrying concerns the worker, not the workflow."""

    async def flow():
        return await s(1)

    sim = play(flow)
    sim.turn(events.StepRetrying(at=0, op_id="r#1", attempt=1, error=codec.encode_error(ValueError()), due_at=0))

    assert sim.complete("s", 2).result == 2


def test_time_never_goes_back():
    """An event that bears an earlier time than the one before it."""

    async def flow():
        first = await s(1), now()
        return [first[1] <= (await s(2), now())[1]]

    sim = play(flow, checked=False)
    sim.clock += 10_000_000
    sim.complete("s")
    sim.clock -= 5_000_000

    assert sim.complete("s").result == [True]


def test_events_after_the_end_change_nothing():
    """A step that ran on, a payload that came too late."""

    async def flow():
        s(1)
        return "over"

    sim = play(flow)
    sim.kept.feed([events.StepCompleted(at=START, seq=9, op_id="r#1", attempt=1, result="1")])

    assert sim.kept.fault is None
    assert sim.kept.cursor == 9
    assert sim.outcome == commands.Outcome(status="completed", value='"over"')


def test_events_that_were_committed_may_be_fed_back():
    """A caller that reads the log again after its own commit does no harm."""

    async def flow():
        await asyncio.gather(s(1), sleep(5))

    sim = play(flow)
    sim.kept.feed([e for e in sim.log if e.kind.endswith("created") and e.op_id != "r"])

    assert sim.kept.fault is None
    assert sim.kept.take() == []


def test_size_grows_with_what_was_fed():
    """A cache can be bounded by it."""

    async def flow():
        await s(1)
        await s(2)

    sim = play(flow)
    before = sim.kept.size
    sim.complete("s", "x" * 10_000)

    assert sim.kept.size > before + 10_000


def test_ended_is_what_has_an_outcome_or_is_not_wanted():
    """A drive drops news about these."""

    async def flow():
        await race(s(1), sleep(5))
        with create_hook(token="t"):
            await s(2)
        await s(3)

    sim = play(flow).complete("r#1").complete("r#4")

    assert sim.kept.ended == {"r#1", "r#2", "r#3", "r#4"}


# Arguments and results


@dataclass
class Order:
    number: int


def test_arguments_are_fit_to_the_annotations():
    """What JSON gave as a dict becomes the class; *args and **kwargs item by item."""

    async def flow(order: Order, *more: Order, **named: Order):
        return [order.number, *[each.number for each in more], named["x"].number]

    made = workflow(flow)
    made.function.__annotations__ = {"order": Order, "more": Order, "named": Order}
    sim = Simulator(made, ({"number": 1}, {"number": 2}), {"x": {"number": "3"}}).turn()

    assert sim.result == [1, 2, 3]


def test_arguments_that_do_not_fit_fail_a_new_run():
    """The error names the parameter."""

    async def flow(n: int): ...

    made = workflow(flow)
    made.function.__annotations__ = {"n": int}
    sim = Simulator(made, ("three",)).turn()

    assert sim.outcome.status == "failed"
    assert "args.n" in codec.error_summary(sim.outcome.value).message


def test_a_parameter_that_is_gone_blocks_the_run():
    """The arguments were bound to the signature of the code that started it."""

    async def old(a, b):
        await s(a)

    async def new(a):
        await s(a)

    sim = play(old, 1, 2)
    fault = sim.cold(workflow=workflow(new)).fault

    assert "b" in fault.asked
    assert fault.op_id == "r"
    assert fault.where.startswith(__file__)


def test_c29_a_result_that_cannot_cross_fails_the_run():
    """With the path to it."""

    async def flow():
        return {"here": object()}

    sim = play(flow)

    assert sim.outcome.status == "failed"
    assert "here" in codec.error_summary(sim.outcome.value).message


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError(), BaseException("odd")])
def test_c26_what_the_workflow_raises_fails_the_run(error):
    """Exceptions and others; cancelling oneself is no cancelled run."""

    async def flow():
        raise error

    sim = play(flow)

    assert sim.outcome.status == "failed"
    assert codec.error_summary(sim.outcome.value).error_type.rpartition(".")[2] == type(error).__name__


def test_a_class_that_is_gone_blocks_the_run():
    """A recorded result that this code cannot read is no failure of the run."""

    async def flow():
        await s(1)

    sim = play(flow)
    gone = '{"$":"dataclass","c":"test_replay:Gone","v":{}}'
    replay = sim.cold()
    replay.feed([events.StepCompleted(at=START, seq=4, op_id="r#1", attempt=1, result=gone)])

    assert replay.fault.recorded == "step_completed of test_replay.s: {}"
    assert "Gone" in replay.fault.asked
    assert replay.outcome is None


def test_a_payload_that_no_longer_fits_blocks_the_run():
    """It was valid where it was sent."""

    async def flow():
        hook = create_hook(token="t")
        await s(1)
        await hook

    sim = play(flow)
    gone = '{"$":"dataclass","c":"test_replay:Gone","v":{}}'
    received = events.HookReceived(at=START, seq=5, op_id="r#1", payload=gone)
    replay = sim.cold()
    replay.feed([received, changed(sim.completed("s"), at=START, seq=6)])

    assert "Gone" in replay.fault.asked
    assert replay.fault.where == line(flow, "await hook")


# Cancelling


def test_a_cancel_is_seen_once_and_cleanup_goes_on():
    """CancelledError at the await, with the reason; what is issued after that runs."""
    told = []

    async def flow():
        try:
            await s(1)
        except asyncio.CancelledError as error:
            told.append(error.args)
            await other("cleanup")
            raise

    sim = play(flow, checked=False).cancel("enough").cancel("again")
    assert not sim.outcome
    sim.complete("other")

    assert told == [("enough",)]
    assert sim.outcome == commands.Outcome(status="cancelled")
    assert [e.op_id for e in sim.log if e.kind == "step_cancelled"] == ["r#1"]


def test_a_swallowed_cancel_ends_cancelled():
    """Whatever the workflow returns."""

    async def flow():
        try:
            await s(1)
        except asyncio.CancelledError:
            return "I go on"

    assert play(flow).cancel().outcome == commands.Outcome(status="cancelled")


def test_an_error_in_the_cleanup_is_attached():
    """The run is cancelled all the same."""

    async def flow():
        try:
            await s(1)
        finally:
            raise ValueError("cleanup failed")

    outcome = play(flow).cancel().outcome

    assert outcome.status == "cancelled"
    assert codec.error_summary(outcome.value).message == "cleanup failed"


def test_a_run_cancelled_in_its_first_turn_begins_first():
    """Its finally runs: what was begun is cleaned up."""
    told = []

    async def flow():
        try:
            await s(1)
        finally:
            told.append("finally")

    sim = Simulator(workflow(flow), checked=False)
    sim.turn(events.RunCancelRequested(at=0))

    assert told == ["finally"]
    assert sim.outcome.status == "cancelled"
    assert sim.open(events.StepCreated) == []


def test_c78_a_cancel_gives_up_all_parallel_steps():
    """Through gather and TaskGroup."""

    async def child(n):
        await s(n)

    async def flow():
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(child(n))
            await asyncio.gather(s(4), s(5))

    sim = play(flow).cancel()

    assert sim.outcome.status == "cancelled"
    assert sim.open(events.StepCreated) == []


# Divergence


async def recorded_flow():
    await s(1)
    await sleep(5)
    await create_hook(token="t")
    await s("last")


def recorded() -> Simulator:
    return play(recorded_flow).complete("s").wait(6).send("x")


async def another_step():
    await other(1)


async def another_argument():
    await s(2)


async def another_kind():
    await sleep(5)


async def another_moment():
    await s(1)
    await sleep(6)


async def another_token():
    await s(1)
    await sleep(5)
    await create_hook(token="u")


async def a_webhook_instead():
    await s(1)
    await sleep(5)
    await create_webhook()


@pytest.mark.parametrize(
    ("code", "op_id", "recorded_as", "asked", "text"),
    [
        (another_step, "r#1", "step test_replay.s", "step test_replay.other", "other(1)"),
        (another_argument, "r#1", '{"n":1}', '{"n":2}', "s(2)"),
        (another_kind, "r#1", "step test_replay.s", "wait (sleep) until 5 s", "sleep(5)"),
        (another_moment, "r#2", "until 5 s", "until 6 s", "sleep(6)"),
        (another_token, "r#3", "hook 'hook'", "hook 'hook'", "create_hook"),
        (a_webhook_instead, "r#3", "hook 'hook'", "webhook", "create_webhook"),
    ],
)
def test_c93_code_that_asks_for_something_else_is_a_fault(code, op_id, recorded_as, asked, text):
    """With what is recorded, what is asked, and the author's line; never an outcome, never a command."""
    replay = recorded().cold(workflow=workflow(code))

    assert replay.fault.op_id == op_id
    assert recorded_as in replay.fault.recorded
    assert asked in replay.fault.asked
    assert replay.fault.where == line(code, text)
    assert replay.outcome is None
    assert replay.take() == []


async def asks_for_less():
    await s(1)
    await asyncio.Event().wait()


async def ends_early():
    await s(1)


def test_c93_a_recorded_operation_that_nobody_asks_for_is_a_fault():
    """Where the workflow waits instead."""
    fault = recorded().cold(workflow=workflow(asks_for_less)).fault

    assert fault.op_id == "r#2"
    assert "until 5 s" in fault.recorded
    assert fault.asked == "nothing"
    assert fault.where == line(asks_for_less, "Event()")


def test_c93_a_workflow_that_ends_before_its_log_is_a_fault():
    """The run is not completed by code that left out what was recorded."""
    replay = recorded().cold(workflow=workflow(ends_early))

    assert replay.outcome is None
    assert replay.fault.op_id == "r#2"
    assert replay.fault.asked == "the end of the workflow"
    assert replay.fault.where.startswith(__file__)


def test_a_fault_in_a_task_names_the_line_of_that_task():
    """The op id leads to the task; its stack to the author's line."""

    async def old():
        await asyncio.gather(one(1), one(2))

    async def one(n):
        await s(n)

    async def new():
        await asyncio.gather(one(1), two())

    async def two():
        await asyncio.sleep(0)
        await asyncio.Event().wait()

    sim = play(old)
    fault = sim.cold(workflow=workflow(new)).fault

    assert fault.op_id == "r.2#1"
    assert fault.where == line(two, "Event()")


def test_a_divergence_cannot_be_swallowed():
    """Not even by `except BaseException` in a loop."""

    async def greedy():
        while True:
            try:
                await other(1)
            except BaseException:
                await asyncio.sleep(0)

    replay = recorded().cold(workflow=workflow(greedy))
    replay.park()

    assert replay.fault.op_id == "r#1"


def test_c93_two_outcomes_of_one_operation_are_a_fault():
    """The log is corrupt; the run survives."""

    async def flow():
        await sleep(1)
        await s(1)

    sim = play(flow).wait(2)
    sim.kept.feed([events.WaitCompleted(at=START, seq=9, op_id="r#1")])

    assert "two outcomes" in sim.kept.fault.recorded


@pytest.mark.parametrize(
    "event",
    [
        events.StepCompleted(at=START, seq=9, op_id="r#7", attempt=1, result="1"),
        events.WaitCompleted(at=START, seq=9, op_id="r#7"),
        events.HookReceived(at=START, seq=9, op_id="r#7", payload="1"),
        events.ChildCompleted(at=START, seq=9, op_id="r#7", result="1"),
    ],
    ids=lambda event: event.kind,
)
def test_c87_news_of_what_was_never_asked_for_is_a_fault(event):
    """An event without its *_created."""

    async def flow():
        await s(1)

    sim = play(flow)
    sim.kept.feed([event])

    assert sim.kept.fault.op_id == "r#7"
    assert event.kind in sim.kept.fault.recorded


def test_after_a_fault_nothing_more_happens():
    """Neither to the workflow nor to the commands."""

    async def flow():
        await s(1)

    sim = play(flow)
    sim.kept.feed([events.WaitCompleted(at=START, seq=9, op_id="r#7")])
    sim.kept.feed([events.StepCompleted(at=START, seq=10, op_id="r#1", attempt=1, result="1")])

    assert sim.kept.outcome is None
    assert sim.kept.cursor == 10


def test_the_diff_reads_well():
    """Run, place, line, recorded, asked."""
    text = str(recorded().cold(workflow=workflow(another_argument)).fault)

    assert text.startswith("Run 'run-1' no longer matches its log at r#1 (")
    assert 'recorded  step test_replay.s {"n":1}' in text
    assert 'asked     step test_replay.s {"n":2}' in text


def test_the_diff_shows_no_secret_and_no_large_value():
    """The reason of a blocked run is logged: neither arguments nor results are shown as they are stored."""

    async def flow(key):
        return await s(key)

    async def other_flow(key):
        return await s([key])

    async def without_key():
        pass

    sim = play(flow, SecretStr("hunter2"))
    texts = [str(sim.cold(workflow=workflow(changed_code)).fault) for changed_code in (other_flow, without_key)]
    result = json.dumps({"$": "unknown", "v": "x" * 1_000_000})
    sim.kept.feed([events.StepCompleted(at=START, seq=10, op_id="r#1", attempt=1, result=result)])

    assert all("no longer matches" in text and "**********" in text for text in texts)
    assert "hunter2" not in "".join(texts)
    assert len(str(sim.kept.fault)) < 2_000


@pytest.mark.parametrize("reordered", [lambda: s(n=1), lambda: s(1)])
def test_harmless_changes_of_code_are_no_divergence(reordered):
    """By keyword or by position; more code between."""

    async def new():
        await reordered()
        sorted([3, 1])
        await sleep("5s")
        await create_hook(token="t", metadata="new")
        await s("last")

    assert recorded().cold(workflow=workflow(new)).fault is None


def test_a_fault_is_the_same_whether_fed_at_once_or_in_turns():
    """A blocked run reads the same in every process."""
    sim = recorded()
    whole, parts = sim.cold(workflow=workflow(another_moment)), sim.replay(workflow(another_moment))
    for turn, following in zip(sim.turns, [*sim.turns[1:], None], strict=True):
        parts.feed(sim.log[turn.past : following and following.past])

    assert str(whole.fault) == str(parts.fault)


def test_a_token_that_differs_from_the_recorded_one_is_a_fault():
    """A hook of a turn that was thrown away, and the log of another."""

    async def flow():
        await create_hook()

    sim = Simulator(workflow(flow), checked=False)
    sim.kept.feed([events.RunStarted(at=START, seq=2)])
    (command,) = sim.kept.take()
    created = events.HookCreated(at=START, seq=3, op_id="r#1", name="hook", digest=command.digest, token="other")
    sim.kept.feed([created])

    assert "other" in sim.kept.fault.recorded


# Log records


def test_replaying_is_known_to_those_who_log(caplog):
    """A filter can drop what was said before: the loop says whether this is a replay."""
    said = []

    async def flow():
        said.append(asyncio.get_running_loop().replaying)
        await s(1)
        said.append(asyncio.get_running_loop().replaying)

    sim = play(flow, checked=False).complete("s")
    live, said[:] = list(said), []
    sim.cold()

    assert live == [False, False]
    assert said == [True, True]


# Kept or fresh


def test_a_kept_replay_knows_what_a_fresh_one_knows():
    """Cursor aside: the same commands, outcome, hooks, queue."""

    async def flow():
        webhook = create_webhook()
        taken = [await webhook]
        await s(1)
        taken.append(await webhook)
        webhook.close()
        await s(2)

    sim = play(flow).post().post().post()
    late = sim.posted()
    sim.complete("s").turn(late)
    cold = sim.cold()

    assert state(cold) == state(sim.kept)
    assert cold.cursor == len(sim.log)
    assert sim.kept.queued("r#1") == ["req-3", "req-4"]


def test_a_replay_needs_no_requests_but_those_it_is_told_of():
    """Values are decoded when they are delivered, with the requests of that feed."""

    async def flow():
        request = await create_webhook()
        return request.json()

    sim = play(flow)
    news = changed(sim.posted({"a": 1}), at=START, seq=4)
    info = RunInfo(run_id="run-1", name="n", started_at=START, public_url="https://example.test")
    replay = Replay(workflow(flow), info, "{}")
    replay.feed(sim.log)
    replay.feed([news], {"req-1": sim.requests["req-1"]})

    assert json.loads(replay.outcome.value) == {"a": 1}
