"""
The functions for workflows: ``sleep``, hooks, webhooks, ``race``, the run's time and randomness.

Each function finds the run through the event loop of the thread.  Outside a
workflow it raises RuntimeError, as asyncio's functions do outside a loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Literal, NoReturn, TypeVar, overload
from uuid import UUID

from .. import current, duration
from ..http import Response
from ..replay import Hook, RunContext, Webhook, bounded_map
from ..replay import race as racing
from ..verify import Dedupe, Verification
from . import webhooks

T = TypeVar("T")
Item = TypeVar("Item")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


@dataclass(frozen=True, kw_only=True)
class WorkflowMetadata:
    """
    Which run this is, as ``get_workflow_metadata`` returns it.

    Attributes:
        scheduled_for: The time for which a schedule has started the run; None for a run that no schedule has started.
    """

    run_id: str
    name: str
    started_at: datetime
    public_url: str | None
    scheduled_for: datetime | None = None


def run_context(function: str, *, or_in: str = "") -> RunContext:
    """The run of the workflow that calls *function*; RuntimeError outside a workflow."""
    loop = current.workflow_loop()
    if loop is None:
        others = "views and scripts" if or_in else "steps, views and scripts"
        raise RuntimeError(
            f"{function}() was called outside a workflow.  Call it in the body of an `async def` decorated"
            f" with @workflow, or in a coroutine that it awaits{or_in}.  It does not work in {others}."
        )
    context: RunContext = loop.context
    return context


def sleep(value: str | float | timedelta | datetime) -> Awaitable[None]:
    """
    Wait for a duration or until a time.  A waiting run occupies no worker.

    Args:
        value: A duration (``"1h30m"``, a number of seconds, a timedelta), or an aware datetime.  A time in
            the past returns at once.

    Raises:
        ValueError: The value is malformed, negative, NaN, or a naive datetime.
    """
    return run_context("sleep").sleep(value)


def timeout(value: str | float | timedelta | datetime | None) -> asyncio.Timeout:
    """
    ``asyncio.timeout`` that takes a duration as ``sleep`` does: ``async with timeout("10m"):``.

    When the time is over, the block is cancelled and raises TimeoutError.  ``run.wake_up()`` ends no timeouts.

    Args:
        value: A duration (``"1h30m"``, a number of seconds, a timedelta), an aware datetime, or None for no limit.

    Raises:
        ValueError: The value is malformed, negative, NaN, or a naive datetime.
    """
    loop = run_context("timeout").loop
    due_at = None if value is None else duration.due_at(value, loop.now)
    return asyncio.timeout_at(None if due_at is None else (due_at - loop.started_at) / 1_000_000)


def now() -> datetime:
    """The run's time: the time of its last event, aware and in UTC.  It is the same on every replay."""
    return duration.to_datetime(run_context("now").loop.now)


def random() -> Random:
    """The random generator of the running task, which gives the same numbers on every replay."""
    return run_context("random").random()


