"""
``@workflow`` and ``@step``: names for functions, known to every engine of the process.

Neither decorator needs an engine.  Like Celery's ``shared_task``, what they
define is told to every engine that subscribes, those made later too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, NoReturn, ParamSpec, Protocol, TypeVar, overload

from . import duration, fingerprint
from .definitions import AsyncStep, StartOptions, Step, Workflow
from .errors import ConfigurationError
from .retry import RetryPolicy

__all__ = [
    "AsyncStep",
    "StartOptions",
    "Step",
    "Workflow",
    "code_version",
    "step",
    "steps",
    "subscribe",
    "workflow",
    "workflows",
]

P = ParamSpec("P")
R = TypeVar("R")

#: Every step and workflow of this process, by name.
steps: dict[str, Step[..., Any]] = {}
workflows: dict[str, Workflow[..., Any]] = {}

Defined = Step[..., Any] | Workflow[..., Any]
_subscribers: list[Callable[[Defined], object]] = []


def subscribe(callback: Callable[[Defined], object]) -> Callable[[], None]:
    """Call *callback* for every step and workflow, those defined later too; returns how to end that."""
    _subscribers.append(callback)
    known: list[Defined] = [*steps.values(), *workflows.values()]
    for defined in known:
        callback(defined)
    return lambda: _subscribers.remove(callback) if callback in _subscribers else None


def _register(defined: Defined) -> None:
    known: dict[str, Any] = steps if isinstance(defined, Step) else workflows
    before = known.get(defined.name)
    # A reloader imports the same lines again: the later one counts.
    if before is not None and before.place != defined.place:
        raise ConfigurationError(
            f"Two {defined.noun}s are named {defined.name!r}: {before.place} and {defined.place}."
            "  Give one of them another with name=..."
        )
    known[defined.name] = defined
    for callback in list(_subscribers):
        callback(defined)


def code_version(workflow: Workflow[..., Any]) -> str:
    """A hash of the code of the workflow and of its module, as it is loaded in this process."""
    function = workflow.function
    return f"{fingerprint.of_function(function)[:8]}{fingerprint.of_module(function.__module__)[:8]}"


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, queue: str | None = None, priority: int | None = None
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
) -> Any:
    """
    Make an ``async def`` a workflow.

    Args:
        name: Its name in logs and tables, by default ``module.qualname``.  Keep it when the function moves.
        queue, priority: For its turns.

    Raises:
        ConfigurationError: Not an ``async def``, or a name that another function has.
    """

    def define(function: Callable[..., Any]) -> Workflow[..., Any]:
        defined = Workflow(function, name=name, options=_given(queue=queue, priority=priority))
        _register(defined)
        return defined

    return define if function is None else define(function)


class _StepDecorator(Protocol):
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    max_retries: int | None = 3,
    retry_backoff: float = 1,
    retry_backoff_max: float = 600,
    retry_jitter: bool = True,
    timeout: str | float | timedelta | None = None,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    rate_limit: str | float | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
) -> _StepDecorator: ...
def step(
    function: Any = None,
    /,
    *,
    max_retries: int | None = 3,
    retry_backoff: float = 1,
    retry_backoff_max: float = 600,
    retry_jitter: bool = True,
    timeout: str | float | timedelta | None = None,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    rate_limit: str | float | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
) -> Any:
    """
    Make a ``def`` or an ``async def`` a step.

    Args:
        max_retries: Attempts after the first; None never gives up.
        retry_backoff, retry_backoff_max: Seconds before the second attempt, doubled for each later one, at most.
        retry_jitter: Whether the delay is drawn from 0 to that.
        timeout: How long an attempt may take, as ``sleep`` takes it; it is retried then.
        name: Its name, and its Celery task's, by default ``module.qualname``.
        queue, priority, rate_limit, time_limit, soft_time_limit: Of its Celery task.

    Raises:
        ConfigurationError: Not a function, a value out of range, or a name that another function has.
    """
    policy = RetryPolicy(max_retries, retry_backoff, retry_backoff_max, retry_jitter)
    limit = _timeout(timeout)
    options = _given(
        queue=queue,
        priority=priority,
        rate_limit=rate_limit,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
    )

    def define(function: Any) -> Step[..., Any]:
        _refuse_celery_task(function)
        kind: Any = AsyncStep if inspect.iscoroutinefunction(function) else Step
        defined: Step[..., Any] = kind(function, name=name, policy=policy, timeout=limit, options=options)
        _register(defined)
        return defined

    return define if function is None else define(function)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _timeout(value: Any) -> int | None:
    if value is None:
        return None
    try:
        return duration.to_micros(value, what="timeout") or _refuse_zero()
    except ValueError as error:
        raise ConfigurationError(f"@step: {error}") from error


def _refuse_zero() -> NoReturn:
    raise ValueError("timeout 0 would end every attempt before it begins; leave it out for no limit.")


def _refuse_celery_task(function: Any) -> None:
    if hasattr(function, "apply_async") and hasattr(function, "name") and not hasattr(function, "__code__"):
        raise ConfigurationError(
            f"{function.name!r} is a Celery task, and adopting Celery tasks as steps is not supported yet."
            "  Write a step that calls the task's function, or its .delay()."
        )
