"""Values cross as JSON text with their types kept; what cannot is named by its path."""

import json
import math
import sys
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from subprocess import run
from uuid import UUID
from zoneinfo import ZoneInfo

import codec_types as types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from values import TEXT, VALUES, form

from durable import Request, Response, SerializationError, codec
from durable.codec import kinds
from durable.codec.encoder import MAX_SIZE

BERLIN = ZoneInfo("Europe/Berlin")

#: JSON with the tags of all kinds, on fields that are not theirs.
FOREIGN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(["codec_types.Order", "os.open"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(
            lambda tag, fields: {"$": tag, **fields},
            st.sampled_from(sorted(kinds._by_tag)),
            st.dictionaries(
                st.sampled_from(["v", "n", "class", "type", "zone", "head", "body", "args", "fold"]), inner
            ),
        )
    ),
    max_leaves=10,
)


def crossed(value):
    """What another process gets."""
    return codec.decode(codec.encode(value))


@settings(max_examples=300)
@given(VALUES)
def test_c33_values_cross_with_their_types(value):
    """Every value of the list comes back equal and of the same types, at every depth."""
    assert form(crossed(value)) == form(value)


@given(VALUES)
def test_the_text_is_ascii_json_without_nul(value):
    """Any database and any JSON reader takes the text."""
    text = codec.encode(value)

    assert text.isascii()
    assert "\0" not in text
    json.loads(text, parse_constant=pytest.fail)


@given(VALUES)
def test_c37_the_text_depends_on_the_value_only(value):
    """Encoding what was decoded gives the same text."""
    assert codec.encode(crossed(value)) == codec.encode(value)


@pytest.mark.slow
def test_c37_the_text_is_the_same_in_every_process():
    """Sets are written in one order, whatever the process's hash seed."""
    program = "from durable import codec; print(codec.encode({'a', 'b', 'c', ('d', 1), 2.5, None, b'x'}))"
    texts = {
        run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in "12"
    }

    assert len(texts) == 1


def test_plain_values_are_plain_json():
    """What JSON has is written as it is."""
    assert codec.encode({"a": [1, 2.5, None, True, "é"]}) == '{"a":[1,2.5,null,true,"\\u00e9"]}'


