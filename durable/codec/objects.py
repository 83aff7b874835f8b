"""
Kinds: enums, named tuples, dataclasses, pydantic models.

They are rebuilt without running ``__init__``, ``__post_init__`` or validators, so that the decoded value equals the
encoded one.  A field that the record lacks gets its default.  A field that the class no longer has is left out, as
pydantic does.  So code of the release before or after reads the value too.

A digest leaves out class paths, and fields that equal their default.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cached_property, lru_cache
from typing import Any, cast

from pydantic import BaseModel, RootModel
from pydantic.fields import ModelPrivateAttr
from pydantic_core import PydanticUndefined

from ..errors import SerializationError
from . import kinds
from .encoder import canonical_text
from .kinds import TAG, Context, Fields, Kind, Writer, find_class, path_to, slots_of
from .refusals import Unencodable, part_of, why_no_class

#: ``typing`` sets this on an instance that ``Box[int](4)`` creates.  The value equals one without it.
_TYPING_ATTRIBUTE = "__orig_class__"


def named_class(value: object) -> str:
    """The path of a value's class; Unencodable if it has none."""
    cls = type(value)
    path = path_to(cls)
    if path is None:
        raise Unencodable(why_no_class(cls))
    return path


# Enums by name, so that a member whose value changes stays the same member.  Combined flags have only a value.


def _write_enum(writer: Writer, value: Enum) -> Fields:
    fields = {"c": named_class(value), "n": _member_name(value)}
    if fields["n"] is not None:
        return {**fields, "v": writer.attempt(value.value)}
    if type(value)(value.value) != value:
        raise Unencodable(f"{type(value).__qualname__}({value.value!r}) is another member.  Give this one a name.")
    return {**fields, "v": writer.write(value.value)}


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


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and all(hasattr(cls, name) for name in ("_fields", "_field_defaults", "_make"))


def _write_named(writer: Writer, value: Any) -> Fields:
    if hidden := sorted(getattr(value, "__dict__", {}).keys() - {_TYPING_ATTRIBUTE}):
        raise Unencodable(f"its attributes {hidden} are not fields, and would be lost.")
    return {"c": named_class(value), "v": writer.fields(value, zip(value._fields, value, strict=True))}


def _digest_named(writer: Writer, value: Any) -> Fields:
    written = writer.fields(value, zip(value._fields, value, strict=True))
    return {"v": without_defaults(writer, written, type(value)._field_defaults.__getitem__)}


def _read_named(_context: Context, fields: Fields) -> Any:
    cls: Any = find_class(fields["c"], tuple)
    values = {**cls._field_defaults, **fields["v"]}
    for name in cls._fields:
        if name not in values:
            raise _lacking(fields, name)
    return cls._make(values[name] for name in cls._fields)


# Dataclasses


