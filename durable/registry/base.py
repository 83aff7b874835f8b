"""``Definition``, the base of steps and workflows: an author's function, its name, and what its annotations mean."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, Generic, ParamSpec, Self, TypeVar

from ..errors import ConfigurationError
from .limits import FlowLimit
from .signatures import Signature

P = ParamSpec("P")
R = TypeVar("R")


class Definition(Generic[P, R]):
    """What steps and workflows share: a function, its name, and where it was written."""

    noun = ""
    limits: tuple[FlowLimit, ...] = ()
    __name__: str

    def __init__(self, function: Callable[P, Any], name: str | None) -> None:
        self.function: FunctionType = as_function(function, self.noun)
        self.name = name or f"{_module_name(self.function)}.{self.function.__qualname__}"
        self.signature = Signature.from_callable(self.function)
        functools.update_wrapper(self, self.function)  # type: ignore[arg-type]

    @property
    def place(self) -> str:
        """``file:line`` of the definition."""
        code = self.function.__code__
        return f"{code.co_filename}:{code.co_firstlineno}"

    def annotation(self, name: str) -> Any:
        """
        The annotation of the parameter *name* (or of ``return``) as an object.

        ``Any`` without an annotation, and for one that cannot be resolved, because it names something that
        exists only for type checkers.
        """
        written = self.function.__annotations__.get(name, Any)
        if isinstance(written, type) or written is Any:
            return written
        if name not in self._resolved:
            # A string, or a type that contains one (``list["Order"]``).
            holder = SimpleNamespace(__annotations__={name: written})
            try:
                closed_over = dict(inspect.getclosurevars(self.function).nonlocals)
                found = typing.get_type_hints(holder, self.function.__globals__, closed_over, include_extras=True)
            except Exception:  # it is the author's code, and what it names may exist later
                return Any
            self._resolved[name] = found[name]
        return self._resolved[name]

    @functools.cached_property
    def _resolved(self) -> dict[str, Any]:
        """The annotations that have been resolved, by name.  Each call of a step needs them."""
        return {}

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """Itself.  Raises TypeError for a method that is looked up on an instance, since a call would not pass it."""
        if instance is None:
            return self
        owner = owner or type(instance)
        # A method takes self or cls, or was written in the body of the class or of a base class.
        takes_instance = next(iter(self.signature.parameters), "") in ("self", "cls")
        written_in = self.function.__qualname__.rpartition(".")[0]
        if takes_instance or any(each.__qualname__ == written_in for each in owner.__mro__):
            noun = self.noun
            raise TypeError(
                f"{noun.capitalize()} {self.name} was looked up on an instance of {owner.__name__}, and a call of a"
                f" {noun} does not pass the instance.  Pass every argument: {owner.__name__}.{self.__name__}(...)."
                f"  Or put @staticmethod above @{noun}, or move the function out of the class."
            )
        return self

    def __repr__(self) -> str:
        return f"<{self.noun} {self.name}>"


def as_function(function: Any, noun: str) -> FunctionType:
    """*function* itself.  Raises ConfigurationError for a generator, and for anything that is not a function."""
    if isinstance(function, staticmethod):
        raise ConfigurationError(f"@{noun} is above @staticmethod on {described(function)}.  Swap the two lines.")
    if not inspect.isfunction(function):
        raise ConfigurationError(f"@{noun} needs a function, and {described(function)} is not one.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"@{noun} needs a function that returns a value, and {described(function)} is a generator."
            "  Return a list, or make each item a step of its own."
        )
    return function


def described(function: Any) -> str:
    """A function's name for an error's text; for anything else its ``repr``."""
    return f"{getattr(function, '__qualname__', function)!r}"


def _module_name(function: FunctionType) -> str:
    """The function's module; for a script the name under which a worker would import it."""
    if function.__module__ != "__main__":
        return function.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    stem: str = function.__code__.co_filename.replace("\\", "/").rpartition("/")[2]
    return stem.removesuffix(".py")
