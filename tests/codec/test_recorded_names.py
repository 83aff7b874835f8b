"""Rows of older releases name classes of ours by modules that have moved since."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime

import pytest

from durable import codec, errors, events
from durable.client import HookInfo
from durable.context import StepMetadata, WorkflowMetadata

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
AT_TEXT = '{"$":"datetime","v":"2026-11-01T12:00:00+00:00"}'

#: Values, and the text that release 0.1 of November 2026 wrote for each.
RECORDED = [
    (
        HookInfo("order:7", "run-1", {"a": 1}, AT, False),
        '{"$":"dataclass","c":"durable.hooks:HookInfo","v":{"token":"order:7","run_id":"run-1","metadata":{"a":1},'
        '"created_at":' + AT_TEXT + ',"is_webhook":false}}',
    ),
    (
        StepMetadata(run_id="run-1", step_id="r#1", name="ship", attempt=2, started_at=AT, idempotency_key="k"),
        '{"$":"dataclass","c":"durable.context:StepMetadata","v":{"run_id":"run-1","step_id":"r#1","name":"ship",'
        '"attempt":2,"started_at":' + AT_TEXT + ',"idempotency_key":"k","heartbeat":null}}',
    ),
    (
        WorkflowMetadata(run_id="run-1", name="flow", started_at=AT, public_url=None),
        '{"$":"dataclass","c":"durable.context:WorkflowMetadata","v":{"run_id":"run-1","name":"flow",'
        '"started_at":' + AT_TEXT + ',"public_url":null}}',
    ),
]


@pytest.mark.parametrize(("value", "text"), RECORDED)
def test_a_row_of_an_older_release_is_read(value, text):
    """The recorded text becomes the value, though its class is in another module now."""
    assert value == codec.decode(text)


@pytest.mark.parametrize(("value", "text"), RECORDED)
def test_a_row_can_be_read_by_an_older_release(value, text):
    """A deploy may run both at once: the names are the same, and an older release does not look at newer fields."""
    older, now = json.loads(text), json.loads(codec.encode(value))

    assert older == now | {"v": {name: now["v"][name] for name in older["v"]}}


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_is_named_by_its_room(name):
    """Logs and pickles name each of our exceptions by ``durable.errors``, as releases did that had one file for all."""
    error = getattr(errors, name)

    assert f"durable.errors:{name}" == codec.kinds.class_path(error)
    assert codec.kinds.find_class(f"durable.errors:{name}") is error
    assert pickle.dumps(error, protocol=0) == f"cdurable.errors\n{name}\np0\n.".encode()


@pytest.mark.parametrize("kind", sorted(events.KINDS))
def test_an_event_is_named_by_its_room(kind):
    """A step may return events: their classes are recorded under ``durable.events``, as when it was one file."""
    event = events.KINDS[kind]

    assert f"durable.events:{event.__name__}" == codec.kinds.class_path(event)
    assert codec.kinds.find_class(f"durable.events:{event.__name__}") is event


def test_metadata_that_can_ask_its_attempt_crosses_without_that():
    """The metadata of a running step crosses; what arrives is not cancelled, and equals what was sent."""
    sent = StepMetadata(
        run_id="run-1",
        step_id="r#1",
        name="ship",
        attempt=1,
        started_at=AT,
        idempotency_key="k",
        is_cancelled=lambda: True,
    )

    arrived = codec.decode(codec.encode(sent))

    assert (sent.cancelled, arrived.cancelled) == (True, False)
    assert sent == arrived
