"""
Check a value against an annotation.  Pydantic checks it, and converts it where it can.

Pydantic is imported with the first annotation that needs it.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
import types
import typing
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeAliasType, TypedDict

from ..errors import SerializationError
from .kinds import kind_of
from .refusals import part_of, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter

#: Types whose values lose nothing when pydantic converts them.
_ATOMS = frozenset({str, int, float, bytes, type(None)})
_new_tuple: Any = tuple.__new__
_make_alias: Any = TypeAliasType


def fit(value: Any, annotation: Any, what: str) -> Any:
    """
    *value*, converted by pydantic where *annotation* needs it.

    Without an annotation, or with one that pydantic does not support, this returns the value itself.  Where a str is
    annotated, a member of a StrEnum stays that member, at any depth of lists, tuples, sets and dicts.

    Args:
        what: The name of the value in errors.

    Raises:
        SerializationError: With the path to the part that does not fit; its ``__cause__`` is pydantic's error.
    """
    if annotation is Any or annotation is inspect.Parameter.empty or annotation is type(value):
        return value
    adapter = _adapter_of(annotation)
    if adapter is None:
        return value
    try:
        fitted = adapter.validate_python(value)
    except Exception as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):  # of an author's validator
            raise
        first, *others = error.errors(include_url=False, include_context=False)
        path = "".join(map(part_of, first["loc"]))
        more = f"  (And {len(others)} more.)" if others else ""
        given = first["input"]
        described = f"a value of type {type(given).__name__}" if holds_secret(annotation) else shown(given)
        raise SerializationError(
            what + path,
            f"{described} does not fit the annotation: {first['msg']}.{more}  Change the value or the annotation.",
        ) from error
    # Pydantic validates the items of an Iterable when they are read.  The value itself is kept instead.
    return value if type(fitted).__name__ == "ValidatorIterator" else _kept(value, fitted)


def _kept(value: Any, fitted: Any) -> Any:
    """Pydantic's result, but with the parts of *value* that were instances of the wanted type already."""
    cls: type = type(value)
    wanted = type(fitted)
    if cls is not wanted:
        encodable = cls is bool or kind_of(cls) is not None
        return value if encodable and issubclass(cls, wanted) and bool(value == fitted) else fitted
    if value is fitted:
        return value
    if cls is list or issubclass(cls, tuple):
        if len(value) != len(fitted) or _ATOMS.issuperset(map(type, value)):
            return fitted
        items = map(_kept, value, fitted)
        return list(items) if cls is list else _new_tuple(cls, items)
    if cls is dict:
        if _ATOMS.issuperset(map(type, value)) and _ATOMS.issuperset(map(type, value.values())):
            return fitted
        keys = {key: key for key in value}
        return {_kept(keys.get(key, key), key): _kept(value.get(key, item), item) for key, item in fitted.items()}
    if cls is set or cls is frozenset:
        members = {member: member for member in value}
        return cls(_kept(members.get(member, member), member) for member in fitted)
    return fitted


def holds_secret(annotation: Any) -> bool:
    """Whether a value with this annotation may contain a secret, so that no part of it may be shown."""
    adapter = _adapter_of(annotation)
    return adapter is not None and _mentions_secret(adapter.core_schema)


def _mentions_secret(schema: Any) -> bool:
    if isinstance(schema, dict):
        return any(map(_mentions_secret, schema.values()))
    if isinstance(schema, list | tuple):
        return any(map(_mentions_secret, schema))
    from .pydantic_types import is_secret

    return is_secret(schema)


def is_checked(annotation: Any) -> bool:
    """Whether ``fit`` checks values with this annotation: pydantic supports it."""
    return _adapter_of(annotation) is not None


def _adapter_of(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        # The members of a union are tried in their order, and ``int | float`` equals ``float | int``.
        return _cached_adapter(annotation, "" if isinstance(annotation, type) else repr(annotation))
    except Exception:  # not hashable, or its author's ``__repr__`` raises
        return _adapter(annotation)


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    """Pydantic's adapter, None if it does not support the annotation.  Only through an alias it is configurable."""
    if inspect.isroutine(annotation):  # pydantic 2.10 would call it
        return None
    from pydantic import TypeAdapter

    try:
        alias = _make_alias("Fitted", _with_new_dicts(annotation))
        adapter: TypeAdapter[Any] = TypeAdapter(alias, config={"arbitrary_types_allowed": True})
        if adapter.pydantic_complete and _mentions_secret(adapter.core_schema):
            # Pydantic's errors appear in tracebacks, and would show the value.
            adapter = TypeAdapter(alias, config={"arbitrary_types_allowed": True, "hide_input_in_errors": True})
    except Exception:  # an author's annotation may be anything
        return None
    return adapter if adapter.pydantic_complete else None


def _with_new_dicts(annotation: Any) -> Any:
    """
    The annotation with each TypedDict made again by typing_extensions.

    Before Python 3.12 pydantic needs that, because typing's own do not keep which keys are required.
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


@lru_cache(maxsize=1024)
def _cached_adapter(annotation: Any, written: str) -> TypeAdapter[Any] | None:
    """The adapter of an annotation that is *written* so."""
    return _adapter(annotation)
