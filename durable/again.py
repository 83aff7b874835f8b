"""Starting again: a new run of the workflow of another run, with its arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import codec, registry
from .client import Run
from .engine import Engine
from .errors import ConfigurationError, RunNotFound
from .inspecting import creation, value_of
from .starting import Options, start
from .store import requests, runs


def start_like(engine: Engine, run_id: str, options: Options) -> Run[Any]:
    """
    Start a run of the same workflow with the same arguments; the other run stays as it is.

    Its queue and priority are the other run's, unless *options* name others.

    Raises:
        RunNotFound: There is no run of this id.
        ConfigurationError: This application does not have the workflow.
        SerializationError: The workflow no longer takes these arguments, or a class of theirs is gone.
    """
    engine.check_schema()
    with engine.store.read() as tx:
        row = runs.find(tx, run_id)
        text = value_of(creation(tx, run_id)) if row is not None else None
        known = requests.load(tx, codec.request_ids(text or ""))
    if row is None or text is None:
        raise RunNotFound(run_id)
    workflow = registry.workflows.get(row.name)
    if workflow is None:
        raise ConfigurationError(
            f"Run {run_id!r} is of the workflow {row.name!r}, which this application does not have: add its module"
            " to the Celery app's include or imports, or name the application with --app."
        )
    args, kwargs = codec.decode_arguments(text, known, workflow.signature)
    priority = row.priority if options.priority is None else options.priority
    return start(engine, workflow, args, kwargs, replace(options, queue=options.queue or row.queue, priority=priority))
