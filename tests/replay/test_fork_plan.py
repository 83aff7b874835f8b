"""Every recorded log, forked behind every event and at every step: the fork's log replays, and lacks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import programs
import pytest
from simulator import Simulator

from durable import ForkRefused, events
from durable.client import child_report
from durable.replay import ForkPlan, ForkPoint, Replay, commands, plan_fork

PATHS = sorted(programs.HISTORIES.glob("*.json"))


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def history(request) -> Simulator:
    return Simulator.load(request.param)


def plans(history: Simulator, semantics: str = "at_least_once") -> Iterator[tuple[str, ForkPlan]]:
    """Every fork of the log that is not refused, with a name for it."""
    calls = [event.op_id for event in history.log if isinstance(event, events.StepCreated)]
    points = [(None, event.seq) for event in history.log[:-1]] + [(op_id, None) for op_id in calls]
    for step, seq in points:
        try:
            point = ForkPoint(step, seq, None, lambda _name: semantics)
            yield f"{history.run_id} at {step or seq}", plan_fork(history.run_id, history.log, [], point)
        except ForkRefused as refused:
            # A log that ends cancelled is not forked behind the request to cancel.
            if "asked to cancel" not in str(refused) and semantics == "at_least_once":
                raise


def replayed(history: Simulator, plan: ForkPlan) -> Replay:
    """A replay of the fork's log, which has then taken in what is in its inbox."""
    fork = history.replay()
    fork.feed(plan.log, history.requests, replaying=True)
    assert fork.fault is None
    began = [event for event in history.log[:2] if isinstance(event, events.RunStarted) and not plan.log]
    forked = events.RunForked(at=plan.until_at, run_id=history.run_id, until=plan.until, step=plan.step)
    seq = len(plan.log)
    for event in (*plan.before[:1], *began, *plan.before[1:], forked, *plan.after):
        seq += 1
        fork.feed([replace(event, seq=seq)], history.requests)
        # Hooks that the workflow asks for meanwhile are created before the next event comes, as a turn does.
    return fork


def test_a_fork_replays_whatever_the_point(history):
    """The log of the fork ends with a whole turn, and neither it nor what comes in makes the replay differ."""
    count = 0
    for name, plan in plans(history):
        fork = replayed(history, plan)
        assert fork.fault is None, f"{name}: {fork.fault}"
        fork.park()
        count += 1
    assert count or history.log[-1].kind == "run_cancelled"


def test_what_is_open_at_the_fork_is_asked_for_or_listed(history):
    """Each call in the fork's log has an outcome there, or is listed as open, or is made again."""
    for name, plan in plans(history):
        made = {event.op_id for event in plan.log if event.phase == "created" and event.op_id != events.ROOT}
        ended = {event.op_id for event in (*plan.log, *plan.before, *plan.after) if event.phase == "ended"}
        listed = {each.op_id for each in (*plan.waits, *plan.hooks, *plan.children)}
        others = {event.op_id for event in plan.log if isinstance(event, events.HookConflicted | events.MarkerRecorded)}
        assert made <= ended | listed | others, name
        assert [event.seq for event in plan.log] == list(range(1, len(plan.log) + 1)), name
        omitted = {event.op_id for event in plan.log if isinstance(event, events.EventOmitted)}
        fork = history.replay()
        fork.feed(plan.log, history.requests, replaying=True)
        asked = {command.op_id for command in fork.take() if isinstance(command, commands.CreateStep)}
        assert omitted <= asked, name
        fork.park()


def test_a_step_that_may_not_run_twice_refuses_the_fork(history):
    """Wherever a step has begun and has no outcome; elsewhere none of them is made again."""
    for name, plan in plans(history, "at_most_once"):
        omitted = {event.op_id for event in plan.log if isinstance(event, events.EventOmitted)}
        assert omitted <= {plan.step}, name


@pytest.mark.parametrize("reason", [None, "obsolete"])
def test_a_fork_keeps_the_end_of_a_child_that_was_cancelled_from_outside(reason):
    """With or without a reason: where the run then failed, its fork does not call the child again."""
    cancelled = child_report.of(events.RunCancelledEvent(at=3, reason=reason), "r#1")
    log: list[events.Event] = [
        events.RunCreated(seq=1, at=1, name="parent", args="{}"),
        events.RunStarted(seq=2, at=1),
        events.ChildCreated(seq=3, at=1, op_id="r#1", name="child", digest="d", args="{}", run_id="c"),
        replace(cancelled, seq=4),
        events.RunFailedEvent(seq=5, at=3, error="{}"),
    ]
    plan = plan_fork("r", log, [], ForkPoint(None, None, None, lambda _name: "at_least_once"))
    assert (plan.log, plan.before) == (log[:3], log[3:4])
    assert plan.until == 4
