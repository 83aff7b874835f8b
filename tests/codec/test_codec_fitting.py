"""Whether a value fits an annotation, and what it becomes."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NotRequired, Optional, TypedDict, TypeVar

import codec_types as types
import pytest
from pydantic import Field, ValidationError

from durable import Request, Response, SerializationError, codec

T = TypeVar("T")


class Part(TypedDict, total=False):
    size: int


class Whole(TypedDict):
    id: int
    part: Part
    more: NotRequired[list[Part]]


@dataclass
class Event:
    """Holds what pydantic knows nothing of."""

    request: Request
    holder: types.Holder
    count: int


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, int, 1),
        ("5", int, 5),
        (1, float, 1.0),
        (None, None, None),
        (None, int | None, None),
        ([1], list[int], [1]),
        ((1, 2), list[int], [1, 2]),
        ([1, 2], tuple[int, ...], (1, 2)),
        ("2026-01-01", datetime, datetime(2026, 1, 1)),
        ({"id": "a", "total": "1.5"}, types.Order, types.Order("a", [], 1.5)),
        ({"id": 1, "x": 2}, types.Open, types.Open(id=1, x=2)),
        ({"id": "1", "part": {"size": "2"}}, Whole, {"id": 1, "part": {"size": 2}}),
        ([{"id": 1, "part": {}, "more": [{}]}], list[Whole] | None, [{"id": 1, "part": {}, "more": [{}]}]),
        (None, Optional[Whole], None),  # noqa: UP045  as authors still write it
        ("red", types.Colour, types.Colour.RED),
        ([1, 2], types.Point, types.Point(1, 2)),
        (3, Annotated[int, Field(gt=2)], 3),
        ({"a": {"b": 1}}, Mapping[str, Any], {"a": {"b": 1}}),
    ],
)
def test_what_fits(value, annotation, expected):
    """A value that fits is itself, or what pydantic turns it into."""
    fitted = codec.fit(value, annotation, "result")

    assert fitted == expected
    assert type(fitted) is type(expected)


@pytest.mark.parametrize("annotation", [Any, object, inspect.Parameter.empty, T, "Undefined", print, {}, 5])
def test_an_annotation_that_says_nothing(annotation):
    """Without an annotation, or with one that pydantic makes nothing of, anything fits and is itself."""
    value = [object()]

    assert codec.fit(value, annotation, "result") is value


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Request(), Request),
        (Response(), Response | None),
        (ValueError("x"), Exception),
        (types.Holder(), types.Holder),
        (Event(Request(), types.Holder(), 1), Event),
        (types.Model(id=1), types.Model),
        (types.Order("x"), types.Order),
    ],
)
def test_instances_pass_as_they_are(value, annotation):
    """Requests, responses, exceptions, and classes that pydantic doesn't know, count by their type."""
    assert codec.fit(value, annotation, "result") is value


@pytest.mark.parametrize(
    ("value", "annotation", "message"),
    [
        ("x", int, "result: 'x' does not fit the annotation: Input should be a valid integer"),
        (1, None, "result: 1 does not fit the annotation: Input should be None"),
        ([1, {"a": "b"}], list[int | dict[str, int]], "result[1]"),
        ({"id": 1, "part": {"size": "x"}}, Whole, "result.part.size: 'x'"),
        ({"part": {}}, Whole, "result.id"),
        ({"id": "x", "t": 5}, types.Model, "(And 1 more.)"),
        (5, Request, "result: 5 does not fit the annotation: Input should be an instance of Request"),
        (TypeError(), ValueError, "Input should be an instance of ValueError"),
        ({"request": 1, "holder": types.Holder(), "count": 1}, Event, "result.request: 1 does not fit"),
        (2, Annotated[int, Field(gt=2)], "Input should be greater than 2"),
        ([1], dict, "Input should be a valid dictionary"),
    ],
)
def test_c29_what_does_not_fit(value, annotation, message):
    """The error names the part that doesn't fit, and its cause is pydantic's, whose paths begin at the value."""
    with pytest.raises(SerializationError) as caught:
        codec.fit(value, annotation, "result")

    assert message in str(caught.value)
    assert isinstance(caught.value.__cause__, ValidationError)


def test_pydantics_paths_begin_at_the_value():
    """A caller may show pydantic's own errors."""
    with pytest.raises(SerializationError) as caught:
        codec.fit({"id": "x"}, types.Model, "payload")

    assert caught.value.__cause__.errors()[0]["loc"] == ("id",)


@pytest.mark.parametrize("annotation", [Iterable[int], Iterator[int]])
def test_an_iterable_is_not_consumed(annotation):
    """Pydantic would wrap it into an iterator, which cannot cross."""
    value = [1]

    assert codec.fit(value if annotation is Iterable[int] else iter(value), annotation, "result") is not None
    assert codec.fit(value, Iterable[int], "result") is value


def test_an_annotation_that_cannot_be_hashed():
    """It is looked at anew each time."""
    assert codec.fit("5", Annotated[int, []], "result") == 5


def test_whether_an_annotation_is_checked():
    """Who needs a check can ask whether there will be one."""
    assert codec.is_checked(Whole)
    assert not codec.is_checked("Undefined")


def test_the_members_of_a_union_are_tried_in_their_order():
    """Whatever was checked before: two unions that differ in their order only are equal to Python."""
    assert int | float == float | int
    orders = [int | float, float | int, list[int | float], list[float | int]]  # type: ignore[operator]
    for _ in range(2):
        found = [codec.fit("1" if order in orders[:2] else ["1"], order, "value") for order in orders]
        assert [repr(each) for each in found] == ["1", "1.0", "[1]", "[1.0]"]
