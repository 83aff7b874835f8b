"""
Kinds: enums, named tuples, dataclasses.

They are rebuilt without running ``__init__``, ``__post_init__`` or validators, so that the decoded value equals the
encoded one.  A field that the record lacks gets its default. A field that the class no longer has is left out, as
pydantic does.  So code of the release before or after reads the value too.

A digest leaves out class paths, and fields that equal their default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any, cast

from ..errors import SerializationError
from . import kinds
from .encoder import canonical_text
from .kinds import Context, Fields, Kind, Writer, find_class, path_to, slots_of
from .refusals import Unencodable, part_of, why_no_class

#: ``typing`` sets this on an instance that ``Box[int](4)`` creates.  The value equals one without it.
_TYPING_ATTRIBUTE = "__orig_class__"


class EnumKind(Kind):
    """
    Enums by name, so that a member whose value changes stays the same member.

    Combined flags have only a value.
    """

    tag = "enum"

    def matches(self, cls: type) -> bool:
        return issubclass(cls, Enum)

    def write(self, writer: Writer, value: Enum) -> Fields:
        fields = {"c": named_class(value), "n": _member_name(value)}
        if fields["n"] is not None:
            return {**fields, "v": writer.attempt(value.value)}
        if type(value)(value.value) != value:
            raise Unencodable(f"{type(value).__qualname__}({value.value!r}) is another member.  Give this one a name.")
        return {**fields, "v": writer.write(value.value)}

    def digest(self, writer: Writer, value: Enum) -> Fields:
        name = _member_name(value)
        return {"n": name} if name is not None else {"v": writer.write(value.value)}

    def read(self, context: Context, fields: Fields) -> Enum:
        cls, name = find_class(fields["c"], Enum), fields["n"]
        if name is None:
            return cls(fields["v"])  # type: ignore[no-any-return]
        member = cls.__members__.get(name)  # type: ignore[attr-defined]
        if member is None:
            raise SerializationError("value", f"{fields['c']} has no member {name} any more.  Keep it as an alias.")
        return member  # type: ignore[no-any-return]

    def plain(self, fields: Fields) -> Any:
        return fields["n"] if fields["v"] is None else fields["v"]


class NamedTupleKind(Kind):
    """Named tuples by their fields."""

    tag = "namedtuple"

    def matches(self, cls: type) -> bool:
        return issubclass(cls, tuple) and all(hasattr(cls, name) for name in ("_fields", "_field_defaults", "_make"))

    def write(self, writer: Writer, value: Any) -> Fields:
        if hidden := sorted(getattr(value, "__dict__", {}).keys() - {_TYPING_ATTRIBUTE}):
            raise Unencodable(f"its attributes {hidden} are not fields, and would be lost.")
        return {"c": named_class(value), "v": writer.fields(value, zip(value._fields, value, strict=True))}

    def digest(self, writer: Writer, value: Any) -> Fields:
        written = writer.fields(value, zip(value._fields, value, strict=True))
        return {"v": without_defaults(writer, written, type(value)._field_defaults.__getitem__)}

    def read(self, context: Context, fields: Fields) -> Any:
        cls: Any = find_class(fields["c"], tuple)
        values = {**cls._field_defaults, **fields["v"]}
        for name in cls._fields:
            if name not in values:
                raise lacking(fields, name)
        return cls._make(values[name] for name in cls._fields)


class DataclassKind(Kind):
    """Dataclasses by their fields.  Content that is in no field would be lost, so a value with any is refused."""

    tag = "dataclass"

    def matches(self, cls: type) -> bool:
        return dataclasses.is_dataclass(cls) and not issubclass(cls, BaseException)

    def write(self, writer: Writer, value: Any) -> Fields:
        cls: type = type(value)
        path, declared = named_class(value), {f.name: f for f in dataclasses.fields(value)}
        if not _has_only_attributes(cls):
            raise Unencodable(
                f"{cls.__qualname__} is also a builtin container, or another type with content that is in no field."
                "  Make that content a field."
            )
        for name in (*getattr(value, "__dict__", ()), *slots_of(cls)):
            if name in declared or name == _TYPING_ATTRIBUTE or not hasattr(value, name):
                continue
            if not isinstance(getattr(cls, name, None), cached_property):
                raise Unencodable(
                    f"its attribute {name!r} is not a field of dataclass {cls.__qualname__}, and would be lost."
                    f"  Declare it in the class: {name}: ... = field(init=False)."
                )
        written = writer.fields(value, _present(value, declared))
        for name, f in declared.items():
            if name not in written and f.init and not _has_default(f):
                raise unset(cls, name)
        return {"c": path, "v": written}

    def digest(self, writer: Writer, value: Any) -> Fields:
        declared = {f.name: f for f in dataclasses.fields(value)}
        written = writer.fields(value, _present(value, declared))
        return {"v": without_defaults(writer, written, lambda name: _default(declared[name]))}

    def read(self, context: Context, fields: Fields) -> Any:
        cls, recorded = find_class(fields["c"]), fields["v"]
        declared = dataclasses.fields(cast(Any, cls))  # TypeError if it is no dataclass, before there is an instance
        value: Any = object.__new__(cls)
        for f in declared:
            if f.name in recorded:
                object.__setattr__(value, f.name, recorded[f.name])
            elif _has_default(f):
                object.__setattr__(value, f.name, _default(f))
            elif f.init:
                raise lacking(fields, f.name)
        return value


def named_class(value: object) -> str:
    """The path of a value's class; Unencodable if it has none."""
    cls = type(value)
    path = path_to(cls)
    if path is None:
        raise Unencodable(why_no_class(cls))
    return path


def without_defaults(writer: Writer, written: Fields, default: Callable[[str], Any]) -> Fields:
    """
    The fields whose values differ from their defaults.

    Args:
        written: Names and values, as plain JSON.
        default: Returns the default by name; raises if there is none, or if it cannot be created in this process.
    """
    kept = {}
    for name, plain in written.items():
        try:
            expected = default(name)
        except Exception:  # an author's factory may do anything, also calls that a workflow body may not make
            kept[name] = plain
            continue
        if expected is None or plain is None:
            is_default = expected is plain
        else:
            # In Python 1 == True == 1.0, but their texts differ.
            other = writer.attempt(expected)
            is_default = bool(other == plain) and canonical_text(other) == canonical_text(plain)
        if not is_default:
            kept[name] = plain
    return kept


def _member_name(value: Enum) -> str | None:
    return value.name if type(value).__members__.get(value.name) is value else None


def _present(value: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass that have a value.  A field with ``init=False`` may have none yet."""
    for name in names:
        if hasattr(value, name):
            yield name, getattr(value, name)


@lru_cache(maxsize=4096)
def _has_only_attributes(cls: type) -> bool:
    """Whether an instance has no other content: no base class is a list, a datetime or a deque."""
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def _has_default(f: dataclasses.Field[Any]) -> bool:
    return f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING


def _default(f: dataclasses.Field[Any]) -> Any:
    if not _has_default(f):
        raise LookupError(f.name)
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def unset(cls: type, name: str) -> Unencodable:
    """The refusal of a value without one of its required fields, because it could not be decoded."""
    refused = Unencodable(f"this required field of {cls.__qualname__} was never set.  Give it a value.")
    refused.under(part_of(name))
    return refused


def lacking(fields: Fields, name: str) -> SerializationError:
    return SerializationError(
        "value", f"{fields['c']} has a field {name!r} that the record lacks.  Give the new field a default."
    )


kinds.add(EnumKind())
kinds.add(NamedTupleKind())
kinds.add(DataclassKind())