@pytest.mark.parametrize(
    "value",
    [
        "null byte \0",
        "\ud83d\ude00",
        "\ude00\ud83d\ude00\ud83d",
        {"\ud83d\ude00": 1},
        -0.0,
        math.inf,
        -math.inf,
        10**5_000,
        -(2**1024),
        2**1024,
        {"$": "tuple", "v": [1]},
        {1: "int", "1": "str"},
        {frozenset({1}): {(): None}},
        datetime.max,
        datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
        datetime(2026, 1, 1, fold=1),
        timedelta.min,
        timedelta.max,
        Decimal("-0.00"),
        Decimal("1E+999999"),
        types.Outer.Inner(3),
        types.Checked(1),
        types.Numbers([1, 2]),
        [],
        (),
        set(),
        {},
        frozenset(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_c33_what_json_would_change(value):
    """NUL, surrogates, signed zero, infinity, numbers too long, keys that are no str, tags, folds."""
    assert form(crossed(value)) == form(value)


def test_nan_stays_nan():
    """NaN of float and of Decimal, quiet and signalling."""
    assert math.isnan(crossed(math.nan))
    assert [str(crossed(Decimal(text))) for text in ("NaN", "sNaN12", "-Infinity")] == [
        "NaN",
        "sNaN12",
        "-Infinity",
    ]


def test_a_time_zone_keeps_its_key():
    """Arithmetic on the other side knows of summer time."""
    value = crossed(datetime(2026, 3, 28, 12, tzinfo=BERLIN))

    assert value.tzinfo.key == "Europe/Berlin"
    assert (value + timedelta(days=1)).utcoffset() == timedelta(hours=2)
    assert crossed(time(12, tzinfo=BERLIN)).tzinfo.key == "Europe/Berlin"


def test_c35_values_go_by_copy():
    """What comes out shares nothing with what went in."""
    inner = [1]
    first, second = crossed([inner, inner])
    first.append(2)

    assert (inner, second) == ([1], [1])


def test_c33_a_large_value():
    """A value of a few MiB crosses; one over the limit is refused with its size."""
    assert crossed("x" * (MAX_SIZE - 2)) == "x" * (MAX_SIZE - 2)
    with pytest.raises(SerializationError, match=rf"value: it takes {MAX_SIZE + 1} bytes"):
        codec.encode("x" * (MAX_SIZE - 1))


# Requests, responses, registered kinds


def test_a_recorded_request_crosses_by_its_id():
    """Its body is in the store already; the text says which requests it needs."""
    request = Request.from_head(Request(id="r1", headers={"A": "1"}).head_json(), b"\0body")
    text = codec.encode({"first": request, "all": [request]})

    assert b"body".decode() not in text
    assert codec.request_ids(text) == {"r1"}
    assert codec.decode(text, {"r1": request})["first"] is request


def test_a_request_made_by_hand_crosses_whole():
    """It is no record, and nothing has to be looked up."""
    request = Request("PUT", "/x?a=1", {"A": "\xe9"}, b"\0body", id="r1", received_at=datetime.now(UTC))
    text = codec.encode(request)

    assert codec.request_ids(text) == set()
    assert crossed(request) == request
    assert not crossed(request).recorded


@given(
    st.dictionaries(TEXT, TEXT) | TEXT | st.lists(st.sampled_from(["$", "request", "v", ":", '"$":"request","v":"x"']))
)
def test_no_text_passes_for_a_request(value):
    """Whatever strings a value holds, it refers to no request."""
    assert codec.request_ids(codec.encode([value, {"$": "request", "v": "x"}])) == set()


def test_a_response_crosses():
    """A Response is a value too."""
    response = Response(b"\0", 201, [("Set-Cookie", "a"), ("Set-Cookie", "b")])

    assert crossed([response]) == [response]


def test_a_registered_kind():
    """A later file adds its type by a tag and two functions."""
    codec.register("test_path", type(Path("x")), str, Path)
    try:
        assert crossed({"p": Path("a/b")}) == {"p": Path("a/b")}
    finally:
        codec.kinds._by_class.pop(type(Path("x")))
        codec.kinds._by_tag.pop("test_path")
        codec.kinds.kind_of.cache_clear()


# Plain JSON, for people


@given(VALUES)
def test_every_value_has_a_plain_form(value):
    """What `runs show` prints is strict JSON, without tags."""
    plain = codec.plain(codec.encode(value))

    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


@given(FOREIGN)
@settings(max_examples=100, deadline=None)
def test_whatever_json_the_log_holds_it_is_refused_or_read(value):
    """What a newer release, or a hand, wrote there: decoding raises SerializationError at most; it can be shown."""
    text = json.dumps(value)
    with suppress(SerializationError):
        codec.decode(text)

    assert json.dumps(codec.plain(text))


def test_the_plain_form_of_each_kind():
    """An object for a dataclass, a list for a set, a text for a date."""
    value = {
        "order": types.Order("o1", [types.Colour.RED, types.Level.HIGH], Decimal("1.5")),
        "pair": types.Pair(1, (2, {3})),
        "model": types.Model(id=1, at=datetime(2026, 1, 1, tzinfo=UTC)),
        "odd": [math.nan, 2**1024, b"x", UUID(int=1), date(2026, 1, 2), types.Colour.ODD, Decimal(1)],
        "keys": {1: "a", "b": 2, (1, 2): 3},
        "zone": datetime(2026, 1, 1, tzinfo=BERLIN),
        "error": ValueError("no"),
        "response": Response.json(1),
    }

    assert codec.plain(codec.encode(value)) == {
        "order": {"id": "o1", "items": ["red", 2], "total": "1.5"},
        "pair": {"left": 1, "right": [2, [3]]},
        "model": {"id": 1, "at": "2026-01-01T00:00:00+00:00", "tags": []},
        "odd": ["nan", 2**1024, "eA==", "00000000-0000-0000-0000-000000000001", "2026-01-02", "ODD", "1"],
        "keys": {"1": "a", "b": 2, "[1,2]": 3},
        "zone": "2026-01-01T00:00:00[Europe/Berlin]",
        "error": {"type": "ValueError", "message": "no"},
        "response": {"status": 200, "content_type": "application/json", "bytes": 1},
    }


def test_the_plain_form_of_a_request_hides_its_secrets():
    """Neither token nor credentials are shown; an unknown request by its id."""
    request = Request(url="/t0ken", headers={"Authorization": "s3cret"}, data=b"{}", id="r1")
    recorded = Request.from_head(request.head_json(), b"{}")
    shown = {"id": "r1", "method": "POST", "content_type": None, "text": "{}"}

    assert codec.plain(codec.encode(recorded), {"r1": recorded}) == codec.plain(codec.encode(request)) == shown
    assert codec.plain(codec.encode(recorded)) == "r1"


def test_the_plain_form_needs_no_class():
    """Another process, which knows none of the classes, can show it."""
    assert codec.plain('{"$":"dataclass","c":"none.such:X","v":{"a":{"$":"tuple","v":[1]}}}') == {"a": [1]}
    assert codec.plain('[{"$":"registered elsewhere","v":"id"}]') == ["id"]
