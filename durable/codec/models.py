"""Kinds: models of pydantic.  They are rebuilt without validators, as in ``objects.py``."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, RootModel
from pydantic.fields import ModelPrivateAttr
from pydantic_core import PydanticUndefined

from . import kinds
from .kinds import TAG, Context, Fields, Kind, Writer, find_class
from .objects import lacking, named_class, unset, without_defaults
from .refusals import Unencodable


class ModelKind(Kind):
    """
    Pydantic models by their fields, with what pydantic keeps beside these.

    That is which fields were given, extra fields and private attributes.  A private attribute that cannot be encoded
    but has a default, such as a client or a lock, is left out.
    """

    tag = "model"

    def matches(self, cls: type) -> bool:
        return issubclass(cls, BaseModel)

    def write(self, writer: Writer, value: BaseModel) -> Fields:
        cls = type(value)
        path, written = named_class(value), writer.fields(value, _declared_items(value))
        for name, declared in cls.model_fields.items():
            if name not in written and declared.is_required():
                raise unset(cls, name)
        if TAG in written:
            raise Unencodable(
                f"its field {TAG!r} has the name of the codec's own key.  Rename it, and give it an alias."
            )
        fields: Fields = {"c": path, "v": written}
        if value.__pydantic_fields_set__ != set(written):
            fields["set"] = sorted(value.__pydantic_fields_set__)
        if value.__pydantic_extra__:
            # As a dict, because the keys come from outside: one may be the codec's own key.
            fields["extra"] = writer.write(value.__pydantic_extra__)
        if value.__pydantic_private__:
            kept = {
                name: item
                for name, item in value.__pydantic_private__.items()
                if item is None
                or writer.attempt(item) is not None
                or _private_default(cls.__private_attributes__[name], {}) is PydanticUndefined
            }
            fields["private"] = writer.fields(value, kept.items())
        return fields

    def digest(self, writer: Writer, value: BaseModel) -> Fields:
        written = writer.fields(value, _declared_items(value))
        extra = writer.fields(value, (value.__pydantic_extra__ or {}).items())
        kept = without_defaults(writer, written, lambda name: _model_default(type(value), name, value.__dict__))
        return {"v": {**kept, **extra}}

    def read(self, context: Context, fields: Fields) -> BaseModel:
        cls = find_class(fields["c"], BaseModel)
        assert issubclass(cls, BaseModel)
        values = {name: item for name, item in fields["v"].items() if name in cls.model_fields}
        given = set(values) if "set" not in fields else set(fields["set"])
        for name, declared in cls.model_fields.items():
            if name not in values:
                if declared.is_required():
                    raise lacking(fields, name)
                values[name] = _model_default(cls, name, values)
        private = dict(fields.get("private", {}))
        for name, attribute in cls.__private_attributes__.items():
            if name not in private and (default := _private_default(attribute, values)) is not PydanticUndefined:
                private[name] = default
        model = object.__new__(cls)
        restore: Any = RootModel.__setstate__ if issubclass(cls, RootModel) else BaseModel.__setstate__
        restore(
            model,
            {
                "__dict__": values,
                "__pydantic_fields_set__": given,
                "__pydantic_extra__": fields.get("extra", {}) if cls.model_config.get("extra") == "allow" else None,
                "__pydantic_private__": private if cls.__private_attributes__ else None,
            },
        )
        return model


def _declared_items(value: BaseModel) -> Iterator[tuple[str, Any]]:
    """The declared fields of a model, without the cached properties that are in the same dict."""
    declared = type(value).model_fields
    return ((name, item) for name, item in value.__dict__.items() if name in declared)


def _model_default(cls: type[BaseModel], name: str, values: dict[str, Any]) -> Any:
    declared = cls.model_fields[name]
    if declared.is_required():
        raise LookupError(name)
    return declared.get_default(call_default_factory=True, validated_data=values)


def _private_default(declared: ModelPrivateAttr, values: Fields) -> Any:
    factory: Any = declared.default_factory
    if factory is None:
        return copy.deepcopy(declared.default)
    return factory(values) if getattr(declared, "default_factory_takes_validated_data", False) else factory()


kinds.add(ModelKind())
