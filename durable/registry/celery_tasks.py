"""
An existing Celery task as a step: ``charge = step(charge_task)``.

Celery creates a task at its first use, with the configuration that its app has
then.  So an adopted step must not touch the task before the app is ready.  It
reads the task's name, function and signature when they are first asked for,
not in ``__init__``.  Celery's classes are recognised by their attributes, since
this room imports nothing from Celery.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from .. import current
from ..errors import ConfigurationError
from .base import Definition, as_function
from .definitions import SEMANTICS, Step
from .retry import RetryPolicy
from .signatures import Signature

P = ParamSpec("P")
R = TypeVar("R")

_FOUND_LATER = frozenset(["name", "function", "signature", "policy", "_plain", "__name__", "__wrapped__"])


def is_celery_task(thing: object) -> bool:
    """Whether *thing* is a Celery task, or the proxy of one that Celery has not created yet."""
    if type(thing).__module__ == "celery.local":
        return True  # any other attribute of a proxy creates the task
    if inspect.isclass(thing) or isinstance(thing, Definition):
        return False
    return all(hasattr(thing, name) for name in ("apply_async", "name", "run"))


class AdoptedStep(Step[P, R]):
    """
    A step that runs as the application's own Celery task.

    Attributes:
        task: The task, or its proxy.  It keeps its own queue, limits and retries.

    Args:
        register: Called once with this step, when its name is known.
    """

    def __init__(self, task: Any, register: Callable[[AdoptedStep[P, R]], object]) -> None:
        self.task = task
        self.timeout = None
        self.semantics = SEMANTICS[0]
        self.options = {}
        self.limits = ()
        self.is_async = False
        self._register = register

    def __getattr__(self, name: str) -> Any:
        """Read the attributes that depend on the task, at the first use of one."""
        if name not in _FOUND_LATER:
            raise AttributeError(f"A step has no {name!r}.")
        task, kind = self.task, self.task.__class__
        # Take `run` from the class: on the instance Celery sets a wrapper with its retries, and we set an attempt.
        plain = inspect.getattr_static(kind, "run").__get__(task, kind)
        functools.update_wrapper(self, plain, updated=())
        self.function = as_function(inspect.unwrap(getattr(plain, "__func__", plain)), self.noun)
        self.signature = Signature.from_callable(plain)
        self.policy = RetryPolicy(max_retries=task.max_retries)
        self.name = str(task.name)
        self._plain = plain
        if inspect.iscoroutinefunction(self.function):
            raise ConfigurationError(
                f"The Celery task {self.name} is an `async def`.  Celery calls it but never awaits it."
                "  Make the function itself a @step."
            )
        self._register(self)
        return self.__dict__[name]

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """Itself.  A bound Celery task gets its ``self`` from Celery, not from the instance of a class."""
        return self

    @property
    def run(self) -> Callable[P, R]:
        """The task's function, without ``self`` if the task is bound.  For unit tests."""
        return self._plain  # type: ignore[no-any-return]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """In a workflow: schedule the step at once, and return what to await.  Elsewhere: call the task."""
        loop = current.workflow_loop()
        if loop is None:
            return self.task(*args, **kwargs)  # type: ignore[no-any-return]
        return loop.context.call_step(self, args, kwargs)  # type: ignore[no-any-return]

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        raise TypeError(self._not_sent("delay"))

    def apply_async(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(self._not_sent("apply_async"))

    def _not_sent(self, method: str) -> str:
        return (
            f"This step runs the Celery task {self.name}.  Await it in a workflow.  To send the task outside of a"
            f" workflow, call .{method}() of the task that you passed to step()."
        )
