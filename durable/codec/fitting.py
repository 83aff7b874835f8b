"""Whether a value fits an annotation: pydantic decides, and converts."""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
import typing
from functools import lru_cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypeAliasType, TypedDict

from ..errors import SerializationError
from .refusals import part_of, shown

_CONFIG = ConfigDict(arbitrary_types_allowed=True)
_make_alias: Any = TypeAliasType


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
        fitted = adapter.validate_python(value)
    except ValidationError as error:
        raise _misfit(error, what) from error
    # The items of an Iterable are validated when somebody draws them, which nobody will.
    return value if type(fitted).__name__ == "ValidatorIterator" else fitted


def is_checked(annotation: Any) -> bool:
    """Whether ``fit`` can tell what fits: pydantic knows what to make of the annotation."""
    return _adapter_of(annotation) is not None


def _adapter_of(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # not hashable
        return _adapter(annotation)


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """By way of an alias, since a dataclass or model by itself takes no configuration."""
    try:
        alias = _make_alias("Fitted", _with_new_dicts(annotation))
        adapter: TypeAdapter[Any] = TypeAdapter(alias, config=_CONFIG)
    except Exception:  # annotations are the author's, and may be anything
        return None
    return adapter if adapter.pydantic_complete else None


def _with_new_dicts(annotation: Any) -> Any:
    """
    With each TypedDict as typing_extensions makes them.

    Before Python 3.12 pydantic takes no other: typing's own forget which keys are required where.
    """
    if sys.version_info >= (3, 12):
        return annotation
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        keys = {name: _key(annotation, name, hint) for name, hint in hints.items()}
        return TypedDict(annotation.__name__, keys)  # type: ignore[operator]
    args = typing.get_args(annotation)
    renewed = tuple(_with_new_dicts(arg) for arg in args)
    if all(new is old for new, old in zip(renewed, args, strict=True)):
        return annotation
    if isinstance(annotation, types.UnionType):
        return functools.reduce(operator.or_, renewed)
    return annotation.copy_with(renewed) if hasattr(annotation, "copy_with") else typing.get_origin(annotation)[renewed]


def _key(annotation: Any, name: str, hint: Any) -> Any:
    bare = typing.get_args(hint)[0] if typing.get_origin(hint) in (typing.Required, typing.NotRequired) else hint
    new = _with_new_dicts(bare)
    return typing.Required[new] if name in annotation.__required_keys__ else typing.NotRequired[new]


_cached_adapter = lru_cache(maxsize=1024)(_adapter)


def _misfit(error: ValidationError, what: str) -> SerializationError:
    first, *others = error.errors(include_url=False, include_context=False)
    path = "".join(part_of(part) for part in first["loc"])
    more = f"  (And {len(others)} more.)" if others else ""
    return SerializationError(
        what + path,
        f"{shown(first['input'])} does not fit the annotation: {first['msg']}.{more}"
        "  Pass or return what is annotated, or change the annotation.",
    )
