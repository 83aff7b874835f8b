"""Whether a value fits an annotation: pydantic decides, and converts."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import SerializationError
from .refusals import part_of, shown

_CONFIG = ConfigDict(arbitrary_types_allowed=True)


def fit(value: Any, annotation: Any, what: str) -> Any:
    """
    *value* as *annotation* wants it: the same, or what pydantic turns it into.

    Without an annotation, or with one that pydantic makes nothing of, the value itself.

    Args:
        what: What the value is called in an error.

    Raises:
        SerializationError: Naming the part that doesn't fit; its ``__cause__`` is pydantic's error.
    """
    if annotation is Any or annotation is inspect.Parameter.empty or annotation is type(value):
        return value
    adapter = _adapter_of(annotation)
    if adapter is None:
        return value
    try:
        fitted = adapter.validate_python((value,))[0]
    except ValidationError as error:
        raise _misfit(error, what) from error
    # The items of an Iterable are validated when somebody draws them, which nobody will.
    return value if type(fitted).__name__ == "ValidatorIterator" else fitted


def _adapter_of(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # not hashable
        return _adapter(annotation)


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Of a 1-tuple, since a dataclass or model by itself takes no configuration."""
    try:
        return TypeAdapter(tuple[annotation], config=_CONFIG)
    except Exception:  # annotations are the author's, and may be anything
        return None


_cached_adapter = lru_cache(maxsize=1024)(_adapter)


def _misfit(error: ValidationError, what: str) -> SerializationError:
    first, *others = error.errors(include_url=False, include_context=False)
    path = "".join(part_of(part) for part in first["loc"][1:])
    more = f"  (And {len(others)} more.)" if others else ""
    return SerializationError(
        what + path,
        f"{shown(first['input'])} does not fit the annotation: {first['msg']}.{more}"
        "  Return what is annotated, or change the annotation.",
    )
