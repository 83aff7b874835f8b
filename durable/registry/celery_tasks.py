"""
An existing Celery task as a step: ``charge = step(charge_task)``.

Celery makes a task at its first use, and binds it to the configuration that its
app has then.  So the task is not looked at before the app is ready: what a step
has in ``__init__`` is found here when it is asked for.  Celery's classes are
recognised by their shape, since nothing of the core imports Celery.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, ParamSpec, Self, TypeVar

from .. import current
from ..errors import ConfigurationError
from .definitions import SEMANTICS, Definition, Step, as_function
from .retry import RetryPolicy
from .signatures import Signature

P = ParamSpec("P")
R = TypeVar("R")

_FOUND_LATER = frozenset(["name", "function", "signature", "policy", "_plain", "__name__", "__wrapped__"])


def is_celery_task(thing: object) -> bool:
    """Whether *thing* is a Celery task, or the proxy of one that is not made yet."""
    if type(thing).__module__ == "celery.local":
        return True  # to ask a proxy for anything is to make the task
    if inspect.isclass(thing) or isinstance(thing, Definition):
        return False
    return all(hasattr(thing, name) for name in ("apply_async", "name", "run"))


class AdoptedStep(Step[P, R]):
    """
    A step that runs as the application's own Celery task.

    Attributes:
        task: The task, or its proxy.  Its queue, its limits and its retries are its own.

    Args:
        register: Called once with this step, when its name is known.
    """

    def __init__(self, task: Any, register: Callable[[AdoptedStep[P, R]], object]) -> None:
        self.task = task
        self.timeout = None
        self.semantics = SEMANTICS[0]
        self.options = {}
        self.is_async = False
        self._register = register

    def __getattr__(self, name: str) -> Any:
        """What other steps have from the beginning, of the task once there is one."""
        if name not in _FOUND_LATER:
            raise AttributeError(f"A step has no {name!r}.")
        self._look()
        return self.__dict__[name]

    def _look(self) -> None:
        task, kind = self.task, self.task.__class__
        # What is set on the instance is what Celery wraps around: its own retries, and an attempt of ours.
        plain = inspect.getattr_static(kind, "run").__get__(task, kind)
        functools.update_wrapper(self, plain, updated=())
        self.function = as_function(inspect.unwrap(getattr(plain, "__func__", plain)), self.noun)
        self.signature = Signature.from_callable(plain)
        self.policy = RetryPolicy(max_retries=task.max_retries)
        self.name = str(task.name)
        self._plain = plain
        if inspect.iscoroutinefunction(self.function):
            raise ConfigurationError(
                f"The Celery task {self.name} is an `async def`, which Celery calls and never awaits."
                "  Make the function itself a @step."
            )
        self._register(self)

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """Itself: a Celery task is no method either, and gets its own ``self`` from Celery."""
        return self

    @property
    def run(self) -> Callable[P, R]:
        """The function that was made a task, without ``self`` where the task is bound; for unit tests."""
        return self._plain  # type: ignore[no-any-return]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        """In a workflow: schedule the step at once, and return what to await.  Elsewhere: call the task."""
        if current.workflow_loop() is None:
            return self.task(*args, **kwargs)  # type: ignore[no-any-return]
        return super().__call__(*args, **kwargs)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        raise TypeError(self._not_sent("delay"))

    def apply_async(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(self._not_sent("apply_async"))

    def _not_sent(self, method: str) -> str:
        return (
            f"This is the step made of the Celery task {self.name}: await it in a workflow."
            f"  To send the task by itself, call .{method}() of the task that step() was given."
        )
