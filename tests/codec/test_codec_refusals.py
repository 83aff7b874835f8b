"""What cannot cross is named by its path; what cannot be read is named too, and nothing is imported for it."""

import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from subprocess import run

import codec_types as types
import pytest

from durable import SerializationError, codec
from durable.codec.encoder import MAX_DEPTH


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def ring():
    value = [0]
    value.append({"back": (value,)})
    return value


class Odd(tzinfo):
    def utcoffset(self, when):
        return timedelta(0)


async def coroutine():
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"order": {"items": [0, {"price": object()}]}}, "value.order.items[1].price: an object cannot be serialized"),
        (
            {"a b": {3: threading.Lock()}},
            "value['a b'][3]: a _thread.lock cannot be serialized.",
        ),
        ((1, {"f": print}), "value[1].f: a builtin_function_or_method cannot be serialized"),
        (
            [types.Order("x", [lambda: 1])],
            "value[0].items[0]: a function cannot be serialized.",
        ),
        ({types.Holder(): 1}, "value[<Holder>]: a codec_types.Holder"),
        (types.Pair(1, types.Holder()), "value.right: a codec_types.Holder"),
        (types.Open(id=1, more=types.Holder()), "value.more: a codec_types.Holder"),
        (ring(), "value[1].back[0]: it contains itself"),
        (nested(MAX_DEPTH + 1), "it is nested more than 150 levels deep"),
        (nested(100_000), "it is nested more than 150 levels deep"),
        (
            defaultdict(list),
            "Its type would be lost; pass dict(...) of it",
        ),
        (OrderedDict(), "pass dict(...) of it"),
        (Counter(), "pass dict(...) of it"),
        (deque(), "value: a collections.deque cannot be serialized"),
        (type("Text", (str,), {})("x"), "pass str(...) of it"),
        (type("Number", (int,), {})(5), "pass int(...) of it"),
        (bytearray(b"x"), "Pass bytes(...) of it"),
        (memoryview(b"x"), "Pass bytes(...) of it"),
        (Path("x"), "cannot be serialized.  Pass plain data"),
        (int, "value: a type cannot be serialized.  Pass its name"),
        (iter([1]), "Pass list(...) of it"),
        (
            types.local(),
            "is defined inside a function, where no other process finds it.  Move it to module level",
        ),
        (
            types.Hidden(1),
            "value: its attribute 'more' is not a field of dataclass Hidden, and would be lost.",
        ),
        (types.DictClass(), "is also a builtin container"),
        (datetime(2026, 1, 1, tzinfo=Odd()), "has no name that other processes know.  Use UTC or zoneinfo"),
        (type("Odd", (types.Order,), {})("x"), "is not what this name stands for in its module"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_c36_what_cannot_cross_is_named_by_its_path(value, message):
    """The error says where it stands, what it is, and what to pass instead; cycles overflow no stack."""
    with pytest.raises(SerializationError) as caught:
        codec.encode(value)

    assert message in str(caught.value)


def test_a_call_that_was_not_awaited():
    """A forgotten await is told as such."""
    forgotten = coroutine()
    with pytest.raises(SerializationError, match="write `await` before it"):
        codec.encode({"result": forgotten}, "result")
    forgotten.close()


def test_the_deepest_value_can_be_read():
    """What is just not too deep comes back, also where the nesting costs JSON most."""
    value = 1
    for _ in range(MAX_DEPTH):
        value = {1: value}

    assert codec.decode(codec.encode(value)) == value


def test_c37_a_shared_part_is_no_cycle():
    """The same list twice in a value is two lists, not a cycle."""
    shared = [1]

    assert codec.decode(codec.encode({"a": shared, "b": [shared]})) == {"a": [1], "b": [[1]]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"$":"dataclass","c":"none.such:Order","v":{}}', "'none.such', which is not imported in this process"),
        ('{"$":"dataclass","c":"codec_types:Gone","v":{}}', "has no class Gone any more"),
        ('{"$":"dataclass","c":"codec_types:local","v":{}}', "has no class local any more"),
        ('{"$":"model","c":"codec_types:Order","v":{}}', "has no class Order any more"),
        ('{"$":"enum","c":"codec_types:Colour","n":"BLUE","v":1}', "has no member BLUE any more"),
        ('{"$":"dataclass","c":"codec_types:Order","v":{}}', "a field 'id' that the record lacks"),
        ('{"$":"namedtuple","c":"codec_types:Point","v":{}}', "a field 'x' that the record lacks"),
        ('{"$":"model","c":"codec_types:Model","v":{}}', "a field 'id' that the record lacks"),
        ('{"$":"later","v":1}', "its kind 'later' is unknown"),
        ('{"$":["x"],"v":1}', "is unknown"),
        ('{"$":"date","v":"x"}', "its date cannot be rebuilt: ValueError"),
        ('{"$":"datetime","v":"2026-01-01T00:00:00","fold":0,"zone":"Mars/Base"}', "'Mars/Base' is not known"),
        ('{"$":"request","v":"r9"}', "request 'r9' is not in the store"),
        ('{"$":', "its text is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_decoded(text, message):
    """A class, member, zone or request that is not here is named; nothing is imported."""
    with pytest.raises(SerializationError) as caught:
        codec.decode(text)

    assert message in str(caught.value)


def test_decoding_imports_nothing():
    """A module that is not imported stays so."""
    assert "this" not in sys.modules
    with pytest.raises(SerializationError, match="imports nothing"):
        codec.decode('{"$":"dataclass","c":"this:Zen","v":{}}')
    assert "this" not in sys.modules


@pytest.mark.slow
def test_a_class_of_main():
    """A class of the program itself crosses within it."""
    program = (
        "from dataclasses import dataclass\nfrom durable import codec\n@dataclass\nclass A:\n  x: int\n"
        "assert codec.decode(codec.encode(A(1))) == A(1)"
    )

    assert run([sys.executable, "-c", program], check=False).returncode == 0
