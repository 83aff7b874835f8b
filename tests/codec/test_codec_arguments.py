"""A call crosses by parameter name, and its digest is blind to what harmless deploys change."""

import inspect
import sys
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from subprocess import run
from typing import NamedTuple

import codec_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from durable import Request, Response, SerializationError, codec


def signature(text):
    """The signature of a function with these parameters."""
    names = {"types": types, "Decimal": Decimal}
    exec(f"def function({text}): pass", names)
    return inspect.signature(names["function"])


def digest(text, *args, **kwargs):
    known = signature(text)
    return codec.digest(codec.bind(known, args, kwargs), known)


def crossed(text, *args, **kwargs):
    known = signature(text)
    return codec.decode_arguments(codec.encode_arguments(codec.bind(known, args, kwargs)), {}, known)


# Calls


def test_arguments_are_an_object_by_parameter_name():
    """What was given, by name; defaults are left to the function."""
    known = signature("a, b=2, *rest, c, d=4, **more")

    assert codec.encode_arguments(codec.bind(known, (1, 2, 3), {"c": 4, "e": 5})) == (
        '{"a":1,"b":2,"rest":{"$":"tuple","v":[3]},"c":4,"more":{"e":5}}'
    )
    assert codec.encode_arguments(codec.bind(known, (1,), {"c": 3})) == '{"a":1,"c":3}'


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("", (), {}),
        ("a, b", (1, (2,)), {}),
        ("a, /, b, *, c", (1,), {"b": 2, "c": 3}),
        ("a, *rest, b=1", (1, 2, 3), {"b": 4}),
        ("a=1, **more", (), {"more": 5, "x": 6}),
        ("a=1, b=2", (), {"b": 3}),
        ("self, args, kwargs, path", (1, 2, 3, 4), {}),
    ],
)
def test_a_call_comes_back_as_it_was(text, args, kwargs):
    """Calling with what was decoded binds the same arguments."""
    known = signature(text)
    got_args, got_kwargs = crossed(text, *args, **kwargs)

    assert known.bind(*got_args, **got_kwargs) == known.bind(*args, **kwargs)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"x": 1})])
def test_a_call_that_does_not_fit(args, kwargs):
    """Binding raises TypeError, as the call itself would."""
    with pytest.raises(TypeError):
        codec.bind(signature("a, b=1"), args, kwargs)


def test_c29_an_argument_that_cannot_cross():
    """The path begins with the parameter's name."""
    with pytest.raises(SerializationError, match=r"args.order.items\[0\]: a codec_types.Holder"):
        crossed("order", types.Order("x", [types.Holder()]))


def test_a_parameter_that_is_gone():
    """An argument for a parameter that the function has lost is named."""
    with pytest.raises(SerializationError, match="no parameter 'old' any more"):
        codec.decode_arguments('{"old":1}', {}, signature("new=1"))


def test_a_parameter_that_is_new():
    """Without a default it cannot be called; with one it can."""
    with pytest.raises(SerializationError, match=r"'b'.*Give a new parameter a default"):
        codec.decode_arguments('{"a":1}', {}, signature("a, b"))
    assert codec.decode_arguments('{"a":1}', {}, signature("b=2, a=3")) == ((), {"a": 1})


# Digests


