"""``Durable``: the engine as applications see it, and the functions that use the current one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar

from celery import Celery

from . import current
from .client import Client, HookInfo, Options, hooks
from .client import start as starting
from .engine import Engine
from .http import Response
from .registry import Run, Workflow
from .sandbox import guards, log_records
from .worker import tasks

P = ParamSpec("P")
R = TypeVar("R")


class Durable(Engine):
    """
    Durable execution for a Celery application.

    Args:
        celery_app: Its workers run the turns and the steps.
        settings: See docs/reference/settings.md; each may come from ``DURABLE_<NAME>`` instead.

    Raises:
        ConfigurationError: For an unknown setting, or a malformed value.
    """

    def __init__(self, celery_app: Celery, **settings: object) -> None:
        super().__init__(celery_app, **settings)
        log_records.install()
        tasks.install(self)
        current.made(self)
        self.on_close(partial(current.forget, self))

    @cached_property
    def client(self) -> Client:
        """What the handles of runs ask (``registry.RunClient``)."""
        return Client(self)

    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run; every keyword is the workflow's.  See ``Workflow.with_options`` for options."""
        return starting.start(self, workflow, args, kwargs)

    def start_with(
        self,
        workflow: Workflow[..., R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Run[R]:
        """Start a run with options: what ``with_options``, ``delay`` and ``apply_async`` call."""
        return starting.start(self, workflow, args, kwargs, Options(**options))

    def get_run(self, run_id: str) -> Run[Any]:
        """The run of this id.  Does no I/O and never raises for an unknown id."""
        guards.refuse_in_workflow("get_run")
        return Run(run_id, self)

    def resume_hook(self, token: str, payload: object, wait: Any = None) -> Run[Any]:
        """Deliver a payload to the hook that holds *token*; see ``durable.resume_hook``."""
        return Run(hooks.resume_hook(self, token, payload, wait), self)

    def get_hook(self, token: str) -> HookInfo:
        """What is known of an open hook; HookNotFound."""
        return hooks.get_hook(self, token)

    def respond(self, request_id: str, response: Response) -> bool:
        """Answer a webhook request from outside a step."""
        return hooks.respond(self, request_id, response)


def start(workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
    """Start a run on the current engine: ``start(my_workflow, arg, keyword=value)``."""
    guards.refuse_in_workflow("start", "call the workflow and await it, or start it in a step")
    engine: Durable = current.current_engine()
    return engine.start(workflow, *args, **kwargs)


def get_run(run_id: str) -> Run[Any]:
    """The run of this id, on the current engine.  Does no I/O."""
    guards.refuse_in_workflow("get_run")
    engine: Durable = current.current_engine()
    return engine.get_run(run_id)


def resume_hook(token: str, payload: object, wait: Any = None) -> Run[Any]:
    """Deliver a payload to the hook that holds *token*, on the current engine."""
    guards.refuse_in_workflow("resume_hook")
    engine: Durable = current.current_engine()
    return engine.resume_hook(token, payload, wait)


def get_hook(token: str) -> HookInfo:
    """What is known of an open hook, on the current engine."""
    guards.refuse_in_workflow("get_hook")
    engine: Durable = current.current_engine()
    return engine.get_hook(token)
