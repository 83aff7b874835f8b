"""Pydantic's own types cross, in models and by themselves; a secret keeps its value and shows it nowhere."""

from __future__ import annotations

import enum
import inspect
import traceback
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypedDict

import codec_types as types
import pytest
from pydantic import (
    AnyUrl,
    BaseModel,
    ByteSize,
    FileUrl,
    HttpUrl,
    IPvAnyAddress,
    MySQLDsn,
    NameEmail,
    PostgresDsn,
    Secret,
    SecretBytes,
    SecretStr,
)
from pydantic_core import Url

from durable import HookPayloadError, SerializationError, codec, define_hook

PASSWORD = "hunter2"


class ShopUrl(HttpUrl):
    """An author's URL."""


class Pin(Secret[int]):
    """An author's secret."""


class Account(BaseModel):
    home: HttpUrl
    password: SecretStr
    keys: list[SecretBytes] = []
    pin: Pin | None = None
    store: PostgresDsn | None = None
    quota: ByteSize = ByteSize(0)
    address: IPvAnyAddress | None = None


ACCOUNT: dict[str, Any] = {
    "home": "https://shop.test/a?b=1",
    "password": PASSWORD,
    "keys": [b"\xff"],
    "pin": 1234,
    "store": "postgres://u:p@a:1,b:2/db",
    "quota": "1 MiB",
    "address": "::1",
}

VALUES = [
    HttpUrl("https://bücher.test/ä?x=ü#f"),
    AnyUrl("custom+scheme:opaque"),
    FileUrl("file:///etc/hosts"),
    ShopUrl("http://shop.test"),
    PostgresDsn("postgres://u:p%40@a:1,b:2/db"),
    MySQLDsn("mysql://u@h/db"),
    Url("https://a.test"),
    ByteSize(2**40),
    NameEmail("Kim", "kim@shop.test"),
    SecretStr(PASSWORD),
    SecretStr(""),
    SecretBytes(b"\0\xff"),
    Secret[int](7),
    Secret([1, (2,)]),
    Pin(1234),
    ip_address("10.0.0.1"),
    ip_address("fe80::1%eth0"),
    ip_interface("10.0.0.1/8"),
    ip_network("2001:db8::/32"),
    Account(**ACCOUNT),
]


def crossed(value: Any) -> Any:
    return codec.decode(codec.encode(value))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_c33_pydantics_types_cross(value):
    """Each comes back equal, of its type, and alone as in a list, a dict's key or a set."""
    assert (crossed(value), type(crossed(value))) == (value, type(value))
    assert crossed([value]) == [value]
    if not isinstance(value, BaseModel | NameEmail | SecretBytes) and value != Secret([1, (2,)]):
        assert crossed({value: {value}}) == {value: {value}}


def test_a_secret_keeps_its_value():
    """What arrives is no row of asterisks."""
    account = crossed(Account(**ACCOUNT))

    assert account.password.get_secret_value() == PASSWORD
    assert (account.pin.get_secret_value(), account.keys[0].get_secret_value()) == (1234, b"\xff")


def test_a_secret_is_not_shown():
    """Neither in the plain form that people see, nor as an exception's text."""
    text = codec.encode({"account": Account(**ACCOUNT), SecretStr(PASSWORD): 1})
    summary = codec.error_summary(codec.encode_error(ValueError(SecretStr(PASSWORD))))

    assert PASSWORD not in repr(codec.plain(text))
    assert codec.plain(text)["account"]["password"] == "**********"
    assert codec.plain(text)["account"]["home"] == ACCOUNT["home"]
    assert PASSWORD not in str(summary) + summary.traceback


class Login(TypedDict):
    user: int
    password: SecretStr


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Account, {"password": PASSWORD}),
        (Login, {"password": PASSWORD}),
        (list[Account | None], [{"password": PASSWORD}]),
        (SecretBytes, PASSWORD * 0 or [PASSWORD]),
        (types.Box[Account], {"inner": {"password": PASSWORD}}),
    ],
)
def test_a_misfit_shows_no_secret(annotation, value):
    """The error names the part that does not fit, and neither it nor its traceback shows what was given."""
    with pytest.raises(SerializationError) as caught:
        codec.fit(value, annotation, "payload")
    shown = "".join(traceback.format_exception(caught.value))

    assert "does not fit the annotation" in shown
    assert PASSWORD not in shown


def test_a_refused_payload_shows_no_secret():
    """What the sender is told of a payload are places and reasons, without the input."""
    hook = define_hook(Account, name="pydantic.account")
    with pytest.raises(HookPayloadError) as caught:
        hook.validate("t", {"password": PASSWORD})

    assert caught.value.errors[0]["loc"] == ("home",)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.errors)


