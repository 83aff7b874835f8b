"""Where and why a value cannot be encoded, and what to do instead."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator
from typing import Any

from ..sandbox import ends_process

_BUILTINS = (bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset)


class Refused(Exception):
    """
    Raised inside the codec, where a value cannot be written.

    On its way up each container adds the part of the path that leads to what it holds.

    Attributes:
        reason: What is wrong, and what to do.
        depth: How many parts of the path, from the outside, are worth showing; None for all.
    """

    def __init__(self, reason: str, depth: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.depth = depth
        self._parts: list[str] = []

    def under(self, part: str) -> None:
        self._parts.append(part)

    @property
    def path(self) -> str:
        return "".join(self._parts[::-1][: self.depth])


def part_of(key: object) -> str:
    """How a dict's key looks in a path."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{shown(key)}]"


def shown(value: object) -> str:
    """A short repr, whatever the value is and does."""
    try:
        return reprlib.repr(value)
    except BaseException as error:
        if ends_process(error):
            raise
        return f"<{type(value).__name__} without a repr>"


def why_not(value: object) -> str:
    """Why nothing carries *value*."""
    return f"{_article(type(value))} cannot cross between processes.  {_advice(value)}"


def why_no_class(cls: type) -> str:
    """Why instances of *cls* cannot be rebuilt elsewhere: its name doesn't lead to it."""
    where = f"class {cls.__module__}.{cls.__qualname__}"
    if "<locals>" in cls.__qualname__:
        return f"{where} is defined inside a function, where no other process finds it.  Move it to the module."
    if "[" in cls.__qualname__:
        return f"{where} has parameters that cannot be named.  Write {cls.__qualname__} once at the top of the module."
    return f"{where} is not what that name stands for in its module.  Bind the class to its own name there."


def why_failed(value: object, error: Exception) -> str:
    """Why *value* cannot cross, when reading its content raised *error*."""
    return (
        f"{_article(type(value))} cannot be written: {type(error).__name__}: {error}.  "
        "It may be incomplete, or changed after it was made."
    )


def _advice(value: Any) -> str:
    if inspect.isawaitable(value):
        return "It has not been awaited: write `await` before it."
    if isinstance(value, type) or inspect.ismodule(value) or callable(value):
        return "Pass its name, or data, and look it up in the step."
    if isinstance(value, Iterator) and not hasattr(value, "fileno"):
        return "Pass list(...) of it."
    base = next((base for base in _BUILTINS if isinstance(value, base)), None)
    if base is bytearray or isinstance(value, memoryview):
        return "Pass bytes(...) of it."
    if base is not None:
        return f"Its type would be lost; pass {base.__name__}(...) of it."
    return "Pass plain data, a dataclass or a model; of a resource pass what the step needs to open it again."


def _article(cls: type) -> str:
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
