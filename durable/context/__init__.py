"""
The functions that authors call in workflows and steps: ``sleep``, hooks, webhooks, ``race``, metadata, randomness.

In a workflow, a function finds its run through the event loop of the thread.  In a step, it uses the running attempt.

Files, in import order::

    step.py         for steps: metadata, heartbeat, the transactional session
    webhooks.py     checks a webhook's options and writes them as JSON; its URL
    workflow.py     for workflows: sleep, hooks, webhooks, race, the run's time and randomness
    typed_hooks.py  ``define_hook``: hooks whose payloads have a type
"""

from .step import StepMetadata, get_step_metadata, heartbeat, step_session
from .typed_hooks import define_hook, definitions
from .webhooks import WebhookConfig, recorded_url
from .workflow import (
    WorkflowMetadata,
    create_hook,
    create_webhook,
    get_workflow_metadata,
    map,
    now,
    patched,
    race,
    random,
    set_attributes,
    sleep,
    timeout,
    uuid4,
)

__all__ = [
    "StepMetadata",
    "WebhookConfig",
    "WorkflowMetadata",
    "create_hook",
    "create_webhook",
    "define_hook",
    "definitions",
    "get_step_metadata",
    "get_workflow_metadata",
    "heartbeat",
    "map",
    "now",
    "patched",
    "race",
    "random",
    "recorded_url",
    "set_attributes",
    "sleep",
    "step_session",
    "timeout",
    "uuid4",
]
