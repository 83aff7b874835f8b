"""``@workflow`` and ``@step``.  They need no engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from functools import partial
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, overload

from .. import duration
from ..errors import ConfigurationError
from ..nearest import did_you_mean
from ..sandbox import continuing, lint
from .celery_tasks import AdoptedStep, is_celery_task
from .definitions import SEMANTICS, AsyncStep, Step, Workflow
from .limits import FlowLimit
from .retry import RetryPolicy
from .tables import announce, register, unnamed

P = ParamSpec("P")
R = TypeVar("R")

Semantics = Literal["at_least_once", "at_most_once", "transactional"]

#: The default of ``max_retries``, which depends on ``semantics``.
_BY_SEMANTICS: Any = object()
_RETRIES = {"at_least_once": 3, "at_most_once": 0, "transactional": 3}


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    passthrough_modules: Iterable[str] = (),
    failure_exceptions: Iterable[type[BaseException]] = (),
    limits: Iterable[FlowLimit] = (),
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str | None = None,
    priority: int | None = None,
    passthrough_modules: Iterable[str] = (),
    failure_exceptions: Iterable[type[BaseException]] = (),
    limits: Iterable[FlowLimit] = (),
    **unknown: Any,
) -> Any:
    """
    Make an ``async def`` a workflow.

    Args:
        name: The workflow's name in logs and tables, by default ``module.qualname``.  Set it to the old name
            when you move the function.
        queue, priority: The queue and the priority of the workflow's turns.
        passthrough_modules: Modules and packages whose calls the guards let pass.
        failure_exceptions: Errors that fail a run although they say that its code is wrong, and would block it:
            ``(TypeError,)``; ``(BaseException,)`` for all.
        limits: How many runs go on at once, or begin in a time, over all processes: ``concurrency(…)``, ``rate(…)``;
            and whether starts that follow each other become one run: ``debounce(…)``.

    Raises:
        ConfigurationError: The function is no ``async def``, another function has the name, *failure_exceptions*
            are no exception classes, a limit is none of a workflow, the body reads the clock or randomness in a way
            that cannot be detected when it runs (``lint``), or it calls ``continue_as_new`` with arguments that do not
            fit the signature.
        TypeError: There is no such option.
    """
    _refuse_unknown("workflow", unknown, workflow)

    def define(function: Callable[..., Any]) -> Workflow[..., Any]:
        defined = Workflow(
            function,
            name=name,
            options=_given(queue=queue, priority=priority),
            passthrough_modules=passthrough_modules,
            failure_exceptions=failure_exceptions,
            limits=limits,
        )
        lint.check(defined.function, defined.name, defined.passthrough_modules)
        continuing.check(defined.function, defined.name, defined.signature)
        register(defined)
        announce(defined)
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
    argsrepr: str | None = None,
    limits: Iterable[FlowLimit] = (),
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
    argsrepr: str | None = None,
    limits: Iterable[FlowLimit] = (),
    **unknown: Any,
) -> Any:
    """
    Make a ``def``, an ``async def`` or an existing Celery task a step.

    A Celery task keeps its own name, queue, limits and retries: ``step(task)`` accepts none of the options.

    Args:
        max_retries: The number of attempts after the first, 3 by default.  None never gives up.  With
            "at_most_once" the default is 0, and only an attempt that raised is retried.
        retry_backoff: Seconds before the second attempt, doubled for each later one.
        retry_backoff_max: The longest delay, in seconds.
        retry_jitter: Whether to draw the delay at random between 0 and that.
        timeout: How long an attempt may take, for example ``"30s"``.  Then it fails with ``StepTimeout``.
        semantics: What happens to an attempt whose outcome is unknown, because its process died, say.
            "at_least_once" repeats it.  "at_most_once" blocks the run until ``durable runs resolve``.
            "transactional" (only for a ``def``) repeats it, and commits what the step writes through
            ``step_session()`` together with its result.
        name: The name of the step and of its Celery task, by default ``module.qualname``.
        queue, priority, rate_limit, time_limit, soft_time_limit: Options of its Celery task.
        argsrepr: What Celery's tools show in place of the arguments, for example ``"(order, <card>)"``.
        limits: How many attempts run at once, or begin in a time, over all processes: ``concurrency(…)``, ``rate(…)``.

    Raises:
        ConfigurationError: *function* is no function, a value is out of range, another function has the name,
            or a Celery task is given options.
        TypeError: There is no such option.
    """
    _refuse_unknown("step", unknown, step)
    _check(semantics, argsrepr)
    options = _given(queue=queue, priority=priority, rate_limit=rate_limit, argsrepr=argsrepr)
    options |= _given(time_limit=time_limit, soft_time_limit=soft_time_limit)
    define = partial(
        _define_step,
        name=name,
        policy=_retry_policy(semantics, max_retries, retry_backoff, retry_backoff_max, retry_jitter),
        timeout=_timeout(timeout),
        semantics=semantics,
        options=options,
        limits=limits,
    )
    return partial(define, adopts=False) if function is None else define(function, adopts=True)


def _define_step(
    function: Any,
    *,
    name: str | None,
    policy: RetryPolicy,
    timeout: int | None,
    semantics: str,
    options: dict[str, Any],
    limits: Iterable[FlowLimit],
    adopts: bool,
) -> Step[..., Any]:
    """Make a function or a Celery task a step.  *adopts* is False after ``step(...)``: that takes no Celery task."""
    defined: Step[..., Any]
    if is_celery_task(function):
        is_plain = policy == RetryPolicy() and semantics == SEMANTICS[0]
        if not adopts or name or timeout or options or limits or not is_plain:
            raise ConfigurationError(
                f"{function.name} is a Celery task with its own options.  Set them on the task, and write step(task)."
            )
        defined = AdoptedStep(function, register)
        unnamed.append(defined)
    else:
        kind: Any = AsyncStep if inspect.iscoroutinefunction(function) else Step
        if semantics == "transactional" and kind is AsyncStep:
            raise ConfigurationError(
                f"{function.__qualname__} is an `async def`, so it cannot be transactional: its session belongs to one"
                " thread, and would block the event loop that all async steps share.  Make it a `def`."
            )
        defined = kind(
            function,
            name=name,
            policy=policy,
            timeout=timeout,
            semantics=semantics,
            options=options,
            limits=limits,
        )
        register(defined)
    announce(defined)
    return defined


def _refuse_unknown(decorator: str, unknown: dict[str, Any], function: Callable[..., Any]) -> None:
    """Raise TypeError, as Python does for a keyword that a function does not have, with the nearest option."""
    if unknown:
        name = next(iter(unknown))
        kinds = inspect.signature(function).parameters.values()
        options = [each.name for each in kinds if each.kind is each.KEYWORD_ONLY]
        raise TypeError(
            f"@{decorator} has no option {name!r}.{did_you_mean(name, options)}  The options are {', '.join(options)}."
        )


def _check(semantics: str, argsrepr: object) -> None:
    if semantics not in SEMANTICS:
        raise ConfigurationError(f"@step: semantics={semantics!r} is not one of {', '.join(map(repr, SEMANTICS))}.")
    if argsrepr is not None and not isinstance(argsrepr, str):
        raise ConfigurationError(f"@step: argsrepr={argsrepr!r} is no text.  Celery's tools show it as it is.")


def _retry_policy(semantics: str, max_retries: Any, *delays: Any) -> RetryPolicy:
    return RetryPolicy(_RETRIES[semantics] if max_retries is _BY_SEMANTICS else max_retries, *delays)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _timeout(value: Any) -> int | None:
    if value is None:
        return None
    try:
        micros = duration.to_micros(value, what="timeout")
    except ValueError as error:
        raise ConfigurationError(f"@step: {error}") from error
    if micros == 0:
        raise ConfigurationError(
            "@step: timeout 0 would end every attempt before it begins.  Leave it out for no limit."
        )
    return micros
