"""TODO"""

from .commands import Command, CreateHook, Outcome
from .hooks import Hook, Webhook
from .replay import Replay
from .run_context import RunContext, RunInfo, child_run_id

__all__ = [
    "Command",
    "CreateHook",
    "Hook",
    "Outcome",
    "Replay",
    "RunContext",
    "RunInfo",
    "Webhook",
    "child_run_id",
]
