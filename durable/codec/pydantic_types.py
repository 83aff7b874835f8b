"""Kinds: pydantic's types other than models: URLs, secrets, sizes, addresses."""

from __future__ import annotations

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


class UrlKind(Kind):
    """URLs as text."""

    tag = "url"

    def matches(self, cls: type) -> bool:
        return issubclass(cls, _URLS)

    def write(self, writer: Writer, value: Any) -> Fields:
        fields = {"c": named_class(value), "v": str(value)}
        if type(value)(fields["v"]) != value:
            raise Unencodable(f"a {type(value).__qualname__} of its text differs from it.  Pass it as a str.")
        return fields

    def digest(self, writer: Writer, value: Any) -> Fields:
        return {"v": self.write(writer, value)["v"]}

    def read(self, context: Context, fields: Fields) -> Any:
        return _rebuilt(fields, _URLS)


class SecretKind(Kind):
    """Secrets with their value, because the step that receives one needs the value; ``plain`` shows asterisks."""

    tag = "secret"

    def matches(self, cls: type) -> bool:
        return issubclass(cls, _SECRETS)

    def write(self, writer: Writer, value: Any) -> Fields:
        content = value.get_secret_value()
        if type(value)(content) != value:
            raise Unencodable(f"a {type(value).__qualname__} of its value differs from it.  Pass the value itself.")
        return {"c": named_class(value), "v": writer.write(content)}

    def digest(self, writer: Writer, value: Any) -> Fields:
        return {"v": self.write(writer, value)["v"]}

    def read(self, context: Context, fields: Fields) -> Any:
        return _rebuilt(fields, _SECRETS)

    def plain(self, fields: Fields) -> str:
        return _MASK


def _rebuilt(fields: Fields, bases: tuple[type, ...]) -> Any:
    cls: Any = find_class(fields["c"])
    if not issubclass(cls, bases):
        raise TypeError(f"{fields['c']} is not a {bases[0].__name__}")
    return cls(fields["v"])


def is_secret(cls: Any) -> bool:
    """Whether a class hides its value from people."""
    return isinstance(cls, type) and issubclass(cls, _SECRETS)


kinds.add(UrlKind())
kinds.add(SecretKind())
kinds.register("bytesize", ByteSize, int, ByteSize)
kinds.register("name_email", NameEmail, lambda value: [value.name, value.email], lambda parts: NameEmail(*parts))
