"""TODO"""

from .step import StepMetadata, get_step_metadata, heartbeat, step_session
from .typed_hooks import define_hook, definitions
from .webhooks import WebhookConfig, recorded_url
from .workflow import (
    WorkflowMetadata,
    create_hook,
    create_webhook,
    get_workflow_metadata,
    now,
    patched,
    race,
    random,
    set_attributes,
    sleep,
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
    "now",
    "patched",
    "race",
    "random",
    "recorded_url",
    "set_attributes",
    "sleep",
    "step_session",
    "uuid4",
]
