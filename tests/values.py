"""Arbitrary values of every kind that crosses, and how two of them are compared."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import codec_types as types
from hypothesis import strategies as st

from durable import FatalError, Request, Response, RetryableError, Run

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
ZONES = (
    st.none() | st.timezones() | st.sampled_from([UTC, timezone(timedelta(minutes=-9)), timezone(timedelta(0), "Z")])
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | TEXT
    | st.binary(max_size=20)
    | st.decimals()
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=ZONES, allow_imaginary=True)
    | st.times(timezones=ZONES)
    | st.timedeltas()
    | st.sampled_from([*types.Colour, *types.Level, *types.Name, types.Right(0), types.Right(3), HTTPStatus.OK])
)
HASHABLE = TEXT | st.integers() | st.none() | st.tuples(st.uuids(), st.binary(max_size=3)) | st.dates()
KEYS = TEXT | st.sampled_from(["$", 1, True, None, 1.5, (1, "a"), types.Level.LOW, b"k", types.Frozen(1)])
HEADERS = st.lists(st.tuples(st.sampled_from(["X-A", "Cookie"]), st.sampled_from(["", "a b", "\xe9"])), max_size=2)
MESSAGES: st.SearchStrategy[Any] = (
    st.builds(Request, st.just("PUT"), st.sampled_from(["/", "/a%20b?c=1"]), HEADERS, st.binary(max_size=9))
    | st.builds(Response, st.binary(max_size=9), st.integers(200, 599), HEADERS)
    | st.builds(Run, st.sampled_from(["r1", "0" * 64]))
)
ERRORS = (ValueError, KeyError, ConnectionResetError, ExceptionGroup, FatalError, RetryableError)


def error_of(cls: Any, args: list[Any], note: str) -> Exception:
    """An exception with arguments, a note, and a cause."""
    error: Exception = cls("several", [ValueError(*args)]) if cls is ExceptionGroup else cls(*args)
    error.add_note(note)
    error.__cause__ = LookupError(note)
    return error


VALUES = st.recursive(
    SCALARS | MESSAGES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.frozensets(HASHABLE, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.builds(types.Frozen, inner, y=st.integers())
        | st.builds(types.Order, TEXT, st.lists(inner, max_size=3))
        | st.builds(types.Pair, inner, inner)
        | st.builds(types.Open, id=st.integers(), more=inner)
        # No sets: what an exception says of one depends on the order that it has in this process.
        | st.builds(
            error_of, st.sampled_from(ERRORS), st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=2), TEXT
        )
    ),
    max_leaves=12,
)


def form(value: Any) -> Any:
    """A value with the type of each of its parts, so that 1, True and 1.0 differ, and NaN is itself."""
    return type(value), _content(value)


def _content(value: Any) -> Any:
    match value:
        case dict():
            return [(form(key), form(item)) for key, item in value.items()]
        case list() | tuple():
            return [form(item) for item in value]
        case set() | frozenset():
            return sorted(map(repr, map(form, value)))
        case datetime() | time():
            return value.replace(tzinfo=None), value.fold, repr(value.tzinfo)
        case types.Frozen() | types.Order():
            return [form(getattr(value, name)) for name in type(value).__dataclass_fields__]
        case types.Open():
            return form(value.id), form(value.model_extra)
        case float() | Decimal():
            return repr(value)
        case BaseException():
            return form(value.args), getattr(value, "__notes__", []), value.__cause__ and form(value.__cause__)
        case _:
            return value
