"""Errors for values that cannot be encoded: which part of the value, why, and what to do instead."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator
from typing import Any

from ..sandbox import ends_process

_BUILTINS = (bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset)


class Unencodable(Exception):
    """
    Raised inside the codec when a value cannot be encoded.

    While it passes through the containers of the value, each adds its part of the path.

    Attributes:
        reason: What is wrong, and what to do.
        depth: How many parts of the path to show, counted from the outside; None for all.
    """

    def __init__(self, reason: str, depth: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.depth = depth
        self._parts: list[str] = []

    def under(self, part: str) -> None:
        """Add the part of the path that leads to what was refused."""
        self._parts.append(part)

    @property
    def path(self) -> str:
        """The path to what was refused."""
        return "".join(self._parts[::-1][: self.depth])


def part_of(key: object) -> str:
    """A dict's key as part of a path."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{shown(key)}]"


def shown(value: object) -> str:
    """A short repr that never raises."""
    try:
        return reprlib.repr(value)
    except BaseException as error:
        if ends_process(error):
            raise
        return f"<{type(value).__name__} without a repr>"


def why_not(value: Any) -> str:
    """Why *value* has no kind, and what to pass instead."""
    base = next((base for base in _BUILTINS if isinstance(value, base)), None)
    if inspect.isawaitable(value):
        advice = "It has not been awaited: write `await` before it."
    elif isinstance(value, type) or inspect.ismodule(value) or callable(value):
        advice = "Pass its name or other data, and look it up in the step."
    elif isinstance(value, Iterator) and not hasattr(value, "fileno"):
        advice = "Pass list(...) of it."
    elif base is bytearray or isinstance(value, memoryview):
        advice = "Pass bytes(...) of it."
    elif base is not None:
        advice = f"Its type would be lost; pass {base.__name__}(...) of it."
    else:
        advice = (
            "Pass plain data, a dataclass or a model.  For a file or connection pass what the step needs to open it."
        )
    return f"{_article(type(value))} cannot be serialized.  {advice}"


def why_no_class(cls: type) -> str:
    """Why instances of *cls* cannot be rebuilt in another process: its name does not lead to it."""
    where = f"class {cls.__module__}.{cls.__qualname__}"
    if "<locals>" in cls.__qualname__:
        return f"{where} is defined inside a function, where no other process finds it.  Move it to module level."
    if "[" in cls.__qualname__:
        return f"{where} has parameters that have no name.  Write {cls.__qualname__} once at the top of the module."
    return f"{where} is not what this name stands for in its module.  Give the class its own name there."


def why_failed(value: object, error: Exception) -> str:
    """Why *value* cannot be encoded, if reading its content raised *error*."""
    return (
        f"{_article(type(value))} cannot be written: {type(error).__name__}: {error}.  "
        "It may be incomplete, or was changed after it was created."
    )


def _article(cls: type) -> str:
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