def test_a_digest_is_32_hex_digits():
    """Short enough for a column, long enough to be unique."""
    assert len(digest("a", 1)) == 32
    assert int(digest("a", 1), 16)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a, b", 1, 2), ("b, a", 2, 1)),
        (("a, b=2", 1), ("a, b=2", 1, 2)),
        (("a", 1), ("a, new=None", 1)),
        (("a", 1), ("a, *rest, **more", 1)),
        (("a", {"x": 1, "y": {"p": 1, "q": 2}}), ("a", {"y": {"q": 2, "p": 1}, "x": 1})),
        (("a", {1: 2, (3,): 4}), ("a", {(3,): 4, 1: 2})),
        (("a", {3, 1, 2}), ("a", {2, 3, 1})),
        (("a", types.Order("o")), ("a", types.Order("o", [], Decimal(0)))),
        (("a=types.Order('o')",), ("a=types.Order('o')", types.Order("o", []))),
        (("a", types.Model(id=1)), ("a", types.Model(id=1, at=None, t=[]))),
        (("a", types.Point(1)), ("a", types.Point(1, 0))),
        (("a", Request(id="r1", data=b"x")), ("a", Request(id="r1", data=b"y"))),
        (("a", Response("x")), ("a", Response(b"x", headers={"content-type": "text/plain; charset=utf-8"}))),
    ],
)
def test_c37_what_a_digest_does_not_see(one, other):
    """Order of parameters and keys, defaults given or not, new parameters and fields with a default."""
    assert digest(*one) == digest(*other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", 1), ("b", 1)),
        (("a", 1), ("a", 2)),
        (("a", 1), ("a", True)),
        (("a", 1), ("a", 1.0)),
        (("a=True",), ("a=True", 1)),
        (("a", 1), ("a", "1")),
        (("a", [1, 2]), ("a", [2, 1])),
        (("a", [1]), ("a", (1,))),
        (("a", None), ("a=1",)),
        (("a=None",), ("a=None", False)),
        (("a", types.Order("o")), ("a", types.Order("p"))),
        (("a", types.Order("o")), ("a", types.Order("o", [None]))),
        (("a", types.Level.LOW), ("a", types.Level.HIGH)),
        (("a", types.Right(1)), ("a", types.Right(3))),
        (("a", Request(id="r1")), ("a", Request(id="r2"))),
        (("a", Request(data=b"1")), ("a", Request(data=b"2"))),
        (("a", Response("x")), ("a", Response("y"))),
        (("a", ValueError(1)), ("a", ValueError(2))),
        (("a", ValueError(1)), ("a", TypeError(1))),
        (("a", datetime(2026, 1, 1)), ("a", datetime(2026, 1, 1, tzinfo=UTC))),
    ],
)
def test_what_a_digest_sees(one, other):
    """Names, values, types, and the order of lists."""
    assert digest(*one) != digest(*other)


def test_a_digest_does_not_see_where_a_class_is_defined():
    """A class that was moved or renamed, and one with more fields, all at their defaults, at any depth."""
    moved = make_dataclass("Elsewhere", ["id", ("items", list, field(default_factory=list)), ("new", int, 5)])
    model = create_model("M", id=(int, ...), new=(int, 3))

    assert digest("a", [moved("o", [moved("p")])]) == digest("a", [types.Order("o", [types.Order("p")])])
    assert digest("a", model(id=1)) == digest("a", types.Model(id=1))
    assert digest("a", moved("o", new=6)) != digest("a", types.Order("o"))


def test_a_digest_of_an_exception_is_its_type_and_arguments():
    """Not its traceback, nor the address in an argument's repr."""

    def raised(error):
        try:
            raise error
        except ValueError as caught:
            return caught

    assert digest("a", ValueError(1)) == digest("a", raised(ValueError(1)))
    assert digest("a", ValueError(object())) == digest("a", ValueError(object()))


def test_a_default_that_cannot_be_made_here():
    """A factory that raises, and a default that cannot cross, leave the field in."""

    def refuse():
        raise RuntimeError("not here")

    @dataclass
    class Fussy:
        x: int = field(default_factory=refuse)
        y: object = object()

    class Sentinel(NamedTuple):
        z: object = object()

    assert digest("a", Fussy(1, 2)) != digest("a", Fussy(2, 2))
    assert digest("a", Sentinel(None)) != digest("a", Sentinel(1))
    assert digest("a=object()", None) != digest("a=object()")


def test_a_deep_tree_takes_no_exponential_time():
    """Fields are written once, however deep, though each is compared with its default."""

    @dataclass
    class Node:
        children: list = field(default_factory=list)

    tree = Node()
    for _ in range(60):
        tree = Node([tree])

    assert digest("a", tree) != digest("a", Node())


