"""``Durable``, the engine that applications make, and functions that use the current engine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any, ParamSpec, TypeVar

from celery import Celery

from . import current, worker
from .client import Client, HookInfo, Options, hooks
from .client import start as starting
from .engine import Engine
from .http import Response
from .registry import Run, Workflow
from .sandbox import guards, log_records

P = ParamSpec("P")
R = TypeVar("R")


class Durable(Engine):
    """
    Durable execution for a Celery application.

    Args:
        celery_app: The app whose workers run the workflows and the steps.
        settings: See docs/reference/settings.md.  Each may also be set by an environment variable ``DURABLE_<NAME>``.

    Raises:
        ConfigurationError: A setting is unknown, or its value is malformed.
    """

    def __init__(self, celery_app: Celery, **settings: object) -> None:
        super().__init__(celery_app, **settings)
        log_records.install()
        worker.install(self)
        current.register(self)
        self.on_close(partial(current.forget, self))

    @cached_property
    def client(self) -> Client:
        """What the handles of runs call (``registry.RunClient``)."""
        return Client(self)

    def start(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run.  All keywords are arguments of the workflow; ``Workflow.with_options`` sets options."""
        return starting.start(self, workflow, args, kwargs)

    def start_with(
        self,
        workflow: Workflow[..., R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Run[R]:
        """Start a run with options.  ``with_options``, ``delay`` and ``apply_async`` call this."""
        return starting.start(self, workflow, args, kwargs, Options(**options))

    def get_run(self, run_id: str) -> Run[Any]:
        """The handle of the run with this id.  Does no I/O, and does not raise for an unknown id."""
        guards.refuse_in_workflow("get_run")
        return Run(run_id, self)

    def resume_hook(self, token: str, payload: object, wait: Any = None, wait_taken: Any = None) -> Run[Any]:
        """Deliver a payload to the hook with this *token*; see ``durable.client.hooks.resume_hook``."""
        return Run(hooks.resume_hook(self, token, payload, wait, wait_taken), self)

    def get_hook(self, token: str) -> HookInfo:
        """Describe the open hook with this *token*.  Raises HookNotFound when there is none."""
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
    """The handle of the run with this id, on the current engine.  Does no I/O."""
    guards.refuse_in_workflow("get_run")
    engine: Durable = current.current_engine()
    return engine.get_run(run_id)


def resume_hook(token: str, payload: object, wait: Any = None, wait_taken: Any = None) -> Run[Any]:
    """
    Deliver a payload to the hook with this *token*, on the current engine.

    Args:
        wait: How long to wait for a hook that is about to be created, e.g. ``"5s"``.
        wait_taken: How long to wait until the run has taken the payload in.  The call returns when the time is over,
            too: the payload is committed.

    Raises:
        HookNotFound: No open hook has this token.
        HookPayloadError: The payload does not fit the type of the hook.
    """
    guards.refuse_in_workflow("resume_hook")
    engine: Durable = current.current_engine()
    return engine.resume_hook(token, payload, wait, wait_taken)


def get_hook(token: str) -> HookInfo:
    """Describe the open hook with this *token*, on the current engine."""
    guards.refuse_in_workflow("get_hook")
    engine: Durable = current.current_engine()
    return engine.get_hook(token)