def test_a_digest_does_not_see_which_class_a_url_is_of():
    """Calls are compared by what a URL or a secret says, as with other values whose class was moved."""

    def called(value):
        pass

    def digest(value):
        return codec.digest({"value": value}, inspect.signature(called))

    assert digest(ShopUrl("http://a.test")) == digest(HttpUrl("http://a.test"))
    assert digest(SecretStr("a")) != digest(SecretStr("b"))


@pytest.mark.parametrize("tag", ["url", "secret"])
@pytest.mark.parametrize("path", ["pydantic.types:ImportString", "codec_types:Order", "builtins:int"])
def test_only_such_classes_are_made_of_a_text(tag, path):
    """A record names no other class by these kinds: an ImportString would import."""
    with pytest.raises(SerializationError, match="cannot be rebuilt"):
        codec.decode(f'{{"$":"{tag}","c":"{path}","v":"this"}}')


# Instances of what is annotated


class Size(enum.StrEnum):
    S = "s"


class Rank(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Size.S, str),
        (Size.S, str | None),
        (Rank.ONE, int),
        (True, int),
        ([Size.S, "t"], list[str]),
        ((Size.S, 1), tuple[str, int]),
        ([[Size.S], ["t"]], list[list[str]]),
        ({Size.S: Rank.ONE, "t": 2}, dict[str, int]),
        ({"b": {"c": [Size.S]}}, dict[str, dict[str, list[str]]]),
        ({Size.S, "t"}, set[str]),
        (frozenset({Rank.ONE}), frozenset[int]),
        ({"label": Size.S}, types.Labelled[str]),
        (types.Duo(Size.S), types.Duo[str]),
        (types.Point(1, 2), tuple[int, int]),
    ],
)
def test_an_instance_of_the_annotation_keeps_its_type(value, annotation):
    """A member of a StrEnum is a str: it is not made a plain one, alone or in lists, tuples, sets and dicts."""
    fitted = codec.fit(value, annotation, "value")

    assert _shown(fitted) == _shown(value)
    assert _shown(codec.fit(crossed(value), annotation, "value")) == _shown(value)


def _shown(value):
    """The type and the text; a set has no order, and its text one that depends on how it was built."""
    return type(value), sorted(map(repr, value)) if isinstance(value, set | frozenset) else repr(value)


class Keys(TypedDict, total=False):
    a: str
    b: int
    c: float


def test_what_the_annotation_changes_is_changed_beside_it():
    """Other items are still made what is annotated, whatever the order that a TypedDict gives them."""
    assert codec.fit([Size.S, Rank.ONE], list[str | float], "value") == [Size.S, 1.0]
    assert repr(codec.fit({"x": 1, "c": Rank.ONE, "b": "5", "a": Size.S}, Keys, "value")) == repr(
        {"a": Size.S, "b": 5, "c": 1.0}
    )
    assert repr(codec.fit({1}, set[float], "value")) == "{1.0}"
    assert repr(codec.fit(types.Duo(1), types.Duo[float], "value")) == "Duo(left=1.0)"
    assert repr(codec.fit({Size.S: "5"}, dict[str, int], "value")) == repr({Size.S: 5})


@pytest.mark.parametrize("made", [type("Text", (str,), {})("x"), type("Table", (dict,), {})(a="b")])
def test_a_subclass_that_cannot_cross_becomes_what_is_annotated(made):
    """A result that is annotated as a str may be a subclass of it: what is recorded is a plain one."""
    base = type(made).__base__

    assert type(codec.fit(made, base if base is str else dict[str, str], "result")) is base


def test_a_call_is_shown_shortened_and_with_its_secrets_masked():
    """As Celery's tools show it: at most 1,024 characters."""
    shown = codec.shown_arguments(codec.encode_arguments({"password": SecretStr("hunter2"), "n": 1}))
    long = codec.shown_arguments(codec.encode_arguments({"text": "x" * 5_000}))

    assert shown == "{'password': '**********', 'n': 1}"
    assert (len(long), long[-4:]) == (1_024, "...}")


def test_a_value_in_an_error_is_shortened_and_has_its_secrets_masked():
    """The error is logged, and shown on the page of the run."""
    call = codec.encode_arguments({"password": SecretStr("hunter2"), "n": 1})
    assert codec.shown_in_error(call) == '{"password":"**********","n":1}'
    assert codec.shown_in_error(codec.encode("x" * 5_000, "value")) == '"' + "x" * 299 + "… (5002 characters)"
    assert codec.shown_in_error(codec.encode("x" * 1_000_000, "value")) == "… (1000002 characters)"
    assert codec.shown_in_error("no JSON") == "… (7 characters)"