@pytest.mark.parametrize(
    ("own", "original"),
    [
        ({"zzz": 1, "bbb": 2}, {"aaa": 1, "mmm": 2}),
        ({"deep": [{"zzz/é": {"zzz"}, "bbb": "bbb"}]}, {"deep": [{"aaa/é": {"aaa"}, "mmm": "mmm"}]}),
        ({"zzz", "bbb", "\u00e9", "~"}, {"aaa", "mmm", "\u00e9", "~"}),
        (frozenset({("zzz", 1), ("bbb", 2)}), frozenset({("aaa", 1), ("mmm", 2)})),
        ({("zzz", 1): 1, ("bbb", 1): 2}, {("aaa", 1): 1, ("mmm", 1): 2}),
        ({"$": "zzz", "é": 1, "\ud800": 2.5, "zzz": None}, {"$": "aaa", "é": 1, "\ud800": 2.5, "aaa": None}),
        (types.Crate({"zzz": 1, "bbb": 2}), types.Crate({"aaa": 1, "mmm": 2})),
        (["zzz", "bbb", True, 10**400], ["aaa", "mmm", True, 10**400]),
    ],
)
def test_a_digest_of_a_fork_is_that_of_its_origin(own, original):
    """With the fork's id and tokens anywhere, as keys and in sets too, whose order they change."""
    known = signature("value")
    renamed = {"zzz": "aaa", "bbb": "mmm"}
    assert codec.digest({"value": own}, known, renamed) == codec.digest({"value": original}, known)
    # Where nothing is renamed, nothing changes.
    assert codec.digest({"value": original}, known, renamed) == codec.digest({"value": original}, known)
    assert codec.digest({"value": own}, known, {"no": "matter"}) == codec.digest({"value": own}, known)


def test_a_digest_of_a_fork_sees_both_of_two_keys_that_become_one():
    """A fork may have its own id and that of its origin in one dict."""
    known = signature("value")
    digests = {codec.digest({"value": {"own": one, "old": 2}}, known, {"own": "old"}) for one in (1, 3)}
    assert len(digests) == 2


def test_an_argument_that_cannot_be_compared():
    """A digest refuses what cannot cross, by its path, and needs no class to be found again."""
    with pytest.raises(SerializationError, match=r"args\.a\.x: a codec_types\.Holder"):
        digest("a", {"x": types.Holder()})
    assert digest("a", types.local())


@given(st.dictionaries(st.text() | st.integers(), st.integers() | st.floats() | st.text(), max_size=6))
def test_a_digest_is_of_the_value(value):
    """The same value, sent through the codec or built in another order, has the same digest."""
    backwards = dict(reversed(value.items()))

    assert digest("a", value) == digest("a", backwards) == digest("a", codec.decode(codec.encode(value)))


@pytest.mark.slow
def test_c37_a_digest_is_the_same_in_every_process():
    """Whatever the hash seed."""
    program = (
        "import inspect; from durable import codec\n"
        "def f(a): pass\n"
        "print(codec.digest({'a': [{'x', 'y', ('z', 1)}, {'b': 1, 'a': 2}]}, inspect.signature(f)))"
    )
    found = {
        run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in "12"
    }

    assert len(found) == 1


def test_a_digest_of_today_is_that_of_tomorrow():
    """Digests stand in logs: what they are made of must not change."""

    class Local(BaseModel):
        x: int
        y: int = 1

    value = [1, "é", None, 2.5, (1,), {2, 1}, b"x", {"b": 1, "a": 2}, {1: 2}, types.Order("o"), types.Point(1)]
    more = [types.Colour.RED, Decimal("1.0"), datetime(2026, 1, 1, tzinfo=UTC), Local(x=1), Request(id="r")]

    assert digest("a, b=3", [*value, *more]) == "4edba0b0ffdbf37d22ba4c46a556bad2"
