"""``Durable``, the engine that applications make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import Any, Literal, ParamSpec, TypeVar, overload

from celery import Celery

from . import current, worker
from .client import Client, HookInfo, Options, hooks, limits, pauses, replies
from .client import start as starting
from .client import start_many as starting_many
from .context import ReceiverDefinition
from .engine import Engine
from .http import Response
from .registry import Run, StartOptions, Workflow
from .sandbox import guards, log_records

P = ParamSpec("P")
R = TypeVar("R")

#: What a workflow does instead.
_AWAIT_OR_STEP = "call the workflow and await it, or start it in a step"
_STEP = "call it in a step"


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
        return starting.start(self, workflow, args, kwargs, first_turn=self._first_turn)

    async def astart(self, workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run in an event loop."""
        guards.refuse_in_workflow("astart", _AWAIT_OR_STEP)
        return await self.loop_calls.run(partial(self.start, workflow, *args, **kwargs))

    def start_with(
        self,
        workflow: Workflow[..., R],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Run[R]:
        """Start a run with options.  ``with_options``, ``delay`` and ``apply_async`` call this."""
        return starting.start(self, workflow, args, kwargs, Options(**options), self._first_turn)

    @cached_property
    def _first_turn(self) -> starting.FirstTurn | None:
        """What takes the first turn of a run in this process; None without the setting."""
        if not self.settings.first_turn_budget:
            return None
        # A process that takes no turns does without their code, which takes long to import.
        from .turns import start_with_first_turn

        return start_with_first_turn

    def start_many(
        self,
        workflow: Workflow[..., R] | StartOptions[..., R],
        args: Iterable[Any],
        keys: Iterable[str] | None = None,
        session: Any = None,
    ) -> list[Run[R]]:
        """Start a run of the workflow for each item of *args*; see ``durable.start_many``."""
        return starting_many.start_many(self, workflow, args, keys, session)

    async def astart_many(
        self, workflow: Workflow[..., R] | StartOptions[..., R], args: Iterable[Any], keys: Iterable[str] | None = None
    ) -> list[Run[R]]:
        """Start a run of the workflow for each item of *args* in an event loop."""
        guards.refuse_in_workflow("astart_many", _AWAIT_OR_STEP)
        return await self.loop_calls.run(self.start_many, workflow, args, keys)

    def get_run(self, run_id: str) -> Run[Any]:
        """The handle of the run with this id.  Does no I/O, and does not raise for an unknown id."""
        guards.refuse_in_workflow("get_run")
        return Run(run_id, self)

    @overload
    def resume_hook(
        self, token: str, payload: object, wait: Any = None, wait_taken: Any = None, *, reply: Literal[False] = False
    ) -> Run[Any]: ...
    @overload
    def resume_hook(
        self, token: str, payload: object, wait: Any = None, *, reply: Literal[True], timeout: Any = None
    ) -> Any: ...
    def resume_hook(
        self,
        token: str,
        payload: object,
        wait: Any = None,
        wait_taken: Any = None,
        *,
        reply: bool = False,
        timeout: Any = None,
    ) -> Any:
        """Deliver a payload to the hook with this *token*; see ``durable.resume_hook``."""
        _check_reply(reply, wait_taken, timeout)
        if reply:
            return self.ask(token, payload, wait, timeout)
        return Run(hooks.resume_hook(self, token, payload, wait, wait_taken), self)

    def ask(self, token: str, payload: object, wait: Any = None, timeout: Any = None) -> Any:
        """Deliver a payload to the hook with this *token*, and return the reply; see ``durable.client.replies.ask``."""
        return replies.ask(self, token, payload, wait, timeout)

    @overload
    async def aresume_hook(
        self, token: str, payload: object, wait: Any = None, wait_taken: Any = None, *, reply: Literal[False] = False
    ) -> Run[Any]: ...
    @overload
    async def aresume_hook(
        self, token: str, payload: object, wait: Any = None, *, reply: Literal[True], timeout: Any = None
    ) -> Any: ...
    async def aresume_hook(
        self,
        token: str,
        payload: object,
        wait: Any = None,
        wait_taken: Any = None,
        *,
        reply: bool = False,
        timeout: Any = None,
    ) -> Any:
        """Do the same as ``resume_hook`` in an event loop.  It takes no thread while it waits."""
        _check_reply(reply, wait_taken, timeout)
        if reply:
            return await self.aask(token, payload, wait, timeout)
        return Run(await hooks.aresume_hook(self, token, payload, wait, wait_taken), self)

    async def aask(self, token: str, payload: object, wait: Any = None, timeout: Any = None) -> Any:
        """Do the same as ``ask`` in an event loop.  It takes no thread while it waits."""
        return await replies.aask(self, token, payload, wait, timeout)

    def get_reply(self, request_id: str, timeout: Any = None) -> Any:
        """Wait for the reply to a payload that was sent before; see ``durable.get_reply``."""
        return replies.get_reply(self, request_id, timeout)

    async def aget_reply(self, request_id: str, timeout: Any = None) -> Any:
        """Do the same as ``get_reply`` in an event loop.  It takes no thread while it waits."""
        return await replies.aget_reply(self, request_id, timeout)

    def get_hook(self, token: str) -> HookInfo:
        """Describe the open hook with this *token*.  Raises HookNotFound when there is none."""
        return hooks.get_hook(self, token)

    async def aget_hook(self, token: str) -> HookInfo:
        """Describe the open hook with this *token* in an event loop."""
        guards.refuse_in_workflow("aget_hook")
        return await self.loop_calls.run(self.get_hook, token)

    def set_limit(self, name: str, n: int | None) -> None:
        """Set the number of a limit of steps at run time; see ``durable.set_limit``."""
        limits.set_limit(self, name, n)

    async def aset_limit(self, name: str, n: int | None) -> None:
        """Set the number of a limit of steps in an event loop."""
        guards.refuse_in_workflow("aset_limit", _STEP)
        await self.loop_calls.run(self.set_limit, name, n)

    def pause(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        queue: str | None = None,
        receiver: ReceiverDefinition | str | None = None,
        reason: str | None = None,
    ) -> bool:
        """
        Pause a workflow, a queue or a receiver, until ``resume``.

        When this returns, no turn of a run is committed that was open before.  Runs that start later are paused within
        ``beat_interval``.  A paused receiver accepts requests and keeps them.

        Args:
            workflow, queue, receiver: One of them, or its name.
            reason: At most 1,000 characters, for the people who find it paused.

        Returns:
            False when it was paused already.

        Raises:
            ConfigurationError: There is no such workflow or receiver.
        """
        return pauses.pause(self, *_one_of(workflow=workflow, queue=queue, receiver=receiver), reason)

    def resume(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        queue: str | None = None,
        receiver: ReceiverDefinition | str | None = None,
    ) -> bool:
        """
        Resume a workflow, a queue or a receiver.  What waits goes on, 100 runs or requests a second.

        Returns:
            False when it was not paused.
        """
        return pauses.resume(self, *_one_of(workflow=workflow, queue=queue, receiver=receiver))

    def list_pauses(self) -> list[dict[str, Any]]:
        """What is paused by name, each a dict of ``kind name paused_at reason runs resuming``."""
        return pauses.list_pauses(self)

    async def apause(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        queue: str | None = None,
        receiver: ReceiverDefinition | str | None = None,
        reason: str | None = None,
    ) -> bool:
        """Pause a workflow, a queue or a receiver in an event loop."""
        guards.refuse_in_workflow("apause", _STEP)
        call = partial(self.pause, workflow=workflow, queue=queue, receiver=receiver, reason=reason)
        return await self.loop_calls.run(call)

    async def aresume(
        self,
        *,
        workflow: Workflow[..., Any] | str | None = None,
        queue: str | None = None,
        receiver: ReceiverDefinition | str | None = None,
    ) -> bool:
        """Resume a workflow, a queue or a receiver in an event loop."""
        guards.refuse_in_workflow("aresume", _STEP)
        return await self.loop_calls.run(partial(self.resume, workflow=workflow, queue=queue, receiver=receiver))

    async def alist_pauses(self) -> list[dict[str, Any]]:
        """What is paused by name, in an event loop."""
        guards.refuse_in_workflow("alist_pauses", _STEP)
        return await self.loop_calls.run(self.list_pauses)

    def respond(self, request_id: str, response: Response) -> bool:
        """Answer a webhook request from outside a step."""
        return hooks.respond(self, request_id, response)

    async def arespond(self, request_id: str, response: Response) -> bool:
        """Answer a webhook request in an event loop."""
        return await self.loop_calls.run(self.respond, request_id, response)


def _check_reply(reply: bool, wait_taken: Any, timeout: Any) -> None:
    if reply and wait_taken is not None:
        raise TypeError("resume_hook(reply=True) waits for the reply: pass timeout=..., not wait_taken.")
    if timeout is not None and not reply:
        raise TypeError("resume_hook() without reply=True takes no timeout: nothing would wait for a reply.")


def _one_of(**given: Any) -> tuple[str, str]:
    """Return the kind and the name of what is to be paused or resumed."""
    named = [(kind, each if isinstance(each, str) else each.name) for kind, each in given.items() if each is not None]
    if len(named) != 1:
        raise TypeError("Name one workflow, one queue or one receiver: pause(workflow=checkout).")
    return named[0]
