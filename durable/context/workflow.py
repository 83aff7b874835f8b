"""
What an author awaits and asks in a workflow: sleep, hooks, webhooks, race, the run's time and randomness.

Each function finds the run by the loop that runs in this thread, and raises
RuntimeError outside of one, as asyncio does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal, TypeVar, overload
from uuid import UUID

from .. import current, duration
from ..http import Request, Response
from ..replay import Hook, RunContext, Webhook
from ..replay import race as racing
from ..verify import Dedupe, Verification
from . import webhooks

T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


@dataclass(frozen=True, kw_only=True)
class WorkflowMetadata:
    """What ``get_workflow_metadata`` tells."""

    run_id: str
    name: str
    started_at: datetime
    public_url: str | None


def _here(function: str, *, or_in: str = "") -> RunContext:
    loop = current.workflow_loop()
    if loop is None:
        others = "views and scripts" if or_in else "steps, views and scripts"
        raise RuntimeError(
            f"{function}() was called outside a workflow.  Call it in the body of an `async def` decorated"
            f" with @workflow, or in what that awaits{or_in}; {others} have none."
        )
    context: RunContext = loop.context
    return context


def sleep(value: str | float | timedelta | datetime) -> Awaitable[None]:
    """
    Wait, however long, without holding a worker.

    Args:
        value: ``"1h30m"``, seconds, a timedelta, or an aware datetime; a past moment returns at once.

    Raises:
        ValueError: NaN, negative, malformed, or a naive datetime.
    """
    return _here("sleep").sleep(value)


def now() -> datetime:
    """The run's time, aware, in UTC: that of the last event, so the same on every replay."""
    return duration.to_datetime(_here("now").loop.now)


def random() -> Random:
    """The run's own generator, one per task, which draws the same on every replay."""
    return _here("random").random()


def uuid4() -> UUID:
    """A random UUID, the same on every replay."""
    return UUID(int=_here("uuid4").random().getrandbits(128), version=4)


@overload
def race(first: Awaitable[T], second: Awaitable[T2], /) -> Awaitable[T | T2]: ...
@overload
def race(first: Awaitable[T], second: Awaitable[T2], third: Awaitable[T3], /) -> Awaitable[T | T2 | T3]: ...
@overload
def race(
    first: Awaitable[T], second: Awaitable[T2], third: Awaitable[T3], fourth: Awaitable[T4], /
) -> Awaitable[T | T2 | T3 | T4]: ...
@overload
def race(*awaitables: Awaitable[T]) -> Awaitable[T]: ...
def race(*awaitables: Awaitable[Any]) -> Awaitable[Any]:
    """
    The first outcome in the log, result or exception; the others are cancelled, and awaited until they end.

    All start at the call.  A hook that loses keeps its payload; a step that runs already is not
    stopped, but its result is ignored.
    """
    context = _here("race")
    if not awaitables:
        raise ValueError("race() of nothing would wait for ever; give it at least one awaitable.")
    return racing.race(context.loop, awaitables)


def create_hook(token: str | None = None, metadata: object = None) -> Hook[Any]:
    """
    Listen for payloads from outside, sent by ``resume_hook(token, payload)``.

    Args:
        token: 1 to 255 characters; one is drawn if there is none.  One that is taken raises
            HookConflict where a payload is awaited.
        metadata: What ``get_hook(token)`` tells of it.
    """
    return _here("create_hook").open_hook(Hook, "hook", token, metadata)


def create_webhook(
    respond_with: Response | Literal["manual"] | None = None,
    *,
    methods: Iterable[str] = ("POST",),
    timeout: str | float | timedelta | None = None,
    on_timeout: Response | None = None,
    metadata: object = None,
    verify: Verification | None = None,
    dedupe: Dedupe = None,
    max_body: int | None = None,
) -> Webhook:
    """
    Listen for HTTP requests at a URL of its own, ``webhook.url``.

    Args:
        respond_with: What a sender is answered: None, 202 at once; a Response, that at once;
            ``"manual"``, whatever a step gives to ``request.respond_with``.
        methods: Those that deliver.
        timeout: How long a connection is held, up to 55 s; by default the setting ``hold_timeout``.
        on_timeout: The answer then; by default 202 and where to ask again.
        metadata: What ``get_hook(token)`` tells of it.
        verify: Whose signature a request must have: a preset of ``durable.verify`` with the name of its secret.
            Any other is answered 401, and nothing of it is recorded.
        dedupe: What tells a request that is sent again: ``"auto"``, a header, a list of headers that count
            together, a JSON pointer, a preset, or a function made by ``verify.dedupe_key``.  By default the
            preset's own key, and none without ``verify``; False for none.  It gets the answer of the first.
        max_body: In bytes; by default the setting of this name.

    Raises:
        ConfigurationError: The setting ``public_url`` is missing.
        TypeError, ValueError: For an option that makes no sense.
    """
    context = _here("create_webhook")
    webhooks.url_of(context.info.public_url, "")
    config = webhooks.config_json(
        public_url=context.info.public_url,
        respond_with=respond_with,
        methods=methods,
        timeout=timeout,
        on_timeout=on_timeout,
        max_body=max_body,
        verify=verify,
        dedupe=dedupe,
    )
    hook = context.open_hook(Webhook, "webhook", None, metadata, config=config, payload_type=Request)
    assert isinstance(hook, Webhook)
    hook.url = webhooks.url_of(context.info.public_url, hook.token)
    return hook


def patched(name: str) -> bool:
    """
    True where the run goes a new way: ``if patched("x"): new() else: old()``.

    A run that went past this place before the change stays on the old way; others record that they
    took the new one.  It is decided once for each name and run: another change takes another name.

    Args:
        name: 1 to 200 printable ASCII characters.
    """
    return _here("patched").patched(name)


def set_attributes(**attributes: str | None) -> None:
    """
    Set attributes of the run, by which it can be found, in its workflow or in one of its steps.

    Names that are not given stay as they are; None unsets one.  From a step the change is committed
    at once, and stays when the step fails; one from an attempt that was given up changes nothing.

    Args:
        attributes: Names of up to 256 characters, values of up to 256 bytes (UTF-8), up to 64 a run.

    Raises:
        TypeError: A value is no str.
        ValueError: One of the limits is passed.
    """
    step = current.running_step.get()
    if step is not None and current.workflow_loop() is None:
        step.set_attributes(attributes)
    else:
        _here("set_attributes", or_in=", or in a step").set_attributes(attributes)


def get_workflow_metadata() -> WorkflowMetadata:
    """Which run this is, in a workflow or in a step."""
    loop, step = current.workflow_loop(), current.running_step.get()
    if loop is None and step is not None:
        metadata: WorkflowMetadata = step.workflow_metadata
        return metadata
    info = _here("get_workflow_metadata").info
    return WorkflowMetadata(
        run_id=info.run_id,
        name=info.name,
        started_at=duration.to_datetime(info.started_at),
        public_url=info.public_url,
    )
