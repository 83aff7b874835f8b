"""
Steps and workflows: the decorators, and what is known of each decorated function.

Definitions belong to the process and not to an engine: like ``shared_task``, they become tasks of every engine's app.
This room imports nothing of Celery.

Files, in import order::

    retry.py         when a failed attempt is followed by another, and after how long
    signatures.py    a function's signature, made fast to bind
    fingerprint.py   a hash of a module's code: which version of a workflow runs here
    run.py           ``Run``: the handle of a run, and what it asks of its engine
    definitions.py   ``Step`` and ``Workflow``
    celery_tasks.py  an existing Celery task as a step
    decorators.py    ``@step`` and ``@workflow``, and the tables of what they have defined
"""

from .celery_tasks import AdoptedStep
from .decorators import (
    Defined,
    all_definitions,
    code_version,
    register,
    step,
    steps,
    subscribe,
    unnamed,
    workflow,
    workflows,
)
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
    "all_definitions",
    "code_version",
    "register",
    "step",
    "steps",
    "subscribe",
    "unnamed",
    "workflow",
    "workflows",
]
