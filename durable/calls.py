"""The functions of ``durable`` that use the current engine: ``durable.start(order)``, ``durable.resume_hook(…)``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal, ParamSpec, TypeVar, overload

from . import current
from .app import Durable
from .client import AsyncRunList, HookInfo, RunList, run_lists
from .registry import Run, StartOptions, Workflow
from .sandbox import guards

P = ParamSpec("P")
R = TypeVar("R")

#: What a workflow does instead.
_AWAIT_OR_STEP = "call the workflow and await it, or start it in a step"
_STEP = "call it in a step"


def start(workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
    """Start a run on the current engine: ``start(my_workflow, arg, keyword=value)``."""
    guards.refuse_in_workflow("start", "call the workflow and await it, or start it in a step")
    engine: Durable = current.current_engine()
    return engine.start(workflow, *args, **kwargs)


def start_many(
    workflow: Workflow[..., R] | StartOptions[..., R],
    args: Iterable[Any],
    keys: Iterable[str] | None = None,
    session: Any = None,
) -> list[Run[R]]:
    """
    Start a run of the workflow for each item of *args*, on the current engine, and return the runs in that order.

    ::

        runs = start_many(invoice, [("c-1", 100), ("c-2", 250)], keys=["c-1/may", "c-2/may"])

    All arguments are checked before the first run is started.  Each 500 runs are started in one transaction.

    Args:
        workflow: The workflow, or ``workflow.with_options(...)`` with options for all runs.
        args: For each run a tuple of its arguments, or a dict of them by name.
        keys: An idempotency key for each run.  A run whose key was used before is not started again.
        session: A SQLAlchemy session: all runs are started in its transaction.

    Raises:
        TypeError, ValueError, SerializationError: An item or a key is invalid.  No run was started.
        RunConflict: A key has started another workflow, or one with other arguments.
    """
    guards.refuse_in_workflow("start_many", "call the workflow for each item and await them, or start them in a step")
    engine: Durable = current.current_engine()
    return engine.start_many(workflow, args, keys, session)


def get_run(run_id: str) -> Run[Any]:
    """The handle of the run with this id, on the current engine.  Does no I/O."""
    guards.refuse_in_workflow("get_run")
    engine: Durable = current.current_engine()
    return engine.get_run(run_id)


def list_runs(
    *,
    status: str | None = None,
    name: str | None = None,
    attributes: Mapping[str, str] | None = None,
    since: Any = None,
    until: Any = None,
    paused: bool = False,
) -> RunList:
    """
    The runs that match all that is given, newest first: an iterator of ``Run``.

    Its methods ``cancel()``, ``retry()``, ``fork()``, ``pause()`` and ``resume()`` act on all of them.

    Args:
        status: ``pending running completed failed cancelled blocked continued``.
        name: The workflow's name.
        attributes: Only runs that have all of these.
        since, until: Only runs that were created at this moment or later, or before it: an aware datetime, or how long
            ago, as ``sleep`` takes a duration.
        paused: Only runs that are paused.

    Raises:
        ValueError: The status is unknown, or a time is malformed.
    """
    guards.refuse_in_workflow("list_runs", _STEP)
    engine = current.current_engine()
    return run_lists.list_runs(
        engine, status=status, name=name, attributes=attributes, since=since, until=until, paused=paused
    )


def set_limit(name: str, n: int | None) -> None:
    """
    Set the number of a limit of steps for all processes, on the current engine.  It stays when you deploy.

    Args:
        name: The name, as ``concurrency`` or ``rate`` has it.
        n: How many at once, or within the limit's time; None for the number in the code.

    Raises:
        ConfigurationError: *n* is no whole number from 1 on, or there is no such limit.
    """
    guards.refuse_in_workflow("set_limit", _STEP)
    current.current_engine().set_limit(name, n)


@overload
def resume_hook(
    token: str, payload: object, wait: Any = None, wait_taken: Any = None, *, reply: Literal[False] = False
) -> Run[Any]: ...
@overload
def resume_hook(token: str, payload: object, wait: Any = None, *, reply: Literal[True], timeout: Any = None) -> Any: ...
def resume_hook(
    token: str,
    payload: object,
    wait: Any = None,
    wait_taken: Any = None,
    *,
    reply: bool = False,
    timeout: Any = None,
) -> Any:
    """
    Deliver a payload to the hook with this *token*, on the current engine.

    Args:
        wait: How long to wait for a hook that is about to be created, e.g. ``"5s"``.
        wait_taken: How long to wait until the run has taken the payload in.  The call returns when the time is over,
            too: the payload is committed.
        reply: Wait for the reply of the workflow, which gets the payload as a ``Question``.
        timeout: With *reply*, how long to wait for it; None: as long as the run goes on.

    Returns:
        The run; with *reply* what the workflow has replied.

    Raises:
        HookNotFound: No open hook has this token.
        HookPayloadError: The payload does not fit the type of the hook, or a validator refuses it.
        ReplyNotSent: The run has ended, or has closed the hook, without a reply.
        ReplyPending: There is no reply yet (a TimeoutError).  The payload is recorded, so do not send it again:
            ``get_reply`` waits for the reply.
    """
    guards.refuse_in_workflow("resume_hook")
    engine: Any = current.current_engine()
    return engine.resume_hook(token, payload, wait, wait_taken, reply=reply, timeout=timeout)


def get_reply(request_id: str, timeout: Any = None) -> Any:
    """
    Wait for the reply to a payload that was sent before with ``reply=True``, and return it, on the current engine.

    The payload may have been sent in another process.

    Args:
        request_id: That of the ``ReplyPending`` which ``resume_hook`` or ``ask`` has raised.
        timeout: How long to wait for the reply, as ``sleep`` takes it; None: as long as the run goes on.

    Raises:
        QuestionNotFound: No question has this id.
        ReplyNotSent: The run has ended, or has closed the hook, without a reply.
        ReplyPending: There is no reply yet.
    """
    guards.refuse_in_workflow("get_reply", _STEP)
    engine: Durable = current.current_engine()
    return engine.get_reply(request_id, timeout)


def get_hook(token: str) -> HookInfo:
    """Describe the open hook with this *token*, on the current engine."""
    guards.refuse_in_workflow("get_hook")
    engine: Durable = current.current_engine()
    return engine.get_hook(token)


# For asyncio


async def astart(workflow: Workflow[P, R], *args: P.args, **kwargs: P.kwargs) -> Run[R]:
    """Start a run on the current engine, in an event loop: ``run = await astart(my_workflow, arg)``."""
    guards.refuse_in_workflow("astart", _AWAIT_OR_STEP)
    engine: Durable = current.current_engine()
    return await engine.astart(workflow, *args, **kwargs)


async def astart_many(
    workflow: Workflow[..., R] | StartOptions[..., R], args: Iterable[Any], keys: Iterable[str] | None = None
) -> list[Run[R]]:
    """Do the same as ``start_many`` in an event loop; it takes no session."""
    guards.refuse_in_workflow("astart_many", _AWAIT_OR_STEP)
    engine: Durable = current.current_engine()
    return await engine.astart_many(workflow, args, keys)


def alist_runs(
    *,
    status: str | None = None,
    name: str | None = None,
    attributes: Mapping[str, str] | None = None,
    since: Any = None,
    until: Any = None,
    paused: bool = False,
) -> AsyncRunList:
    """
    The runs that ``list_runs`` finds, for ``async for run in alist_runs(...)``.

    Its methods ``acancel()``, ``aretry()``, ``afork()``, ``apause()`` and ``aresume()`` act on all of them.

    Raises:
        ValueError: As ``list_runs``, but when it is first read.
    """
    guards.refuse_in_workflow("alist_runs", _STEP)
    engine = current.current_engine()
    wanted = {"status": status, "name": name, "attributes": attributes, "since": since, "until": until}
    return AsyncRunList(engine, partial(run_lists.list_runs, engine, **wanted, paused=paused))


async def aset_limit(name: str, n: int | None) -> None:
    """Do the same as ``set_limit`` in an event loop."""
    guards.refuse_in_workflow("aset_limit", _STEP)
    engine: Durable = current.current_engine()
    await engine.aset_limit(name, n)


@overload
async def aresume_hook(
    token: str, payload: object, wait: Any = None, wait_taken: Any = None, *, reply: Literal[False] = False
) -> Run[Any]: ...
@overload
async def aresume_hook(
    token: str, payload: object, wait: Any = None, *, reply: Literal[True], timeout: Any = None
) -> Any: ...
async def aresume_hook(
    token: str,
    payload: object,
    wait: Any = None,
    wait_taken: Any = None,
    *,
    reply: bool = False,
    timeout: Any = None,
) -> Any:
    """Do the same as ``resume_hook`` in an event loop.  It takes no thread while it waits."""
    guards.refuse_in_workflow("aresume_hook")
    engine: Any = current.current_engine()
    return await engine.aresume_hook(token, payload, wait, wait_taken, reply=reply, timeout=timeout)


async def aget_reply(request_id: str, timeout: Any = None) -> Any:
    """Do the same as ``get_reply`` in an event loop.  It takes no thread while it waits."""
    guards.refuse_in_workflow("aget_reply", _STEP)
    engine: Durable = current.current_engine()
    return await engine.aget_reply(request_id, timeout)


async def aget_hook(token: str) -> HookInfo:
    """Do the same as ``get_hook`` in an event loop."""
    guards.refuse_in_workflow("aget_hook")
    engine: Durable = current.current_engine()
    return await engine.aget_hook(token)
