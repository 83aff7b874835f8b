"""
The functions that authors call in workflows and steps: ``sleep``, hooks, webhooks, ``race``, metadata, randomness.

In a workflow, a function finds its run through the event loop of the thread.  In a step, it uses the running attempt.

Files, in import order::

    step.py         for steps: metadata, heartbeat, the transactional session
    webhooks.py     checks a webhook's options and writes them as JSON; its URL
    receivers.py    ``receiver``: fixed URLs whose requests start and resume runs
    routing.py      which rule of a receiver a request matches
    workflow.py     for workflows: sleep, hooks, webhooks, race, the run's time and randomness
    values.py       ``publish``: values that a run shows while it goes on
    streams.py      ``emit``: items that a run shows one after the other while it goes on
    typed_hooks.py  ``define_hook``: hooks whose payloads have a type
"""

from .receivers import RECEIVE_PATH, ReceiverDefinition, ResumeRule, StartRule, receiver, receivers
from .routing import ResumeRoute, StartRoute, Unroutable, event_id, events_of, route
from .step import StepMetadata, get_step_metadata, heartbeat, step_session
from .streams import close_stream, emit
from .typed_hooks import define_hook, definitions
from .values import publish
from .webhooks import WebhookConfig, recorded_url
from .workflow import (
    WorkflowMetadata,
    continue_as_new,
    create_hook,
    create_webhook,
    get_workflow_metadata,
    map,
    now,
    patched,
    race,
    random,
    set_attributes,
    should_continue_as_new,
    sleep,
    timeout,
    uuid4,
)

__all__ = [
    "RECEIVE_PATH",
    "ReceiverDefinition",
    "ResumeRoute",
    "ResumeRule",
    "StartRoute",
    "StartRule",
    "StepMetadata",
    "Unroutable",
    "WebhookConfig",
    "WorkflowMetadata",
    "close_stream",
    "continue_as_new",
    "create_hook",
    "create_webhook",
    "define_hook",
    "definitions",
    "emit",
    "event_id",
    "events_of",
    "get_step_metadata",
    "get_workflow_metadata",
    "heartbeat",
    "map",
    "now",
    "patched",
    "publish",
    "race",
    "random",
    "receiver",
    "receivers",
    "recorded_url",
    "route",
    "set_attributes",
    "should_continue_as_new",
    "sleep",
    "step_session",
    "timeout",
    "uuid4",
]
