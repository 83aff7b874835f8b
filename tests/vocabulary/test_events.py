"""The log's vocabulary."""

import json

import pytest

from durable import events


def example(cls: type[events.Event]) -> events.Event:
    """An event of this kind with every field filled."""
    values = {
        "name": "n",
        "args": "{}",
        "result": "1",
        "error": '"e"',
        "reason": "why",
        "digest": "d" * 32,
        "attempt": 2,
        "started_at": 5,
        "worker": "host:1",
        "responded": ("a", "b"),
        "due_at": 9,
        "early": True,
        "token": "t",
        "owner": "other",
        "payload": "null",
        "request_id": "q",
        "run_id": "child",
        "attributes": {"phase": "one", "gone": None},
        "value": "2",
        "until": 4,
        "step": "r#2",
        "was": "step_created",
        "seed": "first",
        "renamed": {"own": "original"},
    }
    known = {f: values[f] for f in cls.__dataclass_fields__ if f in values}
    return cls(at=7, seq=3, op_id="r#1", **known)


@pytest.mark.parametrize("kind", sorted(events.KINDS))
def test_every_kind_survives_the_store(kind):
    """A row made from an event gives the same event back."""
    event = example(events.KINDS[kind])
    row = event_row = events.to_row(event)

    assert event == events.from_row(
        row["kind"], seq=row["seq"], at=row["at"], op_id=row["op_id"], data=row["data"], value=row["value"]
    )
    assert event_row["phase"] == event.phase


def test_the_vocabulary_is_the_designs():
    """There are these kinds of events and no others."""
    run = "run_created run_started run_completed run_failed run_cancel_requested run_cancelled run_continued run_forked"
    run += " run_paused run_resumed"
    step = "step_created step_retrying step_completed step_failed step_cancelled"
    wait = "wait_created wait_completed wait_cancelled"
    hook = "hook_created hook_conflicted hook_received hook_closed"
    child = "child_created child_completed child_failed child_cancelled"
    other = "marker_recorded attributes_set value_published reply_sent event_omitted"

    assert set(events.KINDS) == set(" ".join((run, step, wait, hook, child, other)).split())


def test_values_stay_out_of_the_small_column():
    """The encoded value, which may be 8 MiB, stands in a column of its own."""
    row = events.to_row(example(events.StepCompleted))

    assert row["value"] == "1"
    assert "result" not in json.loads(row["data"])


def test_defaults_are_not_written():
    """A field that is at its default takes no room in the log."""
    assert events.to_row(events.WaitCompleted(at=1, op_id="r#1"))["data"] == "{}"