def uuid4() -> UUID:
    """A random UUID, the same on every replay."""
    return UUID(int=run_context("uuid4").random().getrandbits(128), version=4)


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
    Return the first outcome in the log, or raise it if it is an exception.

    All awaitables start at the call.  The losers are cancelled, and ``race`` waits until they have ended.  A hook
    that loses keeps its payload.  A losing step that runs already is not stopped, but its result is ignored.
    """
    context = run_context("race")
    if not awaitables:
        raise ValueError("race() of nothing would wait for ever; give it at least one awaitable.")
    return racing.race(context.loop, awaitables)


def map(
    call: Callable[[Item], Awaitable[T]],
    items: Iterable[Item],
    *,
    limit: int | None = None,
    return_exceptions: bool = False,
) -> Awaitable[list[T]]:
    """
    Call *call* for each item, at most *limit* at the same time, and return the results in the order of the items.

    ::

        receipts = await durable.map(charge, orders, limit=10)

    Args:
        call: A step, a workflow, or an ``async def`` of yours, which takes one item.
        items: Read to their end at once.
        limit: How many calls run at the same time; None for all.
        return_exceptions: False raises the first failure: calls that have not started never start, and running ones
            are cancelled.  True makes all calls, and returns each failure in the place of its result.

    Raises:
        ValueError: *limit* is not at least 1.
    """
    loop = run_context("map").loop
    listed = list(items)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"map(limit={limit!r}): the limit must be an int of at least 1, or None for no limit.")
    return bounded_map.bounded_map(loop, call, listed, limit or len(listed), return_exceptions)


def create_hook(token: str | None = None, metadata: object = None, *, name: str | None = None) -> Hook[Any]:
    """
    Open a hook, which receives payloads that ``resume_hook(token, payload)`` sends.

    Args:
        token: 1 to 255 characters, by default a random token.  If another run holds the token, awaiting a
            payload raises HookConflict.
        metadata: Any value; ``get_hook(token)`` returns it.
        name: By which the next generation finds a hook with a random token; see ``continue_as_new``.
    """
    return run_context("create_hook").open_hook(Hook, "hook", token, metadata, label=name)


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
    name: str | None = None,
) -> Webhook:
    """
    Open a webhook, which receives HTTP requests at its own URL, ``webhook.url``.

    Args:
        respond_with: How to answer a request.  By default 202 at once; with a Response, that response at once;
            with ``"manual"``, the response that a step passes to ``request.respond_with``.
        methods: The HTTP methods that the webhook accepts.
        timeout: How long to hold a connection, up to 55 s; by default the setting ``hold_timeout``.
        on_timeout: The response when the timeout is over; by default 202 with a URL to poll.
        metadata: Any value; ``get_hook(token)`` returns it.
        verify: How to check the signature of a request: a preset of ``durable.verify`` with the name of your
            secret.  A request that fails is answered 401 and not recorded.
        dedupe: The key by which to recognise a request that is sent again: ``"auto"``, a header, a list of
            headers that form one key, a JSON pointer, a preset, or a function decorated with
            ``verify.dedupe_key``.  A duplicate gets the response of the first request.  By default the
            preset's own key, or no key without ``verify``; False turns it off.
        max_body: The largest body in bytes; by default the setting ``max_body``.
        name: By which the next generation finds the webhook, and keeps its URL; see ``continue_as_new``.

    Raises:
        ConfigurationError: The setting ``public_url`` is missing.
        TypeError, ValueError: An option is invalid.
    """
    context = run_context("create_webhook")
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
    hook = context.open_hook(Webhook, "webhook", None, metadata, label=name, config=config)
    assert isinstance(hook, Webhook)
    hook.url = webhooks.url_of(context.info.public_url, hook.token)
    return hook


def should_continue_as_new() -> bool:
    """
    Whether the run's log is so long that the workflow should call ``continue_as_new``.

    It is true from 4,000 events on, or from half of what the setting ``max_events`` allows.  The answer is the same on
    every replay.
    """
    return run_context("should_continue_as_new").should_continue_as_new()


def continue_as_new(*args: Any, **kwargs: Any) -> NoReturn:
    """
    End the run here, and start its next generation: the same workflow with these arguments and an empty log.

    Open hooks and webhooks go along, with the payloads that were not taken: the next generation finds each again by its
    token or its name.  So do attributes, parent, queue, priority and trace.  ``Run.result()`` of any generation returns
    what the last one returns.

    The call does not return, whichever task makes it.  ``except Exception`` does not catch it; ``finally`` blocks run,
    and can call nothing durable.  A run that was asked to cancel ends as cancelled.

    Args:
        args, kwargs: The arguments of the workflow.

    Raises:
        TypeError: They do not fit the workflow.  Without an ``except`` of yours, the run is blocked.
        ConfigurationError: An open hook has a random token and no name, so it could not be found again.
    """
    run_context("continue_as_new").continue_as_new(args, kwargs)


#: By which ``sandbox.continuing`` knows the function.
vars(continue_as_new)["durable_continues"] = True


def patched(name: str) -> bool:
    """
    Whether the run takes the new way at a change of the code: ``if patched("x"): new() else: old()``.

    A run that passed this place before the change takes the old way.  All other runs take the new way, and
    record that.  The answer is decided once for each name and run, so give each change its own name.

    Args:
        name: 1 to 200 printable ASCII characters.
    """
    return run_context("patched").patched(name)


def set_attributes(**attributes: str | None) -> None:
    """
    Set attributes of the run, by which you can find it.  Call it in a workflow or in a step.

    Other attributes of the run stay; None removes one.  In a step, the change is committed at once and
    stays even when the step fails.  An attempt that was given up changes nothing.

    Args:
        attributes: Names of up to 256 characters, values of up to 256 bytes (UTF-8), up to 64 for each run.

    Raises:
        TypeError: A value is no str.
        ValueError: A limit is exceeded.
    """
    step = current.running_step.get()
    if step is not None and current.workflow_loop() is None:
        step.set_attributes(attributes)
    else:
        run_context("set_attributes", or_in=", or in a step").set_attributes(attributes)


def get_workflow_metadata() -> WorkflowMetadata:
    """Return which run this is, in a workflow or in a step."""
    loop, step = current.workflow_loop(), current.running_step.get()
    if loop is None and step is not None:
        metadata: WorkflowMetadata = step.workflow_metadata
        return metadata
    info = run_context("get_workflow_metadata").info
    return WorkflowMetadata(
        run_id=info.run_id,
        name=info.name,
        started_at=duration.to_datetime(info.started_at),
        public_url=info.public_url,
        scheduled_for=None if info.scheduled_for is None else duration.to_datetime(info.scheduled_for),
    )
