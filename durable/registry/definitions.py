"""
``Step`` and ``Workflow``: what a call of a function does in a workflow and elsewhere.

The decorators in ``decorators.py`` make them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from .. import codec, current
from ..errors import ConfigurationError
from ..nearest import did_you_mean
from ..sandbox import guards
from . import fingerprint
from .base import Definition, described
from .limits import FlowLimit, check_limits
from .retry import RetryPolicy
from .run import Run

AT_MOST_ONCE = "at_most_once"

P = ParamSpec("P")
R = TypeVar("R")
#: What ``with_options`` and ``apply_async`` take.
START_OPTIONS = ("run_id", "idempotency_key", "queue", "priority", "countdown", "eta", "session", "attributes")
#: How a step's attempts may be delivered; the first one is the default.
SEMANTICS = ("at_least_once", "at_most_once", "transactional")


class Step(Definition[P, R]):
    """
    A function that runs as a Celery task, once per call in a workflow.

    Attributes:
        name: Its name in logs and tables.
        function: The decorated function.
        signature: The signature of the function.
        policy: When a failed attempt is retried.
        timeout: How long an attempt may take, in microseconds; None for no limit.
        semantics: One of ``SEMANTICS``.
        options: Options for its Celery task, as given (queue, priority, rate_limit, time_limit, …).
        limits: How many of its attempts run at once, or begin in a time.
        is_async: Whether the function is an ``async def``.
        body: The function that runs when the step runs.  Tests can replace it.
    """

    noun = "step"

    def __init__(
        self,
        function: Callable[P, Any],
        *,
        name: str | None = None,
        policy: RetryPolicy | None = None,
        timeout: int | None = None,
        semantics: str = SEMANTICS[0],
        options: Mapping[str, Any] | None = None,
        limits: Iterable[FlowLimit] = (),
    ) -> None:
        super().__init__(function, name)
        self.policy = policy or RetryPolicy()
        self.timeout = timeout
        self.semantics = semantics
        self.options = dict(options or {})
        self.limits = check_limits(limits, self.noun, self.name, self.signature)
        self.is_async = inspect.iscoroutinefunction(function)
        self.body: Callable[..., Any] = function

    @property
    def run(self) -> Callable[P, R]:
        """The plain function, for unit tests."""
        return self.function

    @functools.cached_property
    def return_annotation(self) -> Any:
        """The type that a result has to fit; Any without an annotation."""
        return self.annotation("return")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """In a workflow: schedule the step at once, and return what to await.  Elsewhere: call the function."""
        loop = current.workflow_loop()
        if loop is None:
            return self.body(*args, **kwargs)  # type: ignore[no-any-return]
        return loop.context.call_step(self, args, kwargs)  # type: ignore[no-any-return]

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        raise TypeError(f"Step {self.name} runs as part of a workflow: await it in a workflow.")

    def apply_async(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"Step {self.name} runs as part of a workflow: await it in a workflow.")


class AsyncStep(Step[P, R]):
    """A step that is an ``async def``: only the type of ``run`` differs."""

    @property
    def run(self) -> Callable[P, Coroutine[Any, Any, R]]:  # type: ignore[override]
        """The plain coroutine function, for unit tests."""
        return self.function


class Workflow(Definition[P, R]):
    """
    A coroutine function whose runs are replayed from their logs.

    Attributes:
        name: Its name in logs and tables.
        function: The decorated function.
        signature: The signature of the function.
        options: Options for its turns, as given (queue, priority).
        passthrough_modules: The modules whose calls the guards let pass.
        failure_exceptions: The errors that fail a run even if they say that the code is wrong.
        limits: How many of its runs go on at once, or begin in a time.
    """

    noun = "workflow"

    def __init__(
        self,
        function: Callable[P, Coroutine[Any, Any, R]],
        *,
        name: str | None = None,
        options: Mapping[str, Any] | None = None,
        passthrough_modules: Iterable[str] = (),
        failure_exceptions: Iterable[type[BaseException]] = (),
        limits: Iterable[FlowLimit] = (),
    ) -> None:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(
                f"@workflow needs an `async def`, and {described(function)} is not one."
                "  Write `async def`, and await steps in it."
            )
        super().__init__(function, name)
        self.options = dict(options or {})
        if isinstance(passthrough_modules, str):
            raise ConfigurationError(
                f"@workflow: passthrough_modules={passthrough_modules!r} is one str.  Pass a list of module names."
            )
        self.passthrough_modules = tuple(passthrough_modules)
        self.failure_exceptions = _exception_classes(failure_exceptions)
        self.limits = check_limits(limits, self.noun, self.name, self.signature)

    @property
    def run(self) -> Callable[P, Coroutine[Any, Any, R]]:
        """The plain coroutine function."""
        return self.function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """In a workflow: start a child run, and return what to await.  Elsewhere: TypeError."""
        loop = current.workflow_loop()
        if loop is None:
            raise TypeError(
                f"Workflow {self.name} runs in workers: start it with {self.__name__}.start(...), or"
                f" await it in another workflow.  The plain coroutine function is {self.__name__}.run."
            )
        return loop.context.call_child(self, args, kwargs)  # type: ignore[no-any-return]

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run on the current engine; every argument is the workflow's."""
        _refuse_start(self)
        return current.current_engine().start(self, *args, **kwargs)  # type: ignore[no-any-return]

    async def astart(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run in an event loop: ``run = await order.astart(...)``."""
        return await StartOptions(self, {}).astart(*args, **kwargs)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """The same as ``start``, under Celery's name."""
        return self.start(*args, **kwargs)

    def apply_async(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Run[R]:
        """Start a run with options, under Celery's name."""
        return self.with_options(**options).apply_async(args, kwargs)

    def with_options(self, **options: Any) -> StartOptions[P, R]:
        """
        This workflow with options for its start.

        Args:
            options: run_id, idempotency_key, queue, priority, countdown, eta, session, attributes.
        """
        unknown = sorted(set(options) - set(START_OPTIONS))
        if unknown:
            raise TypeError(
                f"Unknown option {unknown[0]!r} for the start of workflow {self.name}."
                f"{did_you_mean(unknown[0], START_OPTIONS)}  The options are {', '.join(START_OPTIONS)}."
            )
        return StartOptions(self, options)


@dataclass(frozen=True)
class StartOptions(Generic[P, R]):
    """A workflow with options for its start."""

    workflow: Workflow[P, R]
    options: Mapping[str, Any]

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run; every argument is the workflow's."""
        return self._start(args, kwargs)

    async def astart(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """
        Start a run in an event loop; every argument is the workflow's.

        Raises:
            TypeError: The options have a ``session``, whose connection belongs to the caller's thread.  With an
                AsyncSession call ``start`` in its ``run_sync``.
        """
        _refuse_start(self.workflow, "astart")
        if self.options.get("session") is not None:
            raise TypeError(
                f"{self.workflow.__name__}: astart takes no session.  With SQLAlchemy's AsyncSession write await"
                " session.run_sync(lambda sync: workflow.with_options(session=sync).start(...))."
            )
        engine = current.current_engine()
        options = dict(self.options)
        run: Run[R] = await engine.loop_calls.run(engine.start_with, self.workflow, args, dict(kwargs), options)
        return run

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """The same as ``start``, under Celery's name."""
        return self._start(args, kwargs)

    def apply_async(
        self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Run[R]:
        """Start a run with more options, under Celery's name."""
        return self.workflow.with_options(**{**self.options, **options})._start(tuple(args), kwargs or {})

    def _start(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Run[R]:
        _refuse_start(self.workflow)
        engine = current.current_engine()
        return engine.start_with(self.workflow, args, dict(kwargs), dict(self.options))  # type: ignore[no-any-return]


def _exception_classes(given: Any) -> tuple[type[BaseException], ...]:
    classes = tuple(given) if isinstance(given, Iterable) else (given,)
    if isinstance(given, type) or not all(isinstance(c, type) and issubclass(c, BaseException) for c in classes):
        raise ConfigurationError(
            f"@workflow: failure_exceptions={given!r} is no tuple of exception classes.  Write for example"
            " failure_exceptions=(TypeError,)."
        )
    return classes


def _refuse_start(workflow: Workflow[..., Any], call: str = "start") -> None:
    name = workflow.__name__
    guards.refuse_in_workflow(f"{name}.{call}", f"await {name}(...) to run it as a child, or start it in a step")


def fit_arguments(called: Definition[..., Any], bound: inspect.BoundArguments) -> None:
    """Convert each argument to its parameter's annotated type.  Raises SerializationError."""
    for name, value in bound.arguments.items():
        annotation: Any = called.annotation(name)
        kind = called.signature.parameters[name].kind
        if annotation is not Any and kind is inspect.Parameter.VAR_POSITIONAL:
            annotation = tuple.__class_getitem__((annotation, ...))
        elif annotation is not Any and kind is inspect.Parameter.VAR_KEYWORD:
            annotation = dict.__class_getitem__((str, annotation))
        bound.arguments[name] = codec.fit(value, annotation, f"args.{name}")


def code_version(workflow: Workflow[..., Any]) -> str:
    """A hash of the code of the workflow and of its module, as this process has loaded them."""
    function = workflow.function
    return f"{fingerprint.of_function(function)[:8]}{fingerprint.of_module(function.__module__)[:8]}"
