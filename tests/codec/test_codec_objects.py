"""Enums, named tuples, dataclasses and models: rebuilt as they were, by code that is older or newer too."""

import inspect
import json
from dataclasses import dataclass, field

import codec_types as types
import pytest

from durable import SerializationError, codec


def crossed(value):
    return codec.decode(codec.encode(value))


def edited(value, **changes):
    """What is read when the record has other fields than the class; None takes one out."""
    record = json.loads(codec.encode(value))
    record["v"] = {name: item for name, item in {**record["v"], **changes}.items() if item is not None}
    return codec.decode(json.dumps(record))


@pytest.mark.parametrize(
    "member", [*types.Colour, *types.Level, *types.Name, *types.Right, types.Right(3), types.Right(0)]
)
def test_an_enum_is_its_member(member):
    """Members of Enum, IntEnum, StrEnum and Flag, also combined ones, and those whose value cannot cross."""
    assert crossed(member) is member


def test_an_enum_goes_by_name():
    """A member whose value was changed is still that member."""
    text = codec.encode(types.Colour.RED).replace('"red"', '"crimson"')

    assert codec.decode(text) is types.Colour.RED


def test_a_named_tuple_keeps_its_type():
    """By field name, of typing and of collections."""
    value = crossed([types.Point(1), types.Pair("a", (1,))])

    assert value == [types.Point(1, 0), types.Pair("a", (1,))]
    assert [type(each) for each in value] == [types.Point, types.Pair]


def test_a_new_field_of_a_named_tuple_has_its_default():
    """A record of before the field is read."""
    assert edited(types.Point(1, 5), y=None, gone=3) == types.Point(1, 0)


def test_a_dataclass_is_rebuilt_without_running_its_code():
    """Frozen, with slots, keyword-only or computed fields, InitVar: every field as it was, none computed anew."""
    derived = types.Derived(2, factor=3)
    derived.product = 7

    value = crossed(derived)

    assert (value.base, value.product, hasattr(value, "unset")) == (2, 7, False)
    assert crossed(types.Frozen([1], y=3)) == types.Frozen([1], y=3)


def test_a_cached_property_stays_behind():
    """What a cached property holds is computed anew where it is wanted."""
    derived = types.Derived(2, factor=3)
    assert derived.lock

    assert "lock" not in vars(crossed(derived))


def test_a_new_field_has_its_default():
    """A record of before the field is read; one of after it too, the field left out."""
    assert edited(types.Order("a", [1]), items=None, total=None, later=1) == types.Order("a")


def test_each_rebuilt_value_has_a_default_of_its_own():
    """A default made by a factory is not shared."""
    first, second = edited(types.Order("a"), items=None), edited(types.Order("a"), items=None)
    first.items.append(1)

    assert second.items == []


def test_a_model_is_rebuilt_without_validation():
    """Fields, the set of those given, and private attributes; an alias doesn't matter."""
    model = types.Model(id=1, t=["x"])
    model._hits = 4
    model.tags.append(5)

    value = crossed(model)

    assert (value.id, value.tags, value._hits) == (1, ["x", 5], 4)
    assert value.model_fields_set == {"id", "tags"}
    assert value._lock.acquire(blocking=False)


def test_a_model_with_extra_fields():
    """What extra="allow" took in crosses too, in a frozen model as well."""
    assert crossed(types.Open(id=1, more=(1, 2))) == types.Open(id=1, more=(1, 2))
    assert crossed(types.Open(id=1)).model_extra == {}


def test_a_new_field_of_a_model_has_its_default():
    """As for a dataclass."""
    value = edited(types.Model(id=1, t=["x"]), tags=None, gone=1)

    assert (value.tags, value.at) == ([], None)
    assert value.model_dump() == types.Model(id=1).model_dump()


def test_a_private_attribute_that_cannot_cross_needs_a_default():
    """Without one it is named by its path."""
    model, keyed = types.Model(id=1), types.Keyed()
    model._hits = keyed._key = types.Holder()

    assert crossed(model)._hits == 0
    with pytest.raises(SerializationError, match=r"value._key: a codec_types.Holder"):
        codec.encode(keyed)


def test_a_generic_model_made_at_module_level():
    """A parametrized model has a name of its own in its module."""
    value = crossed(BoxOfInt(inner=1))

    assert type(value) is BoxOfInt
    assert value.inner == 1


BoxOfInt = types.Box[int]


@pytest.mark.parametrize(
    "make",
    [
        lambda: types.Crate[int](4),
        lambda: types.Crate[types.Crate[int]](types.Crate[int](4)),
        lambda: types.CheckedCrate[int](4),
        lambda: types.Duo[int](4),
        lambda: types.NamedBox[int](4),
        lambda: types.Labelled[int](label=4),
        lambda: types.Box[str](inner="x"),
        lambda: types.Box[types.Order](inner=types.Order("o")),
        lambda: types.Box[types.Box[bytes]](inner=types.Box[bytes](inner=b"x")),
        lambda: types.Box[dict[str, list[int]]](inner={"a": [1]}),
        lambda: types.Box[BoxOfInt](inner=BoxOfInt(inner=1)),
        lambda: types.Box[types.Crate[int]](inner=types.Crate[int](4)),
        lambda: types.Both[bool, types.Box[float]](left=True, right=types.Box[float](inner=1.5)),
    ],
)
def test_a_generic_value_made_with_its_parameters(make):
    """`Box[int](4)` crosses like `Box(4)`: a dataclass, named tuple, TypedDict, or a model that no module names."""
    value = make()

    assert crossed(value) == value
    assert type(crossed(value)) is type(value)


def test_the_parameters_of_a_dataclass_change_no_digest():
    """A call with `Crate[int](4)` is the same call as one with `Crate(4)`."""

    def called(crate):
        pass

    signature = inspect.signature(called)

    assert codec.digest({"crate": types.Crate[int](4)}, signature) == codec.digest({"crate": types.Crate(4)}, signature)


def test_a_generic_exception_made_with_its_parameters():
    """It keeps its class and arguments."""
    value = crossed(types.Failure[int](4))

    assert (type(value), value.args) == (types.Failure, (4,))


def test_parameters_without_a_name_are_refused():
    """A model whose parameter is a union says what to write; at the top of a module it has a name."""
    with pytest.raises(SerializationError, match=r"Write Box\[.*\] once at the top of the module"):
        codec.encode(types.Box[int | str](inner=1))
    assert crossed(BoxOfWords(inner=["a"])) == BoxOfWords(inner=["a"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("codec_types:Box[none.such:Order]", "'none.such', which is not imported"),
        ("codec_types:Box[builtins:int,builtins:str]", "does not take these parameters"),
        ("codec_types:Order[builtins:int]", "does not take these parameters"),
        ("codec_types:Crate[builtins:int]", "is not of the recorded kind"),
    ],
)
def test_parameters_that_cannot_be_found(path, message):
    """Text that names no class is refused when it is read, and imports nothing."""
    with pytest.raises(SerializationError, match=message):
        codec.decode(json.dumps({"$": "model", "c": path, "v": {}}))


BoxOfWords = types.Box[list[str] | None]


@dataclass
class Node:
    """Of this module, and holding its own kind."""

    value: int
    children: list["Node"] = field(default_factory=list)


def test_a_tree():
    """A class that holds itself crosses, as long as its values form no ring."""
    tree = Node(1, [Node(2, [Node(3)]), Node(4)])

    assert crossed(tree) == tree
