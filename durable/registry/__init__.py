"""TODO"""

from .celery_tasks import AdoptedStep
from .decorators import Defined, code_version, enter, step, steps, subscribe, unnamed, workflow, workflows
from .definitions import SEMANTICS, Step, Workflow
from .retry import RetryPolicy
from .run import Run

__all__ = [
    "SEMANTICS",
    "AdoptedStep",
    "Defined",
    "RetryPolicy",
    "Run",
    "Step",
    "Workflow",
    "code_version",
    "enter",
    "step",
    "steps",
    "subscribe",
    "unnamed",
    "workflow",
    "workflows",
]