def _is_dataclass(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and not issubclass(cls, BaseException)


def _write_dataclass(writer: Writer, value: Any) -> Fields:
    path, declared = named_class(value), dataclasses.fields(value)
    _refuse_hidden(value, declared)
    written = writer.fields(value, _present(value, declared))
    if len(written) < len(declared):
        _refuse_unset(value, (f.name for f in declared if f.init and not _has_default(f) and f.name not in written))
    return {"c": path, "v": written}


def _digest_dataclass(writer: Writer, value: Any) -> Fields:
    declared = {f.name: f for f in dataclasses.fields(value)}
    written = writer.fields(value, _present(value, declared.values()))
    return {"v": without_defaults(writer, written, lambda name: _default(declared[name]))}


def _present(value: Any, declared: Iterable[dataclasses.Field[Any]]) -> Iterator[tuple[str, Any]]:
    """The fields that have a value.  A field with ``init=False`` may have none yet."""
    for f in declared:
        if hasattr(value, f.name):
            yield f.name, getattr(value, f.name)


def _refuse_hidden(value: Any, declared: Iterable[dataclasses.Field[Any]]) -> None:
    """Refuse a value with content that is not in its fields, and would be lost."""
    cls: type = type(value)
    if not _is_plain(cls):
        raise Unencodable(
            f"{cls.__qualname__} is also a builtin container, or another type with content that is in no field."
            "  Make that content a field."
        )
    names = {f.name for f in declared}
    for name in (*getattr(value, "__dict__", ()), *slots_of(cls)):
        if name in names or name == _TYPING_ATTRIBUTE or not hasattr(value, name):
            continue
        if not isinstance(getattr(cls, name, None), cached_property):
            raise Unencodable(
                f"its attribute {name!r} is not a field of dataclass {cls.__qualname__}, and would be lost."
                f"  Declare it in the class: {name}: ... = field(init=False)."
            )


@lru_cache(maxsize=4096)
def _is_plain(cls: type) -> bool:
    """Whether an instance has only attributes: no base class is a list, a datetime or a deque."""
    try:
        object.__new__(cls)
    except TypeError:
        return False
    return True


def _refuse_unset(value: object, names: Iterable[str]) -> None:
    """Refuse a value without one of its required fields, because it could not be decoded."""
    for name in names:
        refused = Unencodable(f"this required field of {type(value).__qualname__} was never set.  Give it a value.")
        refused.under(part_of(name))
        raise refused


def _read_dataclass(_context: Context, fields: Fields) -> Any:
    cls, recorded = find_class(fields["c"]), fields["v"]
    declared = dataclasses.fields(cast(Any, cls))  # TypeError if it is no dataclass, before there is an instance
    value: Any = object.__new__(cls)
    for f in declared:
        if f.name in recorded:
            object.__setattr__(value, f.name, recorded[f.name])
        elif _has_default(f):
            object.__setattr__(value, f.name, _default(f))
        elif f.init:
            raise _lacking(fields, f.name)
    return value


def _has_default(f: dataclasses.Field[Any]) -> bool:
    return f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING


def _default(f: dataclasses.Field[Any]) -> Any:
    if not _has_default(f):
        raise LookupError(f.name)
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


# Models


def _write_model(writer: Writer, value: BaseModel) -> Fields:
    fields: Fields = {"c": named_class(value), "v": writer.fields(value, _of_fields(value))}
    declared = type(value).model_fields
    if len(fields["v"]) < len(declared):
        _refuse_unset(value, (n for n, each in declared.items() if each.is_required() and n not in fields["v"]))
    if TAG in fields["v"]:
        raise Unencodable(f"its field {TAG!r} has the name of the codec's own key.  Rename it, and give it an alias.")
    if value.__pydantic_fields_set__ != set(fields["v"]):
        fields["set"] = sorted(value.__pydantic_fields_set__)
    if value.__pydantic_extra__:
        # As a dict, because the keys come from outside: one may be the codec's own key.
        fields["extra"] = writer.write(value.__pydantic_extra__)
    if value.__pydantic_private__:
        fields["private"] = writer.fields(value, _of_private(writer, value))
    return fields


def _digest_model(writer: Writer, value: BaseModel) -> Fields:
    written = writer.fields(value, _of_fields(value))
    extra = writer.fields(value, (value.__pydantic_extra__ or {}).items())
    kept = without_defaults(writer, written, lambda name: _model_default(type(value), name, value.__dict__))
    return {"v": {**kept, **extra}}


def _of_fields(value: BaseModel) -> Iterator[tuple[str, Any]]:
    """The declared fields, without the cached properties that are in the same dict."""
    declared = type(value).model_fields
    return ((name, item) for name, item in value.__dict__.items() if name in declared)


def _of_private(writer: Writer, value: BaseModel) -> Iterator[tuple[str, Any]]:
    """The private attributes, without those that cannot be encoded but have a default: a client, a lock."""
    declared = type(value).__private_attributes__
    for name, item in (value.__pydantic_private__ or {}).items():
        encodable = item is None or writer.attempt(item) is not None
        if encodable or _private_default(declared[name], {}) is PydanticUndefined:
            yield name, item


def _read_model(_context: Context, fields: Fields) -> BaseModel:
    cls = find_class(fields["c"], BaseModel)
    assert issubclass(cls, BaseModel)
    values = {name: item for name, item in fields["v"].items() if name in cls.model_fields}
    given = set(values) if "set" not in fields else set(fields["set"])
    for name, declared in cls.model_fields.items():
        if name not in values:
            if declared.is_required():
                raise _lacking(fields, name)
            values[name] = _model_default(cls, name, values)
    model = object.__new__(cls)
    restore: Any = RootModel.__setstate__ if issubclass(cls, RootModel) else BaseModel.__setstate__
    restore(
        model,
        {
            "__dict__": values,
            "__pydantic_fields_set__": given,
            "__pydantic_extra__": fields.get("extra", {}) if cls.model_config.get("extra") == "allow" else None,
            "__pydantic_private__": _read_private(cls, values, fields.get("private", {})),
        },
    )
    return model


def _read_private(cls: type[BaseModel], values: Fields, recorded: Fields) -> Fields | None:
    if not cls.__private_attributes__:
        return None
    missing = {name: each for name, each in cls.__private_attributes__.items() if name not in recorded}
    defaults = {name: _private_default(each, values) for name, each in missing.items()}
    return {**recorded, **{name: item for name, item in defaults.items() if item is not PydanticUndefined}}


def _private_default(declared: ModelPrivateAttr, values: Fields) -> Any:
    factory: Any = declared.default_factory
    if factory is None:
        return copy.deepcopy(declared.default)
    return factory(values) if getattr(declared, "default_factory_takes_validated_data", False) else factory()


def _model_default(cls: type[BaseModel], name: str, values: dict[str, Any]) -> Any:
    declared = cls.model_fields[name]
    if declared.is_required():
        raise LookupError(name)
    return declared.get_default(call_default_factory=True, validated_data=values)


# Defaults


def without_defaults(writer: Writer, written: Fields, default: Callable[[str], Any]) -> Fields:
    """
    The fields whose values differ from their defaults.

    Args:
        written: Names and values, as plain JSON.
        default: Returns the default by name; raises if there is none, or if it cannot be created in this process.
    """
    return {name: plain for name, plain in written.items() if not _is_default(writer, plain, name, default)}


def _is_default(writer: Writer, plain: Any, name: str, default: Callable[[str], Any]) -> bool:
    try:
        expected = default(name)
    except Exception:  # an author's factory may do anything, also calls that a workflow body may not make
        return False
    if expected is None or plain is None:
        return expected is plain
    written = writer.attempt(expected)
    # In Python 1 == True == 1.0, but their texts differ.
    return bool(written == plain) and canonical_text(written) == canonical_text(plain)


def _lacking(fields: Fields, name: str) -> SerializationError:
    return SerializationError(
        "value", f"{fields['c']} has a field {name!r} that the record lacks.  Give the new field a default."
    )


kinds.add_family(Kind("enum", _write_enum, _read_enum, _digest_enum, _plain_enum), lambda cls: issubclass(cls, Enum))
kinds.add_family(Kind("namedtuple", _write_named, _read_named, _digest_named), _is_named_tuple)
kinds.add_family(Kind("model", _write_model, _read_model, _digest_model), lambda cls: issubclass(cls, BaseModel))
kinds.add_family(Kind("dataclass", _write_dataclass, _read_dataclass, _digest_dataclass), _is_dataclass)
