"""
``@workflow`` and ``@step``: names for functions, known to every engine of the process.

Neither decorator needs an engine.  Like Celery's ``shared_task``, what they
define becomes a task of every engine's app, whichever came first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Literal, NoReturn, ParamSpec, Protocol, TypeVar, overload

from .. import duration
from ..errors import ConfigurationError
from ..sandbox import lint
from . import fingerprint
from .celery_tasks import AdoptedStep, is_celery_task
from .definitions import SEMANTICS, AsyncStep, StartOptions, Step, Workflow
from .retry import RetryPolicy

__all__ = [
    "AdoptedStep",
    "AsyncStep",
    "StartOptions",
    "Step",
    "Workflow",
    "all_definitions",
    "code_version",
    "enter",
    "step",
    "steps",
    "subscribe",
    "unnamed",
    "workflow",
    "workflows",
]

P = ParamSpec("P")
R = TypeVar("R")

Semantics = Literal["at_least_once", "at_most_once", "transactional"]

#: What ``max_retries`` is when it is not given.
_BY_SEMANTICS: Any = object()
_RETRIES = {"at_least_once": 3, "at_most_once": 0, "transactional": 3}

#: Every step and workflow of this process, by name.
steps: dict[str, Step[..., Any]] = {}
workflows: dict[str, Workflow[..., Any]] = {}
#: Adopted Celery tasks that Celery has not made yet: their names are known when they are asked for.
unnamed: list[AdoptedStep[..., Any]] = []

Defined = Step[..., Any] | Workflow[..., Any]
_subscribers: list[Callable[[Defined], object]] = []


def subscribe(callback: Callable[[Defined], object]) -> Callable[[], None]:
    """Call *callback* for every step and workflow that is defined from now on; returns how to end that."""
    _subscribers.append(callback)
    return lambda: _subscribers.remove(callback) if callback in _subscribers else None


def all_definitions() -> list[Defined]:
    """Every step and workflow that is defined now."""
    return [*steps.values(), *workflows.values(), *unnamed]


def enter(defined: Defined) -> None:
    """Keep a step or workflow under its name; ConfigurationError when another function has it."""
    known: dict[str, Any] = steps if isinstance(defined, Step) else workflows
    before = known.get(defined.name)
    # A reloader imports the same lines again: the later one counts.
    if before is not None and before.place != defined.place:
        raise ConfigurationError(
            f"Two {defined.noun}s are named {defined.name!r}: {before.place} and {defined.place}."
            "  Give one of them another with name=..."
        )
    known[defined.name] = defined
    if defined in unnamed:
        unnamed.remove(defined)


def _announce(defined: Defined) -> None:
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
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    passthrough_modules: Iterable[str] = (),
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    passthrough_modules: Iterable[str] = (),
) -> Any:
    """
    Make an ``async def`` a workflow.

    Args:
        name: Its name in logs and tables, by default ``module.qualname``.  Keep it when the function moves.
        queue, priority: For its turns.
        passthrough_modules: Modules and packages whose calls the guards let pass.

    Raises:
        ConfigurationError: Not an ``async def``, a name that another function has, or a body that reads the
            clock or randomness in a way that could not be seen when it runs (``lint``).
    """

    def define(function: Callable[..., Any]) -> Workflow[..., Any]:
        defined = Workflow(
            function,
            name=name,
            options=_given(queue=queue, priority=priority),
            passthrough_modules=passthrough_modules,
        )
        lint.check(defined.function, defined.name, defined.passthrough_modules)
        enter(defined)
        _announce(defined)
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
    semantics: Semantics = "at_least_once",
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
    max_retries: Any = _BY_SEMANTICS,
    retry_backoff: float = 1,
    retry_backoff_max: float = 600,
    retry_jitter: bool = True,
    timeout: str | float | timedelta | None = None,
    semantics: Semantics = "at_least_once",
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    rate_limit: str | float | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
) -> Any:
    """
    Make a ``def``, an ``async def`` or an existing Celery task a step.

    A Celery task stays what it is, with its own name, queue, limits and retries: ``step(task)`` takes
    none of the options.

    Args:
        max_retries: Attempts after the first, 3 by default; None never gives up.  With "at_most_once" 0 by
            default, and only what the step raises is retried.
        retry_backoff, retry_backoff_max: Seconds before the second attempt, doubled for each later one, at most.
        retry_jitter: Whether the delay is drawn from 0 to that.
        timeout: How long an attempt may take, as ``sleep`` takes it; it fails with ``StepTimeout`` then.
        semantics: "at_least_once": repeated when it is not known what became of an attempt.  "at_most_once":
            never repeated then, the run is blocked until ``durable runs resolve``.  "transactional", for a
            ``def``: what it writes by ``step_session()`` is committed with its result, or not at all.
        name: Its name, and its Celery task's, by default ``module.qualname``.
        queue, priority, rate_limit, time_limit, soft_time_limit: Of its Celery task.

    Raises:
        ConfigurationError: Not a function, a value out of range, a name that another function has, or
            options for a Celery task.
    """
    _check_semantics(semantics)
    retries = _RETRIES[semantics] if max_retries is _BY_SEMANTICS else max_retries
    policy = RetryPolicy(retries, retry_backoff, retry_backoff_max, retry_jitter)
    limit = _timeout(timeout)
    options = _given(
        queue=queue,
        priority=priority,
        rate_limit=rate_limit,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
    )

    plain = policy == RetryPolicy() and semantics == SEMANTICS[0]
    takes_options = function is None or name or limit or options or not plain

    def define(function: Any) -> Step[..., Any]:
        if is_celery_task(function):
            return _adopt(function, refuse=bool(takes_options))
        kind: Any = AsyncStep if inspect.iscoroutinefunction(function) else Step
        if semantics == "transactional" and kind is AsyncStep:
            raise _unthreaded(function)
        defined: Step[..., Any] = kind(
            function, name=name, policy=policy, timeout=limit, semantics=semantics, options=options
        )
        enter(defined)
        _announce(defined)
        return defined

    return define if function is None else define(function)


def _check_semantics(semantics: object) -> None:
    if semantics not in SEMANTICS:
        raise ConfigurationError(f"@step: semantics={semantics!r} is none of {', '.join(map(repr, SEMANTICS))}.")


def _unthreaded(function: Any) -> ConfigurationError:
    return ConfigurationError(
        f"{function.__qualname__} is an `async def`, and transactional: its session belongs to one thread, and"
        " would block the loop that all such steps share.  Make it a `def`."
    )


def _adopt(task: Any, *, refuse: bool) -> AdoptedStep[..., Any]:
    if refuse:
        raise ConfigurationError(
            f"The options of {task.name}, a Celery task, are its own: set them on the task, and write step(task)."
        )
    defined: AdoptedStep[..., Any] = AdoptedStep(task, enter)
    unnamed.append(defined)
    _announce(defined)
    return defined


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
