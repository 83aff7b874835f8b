"""The writer accepts nothing that the reader refuses: values that are incomplete or odd cross, or are refused."""

from __future__ import annotations

import enum
import io
import zoneinfo
from datetime import datetime, time
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import codec_types as types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from values import VALUES

from durable import SerializationError, codec


def without(value: Any, name: str) -> Any:
    """The value, without one of its attributes."""
    object.__delattr__(value, name)
    return value


def changed(container: Any) -> Any:
    """A set or dict of a value that can no longer be hashed."""
    for item in container:
        item.x = []
    return container


def zone_of(key: str) -> ZoneInfo:
    """Berlin's zone under any key, as it is read from a file."""
    for folder in zoneinfo.TZPATH:
        try:
            with open(f"{folder}/Europe/Berlin", "rb") as file:
                return ZoneInfo.from_file(io.BytesIO(file.read()), key=key)
        except OSError:
            continue
    pytest.skip("no files of time zones on this machine")


def test_c36_a_model_without_a_required_field_is_refused_where_it_is_written():
    """`model_construct` validates nothing: the path names the field that nobody could read back."""
    incomplete = types.Model.model_construct(at=None)

    with pytest.raises(SerializationError, match=r"args\.models\[1\]\.id: this required field of Model was never set"):
        codec.encode_arguments({"models": [types.Model(id=1), incomplete]})
    assert codec.decode(codec.encode(types.Model.model_construct(id="any"))).id == "any"


ODD = {
    "dataclass without a field": (lambda: without(types.Order("o"), "id"), "value.id: this required field of Order"),
    "frozen dataclass without a field": (lambda: without(types.Frozen(1), "x"), "value.x: this required field"),
    "model that was never made": (lambda: object.__new__(types.Keyed), "a codec_types.Keyed cannot be written"),
    "dataclass of a builtin type": (lambda: types.Moment(2026, 1, 1), "Moment is also a builtin container"),
    "slot beside the fields": (lambda: with_cache(types.OnBase()), "its attribute 'cache' is not a field"),
    "named tuple too long": (lambda: tuple.__new__(types.Point, (1, 2, 3)), "a codec_types.Point cannot be written"),
    "tuple with the looks of a named one": (lambda: types.Fields((1,)), "a codec_types.Fields cannot be serialized"),
    "zone under a key of its own": (lambda: datetime(2026, 1, 1, tzinfo=zone_of("Mars/Base")), "its time zone"),
    "time in such a zone": (lambda: time(1, tzinfo=zone_of("Mars/Base")), "its time zone"),
    "set of what has no hash any more": (lambda: changed({types.Hashed(1)}), "a set cannot be written: TypeError"),
    "model with a field that is a tag": (lambda: types.Dollar(), "its field '$'"),
}


def filled(cls: Any, fields: dict[str, Any]) -> Any:
    """An instance that was never initialized, with those of the fields that its class declares."""
    value = object.__new__(cls)
    declared = getattr(cls, "__dataclass_fields__", None) or cls.model_fields
    for name in fields.keys() & declared.keys():
        object.__setattr__(value, name, fields[name])
    if issubclass(cls, BaseModel):
        object.__setattr__(value, "__pydantic_fields_set__", set(fields))
    return value


def constructed(cls: Any, fields: dict[str, Any]) -> Any:
    """What ``model_construct`` makes of the fields."""
    return cls.model_construct(fields) if cls is types.Numbers else cls.model_construct(**fields)


def with_cache(value: Any) -> Any:
    value.cache = 1
    return value


@pytest.mark.parametrize("name", ODD)
def test_what_could_not_be_read_is_refused(name):
    """The error says where it stands and what is wrong; in a list, in an argument, and as an error's attribute."""
    make, message = ODD[name]
    with pytest.raises(SerializationError) as caught:
        codec.encode(make())
    with pytest.raises(SerializationError, match=r"value\.inner\[0\]"):
        codec.encode(types.Crate([make()]))
    error = ValueError("x")
    error.odd = make()

    assert message in str(caught.value)
    assert not hasattr(codec.decode_error(codec.encode_error(error)), "odd")


def test_a_dict_whose_key_has_no_hash_any_more():
    """A dict's key is looked at as a set's member is."""
    with pytest.raises(SerializationError, match="unhashable"):
        codec.encode([changed({types.Hashed(1): 2})])


@pytest.mark.parametrize("extra", [{"$": "tuple", "v": [1]}, {"$": 5}, {"$": "dataclass", "c": "codec_types:Order"}])
def test_extra_fields_may_have_any_name(extra):
    """What `extra="allow"` took in is data: a key that is the codec's own makes nothing of it."""
    value = types.Open(id=1, **extra)

    assert codec.decode(codec.encode(value)) == value


def test_a_model_that_cannot_be_made_from_nothing():
    """Reading runs neither its `__new__` nor its `__setstate__`."""
    assert codec.decode(codec.encode(types.Touchy(x=1))) == types.Touchy(x=1)


class Made(enum.Enum):
    """Of a value that is no member's, a lookup makes a member."""

    A = 1

    @classmethod
    def _missing_(cls, value):
        member = object.__new__(cls)
        member._name_, member._value_ = f"made_{value}", value
        return member


def test_a_member_that_its_value_does_not_lead_to():
    """A lookup that makes another each time is refused, since what is read is never what was sent."""
    with pytest.raises(SerializationError, match="is another member"):
        codec.encode(Made(7))


#: What makes a value of each family, whole or not: a value that lacks a field could not be shown by Hypothesis.
NAMES = st.sampled_from(["id", "at", "tags", "x", "y", "items", "$", "v", "_", "inner", "root"])
FIELDS = st.dictionaries(NAMES, VALUES, max_size=3)
DATACLASSES = [types.Order, types.Frozen, types.Derived, types.OnBase, types.Crate, types.CheckedCrate]
MODELS = [types.Model, types.Open, types.Numbers, types.Box, types.Box[int], types.Both[int, str]]
MAKERS = st.one_of(
    st.builds(partial, st.sampled_from([partial(filled, cls) for cls in (*DATACLASSES, *MODELS)]), FIELDS),
    st.builds(partial, st.sampled_from([partial(constructed, cls) for cls in MODELS]), FIELDS),
    st.builds(partial, st.just(partial(tuple.__new__, types.Pair)), st.lists(VALUES, max_size=3)),
    st.builds(partial, st.just(Made), st.integers(1, 3)),
    st.sampled_from([make for make, _ in ODD.values()]),
    st.builds(partial, st.just(types.Crate), VALUES),
)


@settings(max_examples=300, deadline=None)
@given(MAKERS, st.sampled_from([lambda value: value, lambda value: [0, value], types.Crate]))
def test_whatever_is_written_can_be_read(make, within):
    """Encoding refuses a value with a SerializationError, or decoding gives its like; an error crosses anyway."""
    value = within(make())
    assert isinstance(codec.decode_error(codec.encode_error(ValueError(value))), Exception)
    try:
        text = codec.encode(value)
    except SerializationError:
        return
    again = codec.decode(text)  # a field that was never set has its default now

    assert type(again) is type(value)
    assert codec.encode(codec.decode(codec.encode(again))) == codec.encode(again)
