"""
Steps and workflows: the decorators, and the objects that they make of functions.

Definitions belong to the process, not to an engine.  As with ``shared_task``, they become tasks of every engine's app.
This room imports nothing from Celery.

Files, in import order::

    retry.py         whether a failed attempt is retried, and after how long
    signatures.py    a function's signature that binds arguments quickly
    fingerprint.py   a hash of a module's code, the version of its workflows
    limits.py        how many attempts of steps, or runs, go on at once or begin in a time
    values.py        ``Value``: the name of a published value, with its type
    streams.py       ``Stream``: the name of a stream, with the type of its items and its options
    run_client.py    ``RunClient``: what the handle of a run asks its engine for
    async_run.py     ``AsyncRun``: the calls of a run's handle for asyncio
    run.py           ``Run``: the handle of a run
    base.py          ``Definition``: what steps and workflows share
    definitions.py   ``Step`` and ``Workflow``
    celery_tasks.py  an existing Celery task as a step
    tables.py        the tables of all steps and workflows
    decorators.py    ``@step`` and ``@workflow``
"""

from .celery_tasks import AdoptedStep
from .decorators import step, workflow
from .definitions import SEMANTICS, StartOptions, Step, Workflow, code_version
from .limits import FlowLimit, check_number, concurrency, debounce, key_of, rate
from .retry import RetryPolicy
from .run import Run
from .streams import Stream, StreamItem, StreamOptions, check_stream_name
from .tables import Defined, all_definitions, limits, register, steps, subscribe, unnamed, workflows
from .values import Value
from .values import check_name as check_value_name

__all__ = [
    "SEMANTICS",
    "AdoptedStep",
    "Defined",
    "FlowLimit",
    "RetryPolicy",
    "Run",
    "StartOptions",
    "Step",
    "Stream",
    "StreamItem",
    "StreamOptions",
    "Value",
    "Workflow",
    "all_definitions",
    "check_number",
    "check_stream_name",
    "check_value_name",
    "code_version",
    "concurrency",
    "debounce",
    "key_of",
    "limits",
    "rate",
    "register",
    "step",
    "steps",
    "subscribe",
    "unnamed",
    "workflow",
    "workflows",
]
