"""The timeline: from events and open steps to rows and bars, and from times to places on the axis."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from durable import events
from durable.client import timeline
from durable.client.timeline import BarKind
from durable.dashboard import charts, timeline_section
from durable.store import OpenStep

SECOND = 1_000_000


def created(at: int, op_id: str = "r#1", name: str = "scene.charge") -> events.StepCreated:
    return events.StepCreated(at=at, op_id=op_id, name=name, digest="d", args="")


def open_step(attempt: int, status: str, claimed_at: int | None = None) -> OpenStep:
    return OpenStep(
        op_id="r#1",
        name="scene.charge",
        attempt=attempt,
        status=status,
        not_before=0,
        claimed_at=claimed_at,
        host="host",
        pid=7,
        message_id=None,
        queue=None,
        sent_at=None,
        sends=0,
        interruptions=None,
        deadline_at=None,
        heartbeat_at=None,
        doubt=None,
    )


def test_a_step_has_a_bar_for_each_attempt_and_the_wait_before_it():
    """A retried step waits, fails, waits, and completes; its row ends with the last attempt."""
    log = [
        created(10),
        events.StepRetrying(at=30, op_id="r#1", attempt=1, started_at=20, worker="a:1", error="", due_at=40),
        events.StepCompleted(at=60, op_id="r#1", attempt=2, started_at=45, worker="b:2", result=""),
    ]

    (row,) = timeline.rows(log)

    assert (row.kind, row.name, row.state, row.start, row.end, row.attempts) == (
        "step",
        "scene.charge",
        "completed",
        10,
        60,
        2,
    )
    assert [(bar.kind, bar.state, bar.start, bar.end, bar.attempt, bar.worker) for bar in row.bars] == [
        (BarKind.WAITING, "completed", 10, 20, 1, None),
        (BarKind.ATTEMPT, "failed", 20, 30, 1, "a:1"),
        (BarKind.WAITING, "completed", 30, 45, 2, None),
        (BarKind.ATTEMPT, "completed", 45, 60, 2, "b:2"),
    ]


@pytest.mark.parametrize(
    ("step", "state", "last"),
    [
        (open_step(1, "claimed", 15), "running", (BarKind.ATTEMPT, "running", 15, None)),
        (open_step(1, "in_doubt", 15), "in_doubt", (BarKind.ATTEMPT, "in_doubt", 15, None)),
        (open_step(1, "pending"), "waiting", (BarKind.WAITING, "running", 10, None)),
        # It ended between two reads.
        (None, "waiting", (BarKind.WAITING, "running", 10, None)),
    ],
)
def test_an_open_step_ends_with_what_it_does_now(step, state, last):
    """A claimed attempt runs, one in doubt is shown as such, and another waits."""
    (row,) = timeline.rows([created(10)], [] if step is None else [step])

    bar = row.bars[-1]
    assert row.state == state
    assert row.end is None
    assert (bar.kind, bar.state, bar.start, bar.end) == last


def test_what_a_run_left_open_ends_with_it():
    """A step, a sleep and a hook without an end of their own end with their run."""
    log = [
        created(10),
        events.WaitCreated(at=11, op_id="r#2", digest="sleep:x", due_at=99),
        events.WaitCreated(at=12, op_id="r#3", digest="timeout:x", due_at=99),
        events.HookCreated(at=13, op_id="r#4", name="", digest="d", token="t"),
        events.HookReceived(at=14, op_id="r#4", request_id="q"),
    ]

    rows = timeline.rows(log, ended_at=50)

    assert [(row.kind, row.state, row.end) for row in rows] == [
        ("step", "cancelled", 50),
        ("sleep", "cancelled", 50),
        ("timeout", "cancelled", 50),
        ("hook", "cancelled", 50),
    ]
    assert [(mark.at, mark.request_id) for mark in rows[3].marks] == [(14, "q")]


def test_children_and_conflicts():
    """A child run has its run's id; a hook whose token was taken is a conflict."""
    log = [
        events.ChildCreated(at=1, op_id="r#1", name="scene.order", digest="d", args="", run_id="kid"),
        events.HookConflicted(at=2, op_id="r#2", name="", digest="d", token="t", owner="other"),
        events.ChildFailed(at=3, op_id="r#1", error=""),
    ]

    child, conflict = timeline.rows(log)

    assert (child.state, child.child_run_id, child.end) == ("failed", "kid", 3)
    assert conflict.state == "conflict"


def test_a_clock_that_goes_back_makes_no_bar_backwards():
    """An attempt that started before its call by another clock begins at the call."""
    log = [created(10), events.StepCompleted(at=12, op_id="r#1", attempt=1, started_at=5, worker="a:1", result="")]

    (row,) = timeline.rows(log)

    assert [(bar.start, bar.end) for bar in row.bars] == [(10, 12)]


def test_an_attempt_that_begins_after_the_end_of_its_row_is_drawn():
    """A very short one, by the clocks of two processes."""
    rows = timeline.rows(
        [created(10), events.StepCompleted(at=5_000, op_id="r#1", attempt=1, started_at=5_001, result="")]
    )
    run = SimpleNamespace(created_at=0, completed_at=9_000)
    axis = timeline_section._whole(run, rows, 9_000, is_first=False, is_last=False)
    assert all(axis.shows(bar.start, bar.end) for bar in rows[0].bars)


def test_the_columns_of_a_plot():
    """The highest column has the plot's height, an empty slice none, and failures are a part of their column."""
    columns = charts.columns([4, 0, 2], [1, 0, 2], 32)

    assert [column.height for column in columns] == [32, 0.0, 16]
    assert [column.failed for column in columns] == [8, 0, 16]
    assert charts.columns([0, 0], [0, 0], 32) == []
