"""
Immutable headers; which headers may be sent; heads of messages as text.

Servers react to a bad header in different ways, from an error 500 to response splitting, and Werkzeug checks only for
line ends in values.  So this file checks names and values before anything is recorded (RFC 9110 §5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from werkzeug.datastructures import Headers, ImmutableHeadersMixin

from ..errors import SerializationError

#: Types of a headers argument: pairs, a mapping (also to lists), or Werkzeug's Headers.
HeadersLike = Headers | Mapping[str, Any] | Iterable[tuple[str, Any]]

MAX_HEADERS = 100
MAX_HEADERS_SIZE = 16 * 1024

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

#: Headers of the connection (RFC 9110 §7.6.1), and headers that the server sets.
_DROPPED = re.compile(
    "connection|keep-alive|proxy-authenticate|proxy-authorization|proxy-connection|te|trailer"
    "|transfer-encoding|upgrade|content-length|date|server",
    re.IGNORECASE,
)

#: Headers whose values prove the sender's identity, and are not shown.
_SECRET = re.compile(
    "authorization|proxy-authorization|cookie|set-cookie|.*signature.*|.*hmac.*|.*secret.*|.*api-?key|.*-token",
    re.IGNORECASE,
)

_VERSION = 1


class FrozenHeaders(ImmutableHeadersMixin, Headers):  # type: ignore[misc]  # as Werkzeug's own
    """Immutable headers.  They are equal if names (in any case) and values are equal, in the same order."""

    def __init__(self, headers: HeadersLike | None = None) -> None:
        super().__init__()
        for name, value in Headers(cast(Any, headers)):
            Headers.add(self, name, value)

    def copy(self) -> Headers:  # type: ignore[override]
        """A mutable copy."""
        return Headers(list(self))

    def __repr__(self) -> str:
        """For people and logs, without secret values."""
        shown = [(name, "..." if is_secret(name) else value) for name, value in self]
        return f"{type(self).__name__}({shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and _lowered(self) == _lowered(other)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(_lowered(self))


def is_secret(name: str) -> bool:
    """Whether a header's value is secret: credentials, cookies, signatures."""
    return _SECRET.fullmatch(name) is not None


def wire_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """
    The headers that a response sends, without those of the connection.

    Raises:
        ValueError: If a server would reject or change a name or value, or if there are too many.
    """
    kept = []
    for name, value in headers:
        _check(name, value)
        if not _DROPPED.fullmatch(name):
            kept.append((name, value))
    size = sum(len(name) + len(value) for name, value in kept)
    if len(kept) > MAX_HEADERS or size > MAX_HEADERS_SIZE:
        raise ValueError(
            f"The response has {len(kept)} headers of {size} bytes in total; the limits are"
            f" {MAX_HEADERS} and {MAX_HEADERS_SIZE}.  Put data into the body."
        )
    return kept


def _check(name: object, value: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name: it may contain only letters, digits and !#$%&'*+-.^_`|~.")
    if _CONTROL.search(value) or value != value.strip(" \t"):
        raise ValueError(
            f"The value of header {name!r}, {value!r}, has a control character, or a space or tab at its ends."
        )
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"The value of header {name!r}, {value!r}, has characters outside Latin-1: percent-encode them."
        ) from None


def write_head(**fields: object) -> str:
    """The head of a message as ASCII text, with the version of this format."""
    return json.dumps({"v": _VERSION, **fields}, separators=(",", ":"))


def read_head(text: str, what: str) -> dict[str, Any]:
    """The fields that ``write_head`` wrote, with immutable headers."""
    fields: dict[str, Any] = json.loads(text)
    version = fields.pop("v", None)
    if version != _VERSION:
        raise SerializationError(
            what,
            f"its head has version {version!r}; this code reads {_VERSION}: update durable-celery here.",
        )
    fields["headers"] = FrozenHeaders([(name, value) for name, value in fields["headers"]])
    return fields


def _lowered(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value) for name, value in headers)
