"""
Kinds: pydantic's types other than models: URLs, secrets, sizes, addresses.

A secret is written with its value, because the step that receives it needs the value.  ``plain`` shows asterisks.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

from pydantic import ByteSize, NameEmail, Secret, SecretBytes, SecretStr
from pydantic.networks import _BaseMultiHostUrl, _BaseUrl
from pydantic_core import MultiHostUrl, Url

from . import kinds
from .kinds import Context, Fields, Kind, Writer, find_class
from .objects import named_class
from .refusals import Unencodable

_URLS = (_BaseUrl, _BaseMultiHostUrl, Url, MultiHostUrl)
_SECRETS = (SecretStr, SecretBytes, Secret)
_MASK = "**********"


def _write_url(_writer: Writer, value: Any) -> Fields:
    fields = {"c": named_class(value), "v": str(value)}
    if type(value)(fields["v"]) != value:
        raise Unencodable(f"a {type(value).__qualname__} of its text differs from it.  Pass it as a str.")
    return fields


def _read_url(_context: Context, fields: Fields) -> Any:
    return _rebuilt(fields, _URLS)


def _write_secret(writer: Writer, value: Any) -> Fields:
    content = value.get_secret_value()
    if type(value)(content) != value:
        raise Unencodable(f"a {type(value).__qualname__} of its value differs from it.  Pass the value itself.")
    return {"c": named_class(value), "v": writer.write(content)}


def _read_secret(_context: Context, fields: Fields) -> Any:
    return _rebuilt(fields, _SECRETS)


def _rebuilt(fields: Fields, bases: tuple[type, ...]) -> Any:
    cls: Any = find_class(fields["c"])
    if not issubclass(cls, bases):
        raise TypeError(f"{fields['c']} is not a {bases[0].__name__}")
    return cls(fields["v"])


def _digest(kind_writer: Any) -> Any:
    """The writer for digests: the value without the path of its class."""
    return lambda writer, value: {"v": kind_writer(writer, value)["v"]}


def is_secret(cls: Any) -> bool:
    """Whether a class hides its value from people."""
    return isinstance(cls, type) and issubclass(cls, _SECRETS)


kinds.add_family(Kind("url", _write_url, _read_url, _digest(_write_url)), lambda cls: issubclass(cls, _URLS))
kinds.add_family(
    Kind("secret", _write_secret, _read_secret, _digest(_write_secret), lambda _fields: _MASK),
    lambda cls: issubclass(cls, _SECRETS),
)
kinds.register("bytesize", ByteSize, int, ByteSize)
kinds.register("name_email", NameEmail, lambda value: [value.name, value.email], lambda parts: NameEmail(*parts))
for _cls in (IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network):
    kinds.register(_cls.__name__.lower(), _cls, str, _cls)
