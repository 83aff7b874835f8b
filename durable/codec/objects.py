"""
Kinds: enums, named tuples, dataclasses, pydantic models.

They are rebuilt without running ``__init__``, ``__post_init__`` or validators,
so that what arrives is what was sent.  A field that the record lacks gets its
default; one that the class no longer has is left out, as pydantic does: code
that is older or newer by a deploy reads the value too.

A digest leaves out class paths, and fields that equal their default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cached_property
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..errors import SerializationError
from . import kinds
from .kinds import Context, Fields, Kind, class_path, find_class
from .refusals import Refused, why_no_class
from .writing import Writer

_BUILTINS = (int, float, str, bytes, list, tuple, dict, set, frozenset)


def named_class(value: object) -> str:
    """The path of a value's class, if that path leads to it."""
    cls = type(value)
    path = class_path(cls)
    try:
        found = find_class(path)
    except SerializationError:
        found = None
    if found is not cls:
        raise Refused(why_no_class(cls))
    return path


# Enums: by name, so that a changed value is no other member; combined flags have only their value.


def _write_enum(writer: Writer, value: Enum) -> Fields:
    fields = {"c": named_class(value), "n": _member_name(value)}
    plain = writer.write(value.value) if fields["n"] is None else writer.attempt(value.value)
    return {**fields, "v": plain}


def _digest_enum(writer: Writer, value: Enum) -> Fields:
    name = _member_name(value)
    return {"n": name} if name is not None else {"v": writer.write(value.value)}


def _member_name(value: Enum) -> str | None:
    return value.name if type(value).__members__.get(value.name) is value else None


def _read_enum(_context: Context, fields: Fields) -> Enum:
    cls, name = find_class(fields["c"], Enum), fields["n"]
    if name is None:
        return cls(fields["v"])  # type: ignore[no-any-return]
    member = cls.__members__.get(name)  # type: ignore[attr-defined]
    if member is None:
        raise SerializationError("value", f"{fields['c']} has no member {name} any more.  Keep it as an alias.")
    return member  # type: ignore[no-any-return]


def _plain_enum(fields: Fields) -> Any:
    return fields["n"] if fields["v"] is None else fields["v"]


# Named tuples


def _write_named(writer: Writer, value: Any) -> Fields:
    return {"c": named_class(value), "v": writer.fields(value, zip(value._fields, value, strict=True))}


def _digest_named(writer: Writer, value: Any) -> Fields:
    kept = _changed(writer, zip(value._fields, value, strict=True), type(value)._field_defaults)
    return {"v": writer.fields(value, kept)}


def _read_named(_context: Context, fields: Fields) -> Any:
    cls: Any = find_class(fields["c"], tuple)
    return cls._make(_field(fields, name, cls._field_defaults.get) for name in cls._fields)


# Dataclasses


def _write_dataclass(writer: Writer, value: Any) -> Fields:
    path = named_class(value)
    _refuse_hidden(value)
    return {"c": path, "v": writer.fields(value, _present(value))}


def _digest_dataclass(writer: Writer, value: Any) -> Fields:
    defaults = {f.name: _default(f) for f in dataclasses.fields(value)}
    return {"v": writer.fields(value, _changed(writer, _present(value), defaults))}


def _present(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields that have a value; one with ``init=False`` may have none yet."""
    for f in dataclasses.fields(value):
        if hasattr(value, f.name):
            yield f.name, getattr(value, f.name)


def _refuse_hidden(value: Any) -> None:
    """Refuse what would be lost silently: content beside the fields."""
    cls = type(value)
    if isinstance(value, _BUILTINS):
        raise Refused(f"dataclass {cls.__qualname__} is a builtin container too; make that a field.")
    names = {f.name for f in dataclasses.fields(value)}
    for name in getattr(value, "__dict__", ()):
        if name not in names and not isinstance(getattr(cls, name, None), cached_property):
            raise Refused(
                f"its attribute {name!r} is no field of dataclass {cls.__qualname__}, and would be lost."
                f"  Declare it: {name}: ... = field(init=False)."
            )


def _read_dataclass(_context: Context, fields: Fields) -> Any:
    cls: Any = find_class(fields["c"])
    value = object.__new__(cls)
    for f in dataclasses.fields(cls):
        if f.name in fields["v"] or _has_default(f):
            object.__setattr__(value, f.name, _field(fields, f.name, lambda _name, f=f: _default(f)))
        elif f.init:
            _field(fields, f.name, lambda _name: None)
    return value


def _has_default(f: dataclasses.Field[Any]) -> bool:
    return f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


# Models


def _write_model(writer: Writer, value: BaseModel) -> Fields:
    fields = {"c": named_class(value), "v": writer.fields(value, _of_fields(value))}
    if value.__pydantic_fields_set__ != set(fields["v"]):
        fields["set"] = sorted(value.__pydantic_fields_set__)
    if value.__pydantic_extra__:
        fields["extra"] = writer.fields(value, value.__pydantic_extra__.items())
    if value.__pydantic_private__:
        fields["private"] = writer.fields(value, value.__pydantic_private__.items())
    return fields


def _of_fields(value: BaseModel) -> Iterator[tuple[str, Any]]:
    """Without cached properties, which stand in the same dict."""
    return ((name, item) for name, item in value.__dict__.items() if name in type(value).model_fields)
